//! `kmr top` on a consumer from Kafka into ClickHouse, without a terminal and in one.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use integration_tests::{ClickHouse, Deadline, Process, test_name, unique, wait_until};
use serde_json::{Value, json};

use crate::programs::{kmr, kmr_program};
use crate::served::{RECORDS, Served};

/// A consumer that has stored [`RECORDS`] records.
async fn stored(name: &str) -> Result<Served> {
    let mut served = Served::new(name, "correct-horse-battery").await?;
    served.produce().await?;
    let Served { topic, group, running, .. } = &mut served;
    running.all_committed(topic, group, Deadline::seconds(60)).await?;
    Ok(served)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_prints_a_pipeline_and_a_server_that_is_not_there() -> Result<()> {
    let served = stored(test_name!()).await?;
    let (url, topic) = (served.url(), served.topic.name().to_owned());
    let (code, text) = kmr(&["top", "--once", &url]).await?;
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        format!("{} at {}: healthy", served.group, served.server.address()),
        "All partitions make progress.".to_owned(),
        format!("{topic}/3"),
        "reduce 1 (0 of ".to_owned(),
        format!("10 × ({topic}/"),
        "  rebalances:".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("  errors:"), "{text}");

    let (code, text) = kmr(&["top", "--json", &url, "127.0.0.1:9"]).await?;
    let both: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let status = &both["consumers"][0]["status"];
    assert_eq!((code, &status["totals"]["records"]), (Some(3), &json!(RECORDS)), "{both}");
    assert_eq!((&status["lag_records"], &both["consumers"][1]["status"]), (&json!(0), &Value::Null));

    // A port that answers something else: ClickHouse, and Kafka.
    let (code, text) = kmr(&["top", ClickHouse::shared().await?.url()]).await?;
    assert!(code == Some(1) && text.contains("HTTP error: status 404"), "{text}");
    let (code, text) = kmr(&["top", served.topic.kafka().bootstrap()]).await?;
    assert!(code == Some(1) && (text.contains("no HTTP: ") || text.contains("no answer: ")), "{text}");

    served.running.stop(Deadline::seconds(30)).await?;
    let (code, text) = kmr(&["top", &url]).await?;
    assert!(code == Some(0) && text.contains(": ended"), "{text}");
    served.server.stop();
    let gone = async || Ok(kmr(&["top", &url]).await?.1.contains("unreachable: Connection refused"));
    wait_until(Deadline::seconds(30), "the server is gone", gone).await
}

const ROWS: NonZeroU16 = NonZeroU16::new(30).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(110).unwrap();

/// `kmr top` in a terminal.
struct Terminal {
    program: Process,
    /// What the terminal has received.
    typescript: PathBuf,
}

impl Terminal {
    async fn start(url: &str) -> Result<Self> {
        let typescript = std::env::temp_dir().join(unique("top"));
        let program = kmr_program().await?.display();
        let command = format!("stty rows {ROWS} cols {COLUMNS}; exec {program} top --interval 200ms {url}");
        let mut script = Command::new("script");
        script.args(["-qefc", &command]).arg(&typescript);
        script.env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        Ok(Self { program: Process::spawn(script)?, typescript })
    }

    /// What the terminal shows now.
    fn screen(&self) -> String {
        let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
        terminal.process(&std::fs::read(&self.typescript).unwrap_or_default());
        terminal.screen().contents()
    }

    /// Waits until the terminal shows `part`.
    async fn shows(&self, part: &str) -> Result<()> {
        let has_part = async || Ok(self.screen().contains(part));
        let shown = wait_until(Deadline::seconds(30), part, has_part).await;
        shown.with_context(|| format!("{}\n{}", self.screen(), self.program.stderr()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.typescript);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_in_a_terminal_follows_a_pipeline() -> Result<()> {
    let served = stored(test_name!()).await?;
    let terminal = Terminal::start(&served.url()).await?;
    // The topic is shortened, the number is not.
    for part in ["healthy", &served.group, "reduce 1", "Dead letters 1", "…/3"] {
        terminal.shows(part).await?;
    }
    served.running.handle().pause_all();
    terminal.shows("paused").await?;
    served.running.stop(Deadline::seconds(30)).await?;
    terminal.shows("ended").await?;
    served.server.stop();
    terminal.shows("Connection refused").await
}
