//! `probe`: the answer of a status server as an exit code, for health checks of containers.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use kmr_cli_support::output;

use crate::top::address::Address;
use crate::top::client::Client;

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// What to ask for.
    what: Probe,
    /// Addresses of status servers, as in http://10.0.0.1:9464 or pod-1:9464.
    #[arg(value_name = "URL", env = "KMR_STATUS_URL", value_delimiter = ',', value_parser = Address::parse,
          hide_env_values = true, default_value = "http://127.0.0.1:9464")]
    urls: Vec<Address>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    /// The consumer runs.
    Live,
    /// The consumer is connected, and every partition makes progress.
    Ready,
}

impl Probe {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
        }
    }
}

/// Asks each server once, and prints a line for each.
pub(crate) async fn probe(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    let ProbeArgs { what, urls } = args;
    let (mut passed, word) = (true, what.word());
    for url in urls {
        let address = url.text().to_owned();
        let line = match Client::new(url).probe(what.path()).await {
            Ok((true, reason)) => format!("{address}: {word}: {reason}"),
            Ok((false, reason)) => {
                passed = false;
                format!("{address}: not {word}: {reason}")
            }
            Err(problem) => {
                passed = false;
                format!("{address}: {problem}")
            }
        };
        output::result(&line);
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
