//! The programs whose processes the contenders are, each with its allocator. Only those that are wanted are built.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use integration_tests::{log_line, program};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// This one.
    Own,
    /// The same contenders with glibc's malloc: `glibc.rs`.
    OwnGlibc,
    /// The package benches/arroyo.
    Arroyo,
    /// The same without jemalloc.
    ArroyoGlibc,
}

impl Program {
    /// Its like with glibc's malloc.
    pub(crate) const fn glibc(self) -> Self {
        match self {
            Self::Own | Self::OwnGlibc => Self::OwnGlibc,
            Self::Arroyo | Self::ArroyoGlibc => Self::ArroyoGlibc,
        }
    }

    /// Builds it, if it is not up to date, and says where it is.
    ///
    /// # Errors
    ///
    /// When it does not build.
    pub(crate) async fn build(self) -> Result<PathBuf> {
        match self {
            Self::Own => std::env::current_exe().context("where am I"),
            Self::OwnGlibc => {
                log_line("building the contenders with glibc's malloc");
                let name = "pipeline-glibc";
                program(name, &["--release", "--package", "integration-tests", "--bench", name]).await
            }
            Self::Arroyo => arroyo("jemalloc", &[]).await,
            Self::ArroyoGlibc => arroyo("glibc", &["--no-default-features"]).await,
        }
    }
}

/// The program on `sentry_arroyo`. Cargo puts it in the same place with either allocator, so each is copied to a place of its own; what
/// both are linked from stays, and nothing is compiled again when the other one is asked for.
async fn arroyo(allocator: &str, features: &[&str]) -> Result<PathBuf> {
    log_line(format_args!("building benches/arroyo with {allocator}"));
    let mut build = vec!["--release", "--locked", "--manifest-path", "benches/arroyo/Cargo.toml"];
    build.extend(features);
    let why = "sentry_arroyo needs cmake and libcurl's headers (Debian: libcurl4-openssl-dev)";
    let built = program("arroyo-pipeline", &build).await.context(why)?;
    let own = built.with_file_name(format!("arroyo-pipeline-{allocator}"));
    std::fs::copy(&built, &own).with_context(|| own.display().to_string())?;
    Ok(own)
}
