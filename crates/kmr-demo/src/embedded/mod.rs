//! The demo without servers: produces, consumes, and accounts for every message.

use std::future::pending;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kmr_cli_support::output;
use kmr_core::testing::EmbeddedCluster;
use kmr_core::{Consumer, ConsumerHandle, Record, processing_strategy};

mod account;
mod args;
mod console;
mod producer;
mod progress;
mod sampled_errors;
mod tally;

use account::Account;
pub(crate) use args::EmbeddedArgs;
use console::Console;
use producer::{MessageProducer, Plan};
use progress::{Progress, Snapshot};
use sampled_errors::SampledErrors;
use tally::{Arrivals, Row, Tally};

use crate::payload::Measurement;
use crate::{status, usage};

const TOPIC: &str = "kmr-demo";
const GROUP: &str = "kmr-demo";

/// Interval between samples of the progress.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
/// The demo stops with an error after this time without progress.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// Runs the demo. Exit code 1 if anything is missing or double.
pub(crate) async fn demo(args: EmbeddedArgs) -> anyhow::Result<ExitCode> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic(TOPIC, args.partitions)?;
    let arrivals = Arc::new(Arrivals::new(args.partitions));
    let console = Console::for_stderr(args.messages);
    let consumer = consumer(&cluster, &arrivals, &console)?;
    let handle = consumer.handle();
    if let Some(address) = &args.status {
        status::serve(address, None, handle.clone()).await?;
    }

    let started = Instant::now();
    let running = tokio::spawn(consumer.run());
    let plan = Plan::new(args.messages, args.partitions, args.malformed_ratio);
    let producer = MessageProducer::start(plan.clone(), cluster.bootstrap_servers(), TOPIC, handle.clone())?;
    let ended = Supervisor { producer: &producer, handle: &handle, progress: Progress::new(&console) }
        .run(running)
        .await;
    let took = started.elapsed();
    console.finish();

    let produced = producer.finish();
    let committed = cluster.committed(GROUP, TOPIC)?;
    let account = Account::new(&plan, &produced.acknowledged, &arrivals, &committed);
    output::result(&account.table().to_string());
    output::result(&account.summary(took, usage::cpu_time(), usage::peak_memory()));
    ended?;
    if let Some(failure) = produced.failure {
        anyhow::bail!("producing failed: {failure}");
    }
    for problem in account.problems() {
        output::note(&format!("error: {problem}"));
    }
    Ok(if account.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The consumer: parses JSON into rows for the tally, and shows dead letters on standard error.
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
        // A signal must stop the producer first. See `Supervisor`.
        .shutdown_signal(pending())
        .strategy(strategy)
        .build()?;
    Ok(consumer)
}

/// The map stage: parses the payload in place and keeps the fields that the tally needs.
fn parse(record: &Record<'_>) -> Result<Row, serde_json::Error> {
    let measurement: Measurement<'_> = serde_json::from_slice(record.payload().unwrap_or_default())?;
    Ok(Row {
        partition: record.partition(),
        offset: record.offset(),
        id: measurement.id,
        value: if measurement.metric.is_empty() { 0.0 } else { measurement.value },
    })
}

/// Stops the consumer when all messages are committed, after a signal, or without progress.
struct Supervisor<'a> {
    producer: &'a MessageProducer,
    handle: &'a ConsumerHandle,
    progress: Progress<'a>,
}

type Running = tokio::task::JoinHandle<Result<kmr_core::RunReport, kmr_core::Error>>;

impl Supervisor<'_> {
    async fn run(mut self, mut running: Running) -> anyhow::Result<()> {
        let mut interrupts = Interrupts::listen()?;
        let mut sample = tokio::time::interval(SAMPLE_INTERVAL);
        let (mut last, mut progressed_at) = (Snapshot::default(), Instant::now());
        loop {
            tokio::select! {
                ended = &mut running => {
                    self.producer.stop();
                    ended.context("the consumer's task")??;
                    return Ok(());
                }
                is_repeated = interrupts.next() => {
                    self.progress.note(if is_repeated { "stopping at once" } else { "stopping after all produced messages are committed; a second signal stops at once" });
                    self.producer.stop();
                    if is_repeated {
                        self.handle.stop_now();
                    }
                }
                _ = sample.tick() => {
                    let now = Snapshot::take(self.producer, self.handle);
                    self.progress.show(&now);
                    if now != last {
                        (last, progressed_at) = (now, Instant::now());
                    }
                    if last.complete || progressed_at.elapsed() > STUCK_AFTER {
                        self.handle.stop();
                        self.producer.stop();
                        wait_for_end(running).await?;
                        anyhow::ensure!(last.complete, "no progress for {STUCK_AFTER:?}");
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// # Errors
/// The consumer failed.
async fn wait_for_end(running: Running) -> anyhow::Result<()> {
    running.await.context("the consumer's task")??;
    Ok(())
}

/// SIGINT and SIGTERM.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// The last signal that counted: whether it was SIGINT, and when it came.
    last: Option<(bool, Instant)>,
}

/// The same signal within this time counts once, as for the consumer.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

impl Interrupts {
    fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, last: None })
    }

    /// Waits for a signal. Returns whether it is not the first one. Cancel safe.
    async fn next(&mut self) -> bool {
        loop {
            let is_interrupt = tokio::select! {
                _ = self.interrupt.recv() => true,
                _ = self.terminate.recv() => false,
            };
            let now = Instant::now();
            let repeats = |(last, at)| last == is_interrupt && now.duration_since(at) < SAME_SIGNAL;
            if !self.last.is_some_and(repeats) {
                return self.last.replace((is_interrupt, now)).is_some();
            }
        }
    }
}
