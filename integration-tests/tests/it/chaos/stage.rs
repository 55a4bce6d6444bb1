//! What faults act on: servers of the test's own, links to them, and consumers under load.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{RowKind, Settings};
use integration_tests::{
    ClickHouse, Deadline, Kafka, Link, LinkState, Process, Signal, unique, wait_until, with_false_listener,
};

use super::Mode;
use crate::scene::{Scene, TABLE};

const PARTITIONS: i32 = 6;
const CONSUMERS: usize = 3;
/// Session timeout of the consumers.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// A link to one server.
pub(super) struct ServerLink(Link);

impl ServerLink {
    /// Sets the state for some time, and opens the link again.
    pub(super) async fn interrupt(&self, state: LinkState, time: Duration) -> Result<()> {
        self.0.set(state);
        tokio::time::sleep(time).await;
        self.0.set(LinkState::Open);
        Ok(())
    }
}

pub(super) struct Stage {
    pub(super) kafka: Kafka,
    pub(super) clickhouse: ClickHouse,
    /// The consumers reach the servers through links. The producer and the test do not.
    pub(super) broker_link: ServerLink,
    pub(super) clickhouse_link: ServerLink,
    pub(super) scene: Scene,
    pub(super) consumers: Vec<Process>,
    pub(super) random: fastrand::Rng,
    settings: Settings,
    clock: Clock,
    /// Consumers that ended with an error by themselves, with it. A supervisor has restarted them.
    pub(super) ended: Vec<String>,
}

impl Stage {
    pub(super) async fn new(name: &str, mode: Mode, seed: u64) -> Result<Self> {
        let (broker_link, clickhouse_link) = (Link::new().await?, Link::new().await?);
        let (kafka, listener) = with_false_listener(broker_link.port()).await?;
        broker_link.lead_to(&listener);
        let clickhouse = ClickHouse::own().await?;
        clickhouse_link.lead_to(clickhouse.url().trim_start_matches("http://"));
        let scene = Scene::on(&kafka, &clickhouse, name, PARTITIONS, RowKind::Ingest).await?;
        let window = "non_replicated_deduplication_window = 10000";
        scene.database.exec(&format!("ALTER TABLE {TABLE} MODIFY SETTING {window}")).await?;
        let mut settings = scene.settings();
        settings.broker = format!("127.0.0.1:{}", broker_link.port());
        settings.clickhouse = format!("http://127.0.0.1:{}", clickhouse_link.port());
        settings.exactly_once = mode == Mode::ExactlyOnce;
        settings.max_rows = 500;
        settings.max_age = Duration::from_millis(200);
        settings.attempt_timeout = Some(Duration::from_secs(10));
        let settings = settings
            .kafka("session.timeout.ms", &SESSION.as_millis().to_string())
            .kafka("heartbeat.interval.ms", "500");
        let mut stage = Self {
            kafka,
            clickhouse,
            broker_link: ServerLink(broker_link),
            clickhouse_link: ServerLink(clickhouse_link),
            scene,
            consumers: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            settings,
            clock: Clock::new()?,
            ended: Vec::new(),
        };
        for _ in 0..CONSUMERS {
            let consumer = stage.start()?;
            stage.consumers.push(consumer);
        }
        Ok(stage)
    }

    fn start(&self) -> Result<Process> {
        let mut command = self.settings.command(env!("CARGO_BIN_EXE_test-consumer"))?;
        self.clock.follow(&mut command);
        Process::spawn(command)
    }

    /// Ends a consumer with a signal, and starts another one.
    pub(super) async fn replace(&mut self, index: usize, signal: Signal) -> Result<()> {
        self.consumers[index].end(signal, Deadline::seconds(90)).await?;
        self.consumers[index] = self.start()?;
        Ok(())
    }

    /// Sets the difference between the wall clocks of all consumers and the true time, in seconds.
    pub(super) fn set_clocks(&self, offset: &str) -> Result<()> {
        self.clock.set(offset)
    }

    /// Starts consumers that have ended by themselves again, as a supervisor does.
    pub(super) async fn restart_ended(&mut self, deadline: Deadline) -> Result<()> {
        for index in 0..self.consumers.len() {
            if self.consumers[index].has_ended()? {
                self.consumers[index].wait(deadline).await?;
                let last = self.consumers[index].stderr();
                let last = last.lines().last().unwrap_or("no output").to_owned();
                self.ended.push(last);
                self.consumers[index] = self.start()?;
            }
        }
        Ok(())
    }

    /// Waits until everything is committed. Consumers that end meanwhile are restarted.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let deadline = Deadline::seconds(240);
        loop {
            self.restart_ended(deadline).await?;
            let (topic, group) = (&self.scene.topic, &self.scene.group);
            let finished = wait_until(Deadline::seconds(20), "all records are committed", async || {
                Ok(topic.lag(group).await? == 0)
            });
            match finished.await {
                Ok(()) => return Ok(()),
                Err(error) if deadline.has_passed() => {
                    let logs: Vec<String> = self.consumers.iter().map(Process::stderr).collect();
                    return Err(error.context(logs.join("\n---\n")));
                }
                Err(_) => {}
            }
        }
    }

    /// Ends all consumers in order.
    pub(super) async fn end(&mut self) -> Result<()> {
        for consumer in &mut self.consumers {
            let status = consumer.end(Signal::Terminate, Deadline::seconds(90)).await?;
            ensure!(status.success(), "{status}: {}", consumer.stderr());
        }
        Ok(())
    }
}

/// The wall clock of the consumers, by libfaketime. Their monotonic clock is the true one.
struct Clock {
    library: PathBuf,
    /// Has the offset.
    file: PathBuf,
}

impl Clock {
    fn new() -> Result<Self> {
        let library = libfaketime()
            .context("libfaketime is missing: install the package faketime (`cargo xtask test` does)")?;
        let clock = Self { library, file: std::env::temp_dir().join(unique("kmr-chaos-clock")) };
        clock.set("+0")?;
        Ok(clock)
    }

    fn set(&self, offset: &str) -> Result<()> {
        // Renamed, so that no consumer reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, offset)?;
        std::fs::rename(&new, &self.file).context("setting the clock")
    }

    fn follow(&self, command: &mut std::process::Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The library in one of the folders that Linux distributions use.
fn libfaketime() -> Option<PathBuf> {
    let name = "faketime/libfaketimeMT.so.1";
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    folders.iter().map(|folder| PathBuf::from(folder).join(name)).find(|path| path.is_file())
}
