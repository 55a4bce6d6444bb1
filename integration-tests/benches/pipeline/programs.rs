//! Builds the programs of the contenders, each with its allocator. Only the needed ones are built.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use integration_tests::{log_line, program};

/// A program that runs contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// This program.
    Own,
    /// The same contenders with glibc's malloc: `glibc.rs`.
    OwnGlibc,
    /// The package benches/arroyo.
    Arroyo,
    /// The package benches/arroyo without jemalloc.
    ArroyoGlibc,
}

impl Program {
    /// The same program with glibc's malloc.
    pub(crate) const fn glibc(self) -> Self {
        match self {
            Self::Own | Self::OwnGlibc => Self::OwnGlibc,
            Self::Arroyo | Self::ArroyoGlibc => Self::ArroyoGlibc,
        }
    }

    /// Builds the program if it is not up to date, and returns its path.
    ///
    /// # Errors
    ///
    /// When it does not build.
    pub(crate) async fn build(self) -> Result<PathBuf> {
        match self {
            Self::Own => std::env::current_exe().context("cannot read the path of this program"),
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

/// Builds the program on `sentry_arroyo`. Cargo writes it to the same path with either allocator,
/// so it is copied to a path of its own. The compiled dependencies stay, so that building the other
/// one compiles nothing again.
async fn arroyo(allocator: &str, features: &[&str]) -> Result<PathBuf> {
    log_line(format_args!("building benches/arroyo with {allocator}"));
    let mut build = vec!["--release", "--locked", "--manifest-path", "benches/arroyo/Cargo.toml"];
    build.extend(features);
    let hint = "sentry_arroyo needs cmake and libcurl's headers (Debian: libcurl4-openssl-dev)";
    let built = program("arroyo-pipeline", &build).await.context(hint)?;
    let own = built.with_file_name(format!("arroyo-pipeline-{allocator}"));
    std::fs::copy(&built, &own).with_context(|| own.display().to_string())?;
    Ok(own)
}
