//! `top`: the status of running consumers in a terminal, from their status servers.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kmr_cli_support::{output, units};

pub(crate) mod address;
mod app;
pub(crate) mod client;
mod consumer;
#[cfg(test)]
mod fixture;
mod format;
mod history;
mod keys;
mod live;
pub(crate) mod problem;
mod screen;
mod snapshot;
mod sort;
mod state;
mod status;
mod token;
mod view;
mod watch;

use address::Address;
use consumer::Consumer;
use token::Token;

use crate::terminal;

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Addresses of status servers, as in http://10.0.0.1:9464 or pod-1:9464.
    #[arg(value_name = "URL", env = "KMR_STATUS_URL", value_delimiter = ',', value_parser = Address::parse,
          hide_env_values = true, default_value = "http://127.0.0.1:9464")]
    urls: Vec<Address>,
    /// Time between two queries of a server, as in 500ms or 2s.
    #[arg(long, default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// File with the token of actions. The environment variable KMR_STATUS_TOKEN is the token
    /// itself.
    #[arg(long, env = "KMR_STATUS_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print plain text once and end. Without a terminal on standard output it is the default.
    #[arg(long)]
    once: bool,
    /// Print JSON once and end.
    #[arg(long)]
    json: bool,
}

/// 200 ms to an hour: a server computes each status anew.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = units::duration(text)?;
    let bounds = Duration::from_millis(200)..=Duration::from_secs(3_600);
    if bounds.contains(&interval) { Ok(interval) } else { Err("it is not between 200ms and 1h".to_owned()) }
}

/// Shows consumers until the user quits, or once.
pub(crate) async fn top(args: TopArgs) -> anyhow::Result<ExitCode> {
    let TopArgs { mut urls, interval, token_file, once, json } = args;
    let mut seen = Vec::new();
    urls.retain(|url| {
        !seen.contains(url) && {
            seen.push(url.clone());
            true
        }
    });
    let has_terminal =
        std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    if has_terminal && !once && !json {
        let token = Token::find(token_file.as_deref())?;
        return live::live(urls, interval, token).await;
    }
    let results = watch::twice(&urls, interval).await;
    let mut consumers: Vec<Consumer> = urls.into_iter().map(Consumer::new).collect();
    for (consumer, results) in consumers.iter_mut().zip(results) {
        results.into_iter().for_each(|result| consumer.update(result));
    }
    output::result(&if json {
        terminal::json(&snapshot::json(&consumers))
    } else {
        snapshot::text(&consumers)
    });
    Ok(snapshot::exit_code(&consumers))
}
