//! The demo without servers: produces to an embedded cluster, consumes at the same time, and accounts for every message.

use std::future::pending;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kmr_core::testing::EmbeddedCluster;
use kmr_core::{Consumer, ConsumerHandle, Record, processing_strategy};

mod account;
mod console;
mod feed;
mod progress;
mod sampled_errors;
mod tally;

use account::Account;
use console::Console;
use feed::{Feed, Plan};
use progress::{Progress, Snapshot};
use sampled_errors::SampledErrors;
use tally::{Arrivals, Row, Tally};

use crate::cli::EmbeddedArgs;
use crate::payload::Measurement;
use crate::{output, usage};

const TOPIC: &str = "kmr-demo";
const GROUP: &str = "kmr-demo";

/// How often the demo looks at its parts.
const LOOK: Duration = Duration::from_millis(50);
/// Without any progress for this long something is stuck: the demo ends and says what is missing.
const STUCK: Duration = Duration::from_secs(20);

/// Runs the demo. Exit code 1 if anything is missing or double.
pub(crate) async fn demo(args: EmbeddedArgs) -> anyhow::Result<ExitCode> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic(TOPIC, args.partitions)?;
    let arrivals = Arc::new(Arrivals::new(args.partitions));
    let console = Console::for_stderr(args.messages);
    let consumer = consumer(&cluster, &arrivals, &console)?;
    let handle = consumer.handle();

    let started = Instant::now();
    let running = tokio::spawn(consumer.run());
    let plan = Plan::new(args.messages, args.partitions, args.malformed_share);
    let feed = Feed::start(plan.clone(), cluster.bootstrap_servers(), TOPIC, handle.clone())?;
    let ended =
        Supervisor { feed: &feed, handle: &handle, progress: Progress::new(&console) }.run(running).await;
    let took = started.elapsed();
    console.finish();

    let fed = feed.finish();
    let committed = cluster.committed(GROUP, TOPIC)?;
    let account = Account::new(&plan, &fed.produced, &arrivals, &committed);
    output::result(&account.table().to_string());
    output::result(&account.summary(took, usage::cpu_time(), usage::peak_memory()));
    ended?;
    if let Some(failure) = fed.failure {
        anyhow::bail!("producing failed: {failure}");
    }
    for problem in account.problems() {
        output::note(&format!("error: {problem}"));
    }
    Ok(if account.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The pipeline: JSON in, rows to the tally, what cannot be parsed to standard error.
fn consumer(
    cluster: &EmbeddedCluster,
    arrivals: &Arc<Arrivals>,
    console: &Arc<Console>,
) -> anyhow::Result<Consumer> {
    let strategy = processing_strategy!({
        map => parse,
        reduce => Tally::new(arrivals.clone()),
        reduce_err => SampledErrors::new(arrivals.clone(), console.clone()),
    });
    let consumer = Consumer::builder()
        .topics([TOPIC])
        .config(cluster.client_config(GROUP))
        // The producer waits for commits, because the cluster keeps only 5 MB of a partition.
        .commit_interval(Duration::from_millis(25))
        // Signals end the producer first: see Supervisor.
        .shutdown_signal(pending())
        .strategy(strategy)
        .build()?;
    Ok(consumer)
}

/// The map stage: parses the payload in place and keeps what the tally needs.
fn parse(record: &Record<'_>) -> Result<Row, serde_json::Error> {
    let measurement: Measurement<'_> = serde_json::from_slice(record.payload().unwrap_or_default())?;
    Ok(Row {
        partition: record.partition(),
        offset: record.offset(),
        id: measurement.id,
        value: if measurement.metric.is_empty() { 0.0 } else { measurement.value },
    })
}

/// Ends the consumer when everything produced is committed, or when told to, or when nothing moves any more.
struct Supervisor<'a> {
    feed: &'a Feed,
    handle: &'a ConsumerHandle,
    progress: Progress<'a>,
}

type Running = tokio::task::JoinHandle<Result<kmr_core::RunReport, kmr_core::Error>>;

impl Supervisor<'_> {
    async fn run(mut self, mut running: Running) -> anyhow::Result<()> {
        let mut interrupts = Interrupts::listen()?;
        let mut look = tokio::time::interval(LOOK);
        let (mut last, mut moved) = (Snapshot::default(), Instant::now());
        loop {
            tokio::select! {
                ended = &mut running => {
                    self.feed.stop();
                    ended.context("the consumer's task")??;
                    return Ok(());
                }
                again = interrupts.next() => {
                    self.progress.note(if again { "stopping at once" } else { "stopping: what is produced is finished first" });
                    self.feed.stop();
                    if again {
                        self.handle.stop_now();
                    }
                }
                _ = look.tick() => {
                    let now = Snapshot::take(self.feed, self.handle);
                    self.progress.show(&now);
                    if now != last {
                        (last, moved) = (now, Instant::now());
                    }
                    if last.complete || moved.elapsed() > STUCK {
                        self.handle.stop();
                        self.feed.stop();
                        ended_in_order(running).await?;
                        anyhow::ensure!(last.complete, "nothing moved for {STUCK:?}");
                        return Ok(());
                    }
                }
            }
        }
    }
}

async fn ended_in_order(running: Running) -> anyhow::Result<()> {
    running.await.context("the consumer's task")??;
    Ok(())
}

/// SIGINT and SIGTERM.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    count: u32,
}

impl Interrupts {
    fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, count: 0 })
    }

    /// Waits for one; whether there was one before. Cancel safe.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.count += 1;
        self.count > 1
    }
}
