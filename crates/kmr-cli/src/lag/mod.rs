//! `lag`: how much a group has not committed yet, and which members have its partitions.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use kmr_cli_support::connection::BrokerArgs;
use kmr_cli_support::errors::one_line;
use kmr_cli_support::{output, time};

mod facts;
mod report;

use facts::{Clients, GroupLag};

use crate::terminal;

#[derive(Debug, Args)]
pub(crate) struct LagArgs {
    #[command(flatten)]
    pub(crate) brokers: BrokerArgs,
    /// The consumer group.
    #[arg(long, env = "KMR_GROUP", default_value = "test-map-reduce-consumer")]
    pub(crate) group: String,
    /// Show this topic only, also if the group has nothing to do with it.
    #[arg(long, env = "KMR_TOPIC")]
    pub(crate) topic: Option<String>,
    /// Repeat every SECONDS, in place on a terminal, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) watch: Option<u64>,
    /// Print JSON on standard output in place of the tables; with --watch one line each time.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shows the lag once, or until Ctrl-C.
pub(crate) async fn lag(args: LagArgs) -> anyhow::Result<ExitCode> {
    let clients = Clients::new(&args)?;
    let Some(seconds) = args.watch else {
        let (lag, _) = query(clients).await?;
        output::result(&if args.json {
            terminal::json(&lag.json())
        } else {
            lag.text(terminal::width().is_some())
        });
        return Ok(lag.exit_code());
    };
    let ended = tokio::signal::ctrl_c();
    tokio::pin!(ended);
    let mut clients = clients;
    let mut shown_before = false;
    loop {
        let shown = query(clients);
        let (result, back) = tokio::select! {
            result = shown => match result {
                Ok((lag, clients)) => (Ok(lag), Some(clients)),
                Err(error) => (Err(error), None),
            },
            _ = &mut ended => return Ok(ExitCode::SUCCESS),
        };
        match result {
            Ok(lag) => show(&args, &lag, seconds),
            // Nothing was ever right: a wrong address or name, as without --watch.
            Err(error) if !shown_before => return Err(error),
            Err(error) => output::note(&format!("error: {}", one_line(&error))),
        }
        shown_before = true;
        clients = match back {
            Some(clients) => clients,
            None => Clients::new(&args)?,
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            _ = &mut ended => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Queries on a thread that may block.
async fn query(clients: Clients) -> anyhow::Result<(GroupLag, Clients)> {
    let query = move || clients.query().map(|lag| (lag, clients));
    tokio::task::spawn_blocking(query).await.context("the thread that queries Kafka")?
}

fn show(args: &LagArgs, lag: &GroupLag, seconds: u64) {
    if args.json {
        return output::result(&terminal::json(&lag.json()));
    }
    let now = time::rfc3339(time::now_millis());
    match terminal::height() {
        None => output::result(&format!("{now}\n{}\n", lag.text(false))),
        Some(height) => {
            let title = format!("{now}, every {seconds} s, Ctrl-C ends");
            // A wrapped line would need two of the terminal's.
            let width = terminal::width().map_or(usize::MAX, usize::from);
            let text: Vec<_> = lag.text(true).lines().map(|line| terminal::shortened(line, width)).collect();
            let screen = screen(&text, &title, height);
            // A closed terminal ends the process by itself.
            let _ = std::io::stdout().write_all(screen.as_bytes());
            let _ = std::io::stdout().flush();
        }
    }
}

/// What replaces the text on the terminal, line by line, so that it does not flicker. Lines that
/// have no room are counted.
fn screen(lines: &[String], title: &str, height: u16) -> String {
    // One line for the title, one for the cursor.
    let room = usize::from(height).saturating_sub(2).max(1);
    let mut screen = format!("\u{1b}[H{title}\u{1b}[K\n");
    let (shown, left_out) = match lines.len() > room {
        true => (room - 1, lines.len() - (room - 1)),
        false => (lines.len(), 0),
    };
    for line in &lines[..shown] {
        screen += &format!("{line}\u{1b}[K\n");
    }
    if left_out > 0 {
        screen += &format!("… {left_out} more lines: enlarge the terminal, or use --topic\u{1b}[K\n");
    }
    screen + "\u{1b}[J"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        lag: LagArgs,
    }

    #[test]
    fn watching_has_an_interval_of_its_own() {
        let watch =
            |flags: &[&str]| Flags::try_parse_from(["kmr"].iter().chain(flags)).map(|flags| flags.lag.watch);
        assert_eq!(watch(&[]).unwrap(), None);
        assert_eq!(watch(&["--watch"]).unwrap(), Some(2));
        assert_eq!(watch(&["--watch", "10", "--json"]).unwrap(), Some(10));
        assert_eq!(watch(&["--watch", "0"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_screen_has_no_more_lines_than_the_terminal() {
        let text: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        let cut = screen(&text, "title", 10);
        assert_eq!(cut.matches('\n').count(), 9);
        assert!(cut.contains("line 6") && !cut.contains("line 7"), "{cut}");
        assert!(cut.contains("… 43 more lines"), "{cut}");
        let whole = screen(&text[..2], "title", 10);
        assert!(whole.ends_with("line 1\u{1b}[K\n\u{1b}[J") && !whole.contains("more lines"), "{whole}");
    }
}
