//! The test consumer: runs a consumer from Kafka to ClickHouse with the given [`Settings`].
//!
//! It prints one JSON line per event on standard output. `faulty_sink.rs` has the faults that no
//! real sink has on demand.

mod faulty_sink;
mod rows;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use integration_tests::consumer::{AbortAt, Event, RowKind, Settings, Step};
use kmr_core::{
    ClientConfig, Consumer, ConsumerHandle, Error, IntoPipeline as _, Pipeline, Record, RetryPolicy,
    Strategy, error_chain,
};
use kmr_sinks::OsStreamWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::faulty_sink::FaultySink;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

#[tokio::main]
pub(crate) async fn main() -> Result<ExitCode> {
    let filter: Targets = match std::env::var("RUST_LOG") {
        Ok(text) => text.parse().context("parsing RUST_LOG")?,
        Err(_) => Targets::new().with_default(LevelFilter::INFO),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
    let argument =
        std::env::args().nth(1).context("usage: test-consumer SETTINGS, with the settings as JSON")?;
    let settings: Settings = serde_json::from_str(&argument).context("parsing the settings")?;
    match run(&settings).await {
        Ok(ended) => {
            emit(&ended);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let text = format!("{error:?}");
            let variant = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            emit(&Event::Failed { error: variant.to_owned() });
            let mut stderr = std::io::stderr();
            // Nothing can be done about a closed standard error.
            let _ = writeln!(stderr, "error: {}", error_chain(&error));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn run(settings: &Settings) -> Result<Event, Error> {
    let mut config =
        ClientConfig::new().set("bootstrap.servers", &settings.broker).set("group.id", &settings.group);
    for (name, value) in &settings.kafka {
        config = config.set(name, value);
    }
    let mut builder = Consumer::builder();
    if let Some(deadline) = settings.drain_timeout {
        builder = builder.drain_timeout(deadline);
    }
    if settings.exactly_once {
        builder = builder.exactly_once();
    }
    let abort = settings.abort;
    let offsets = Mutex::new(std::collections::BTreeMap::new());
    let committed = std::sync::atomic::AtomicU32::new(0);
    let consumer = builder
        // Only commits that move the offset count. Plans and idle markers keep it.
        .on_commit(move |event| {
            let Some(AbortAt { step: Step::AfterCommit, block }) = abort else { return };
            let mut offsets = offsets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let before = offsets.insert(event.partition.clone(), event.offset);
            if before.is_some_and(|before| before < event.offset)
                && committed.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 >= block
            {
                std::process::abort();
            }
        })
        .topics(std::iter::once(&settings.topic).chain(&settings.more_topics))
        .config(config)
        .memory_budget(settings.memory_budget)
        .commit_interval(settings.commit_interval)
        .connect_timeout(settings.connect_timeout)
        .strategy(pipeline(settings))
        .build()?;
    let handle = consumer.handle();
    let started = Instant::now();
    let progress = tokio::spawn(report(handle.clone(), started));
    let ended = consumer.run().await;
    progress.abort();
    // What came after the last tick: a consumer may deliver, commit and end between two.
    emit_progress(&handle, started);
    let stats = ended?.stats;
    Ok(Event::Ended {
        records: stats.records,
        dead_letters: stats.dead_letters,
        commits: stats.commits,
        rebalances: stats.rebalances,
    })
}

fn pipeline(settings: &Settings) -> Pipeline {
    let strategy = match settings.row {
        RowKind::Ingest => {
            let fails_at = settings.fails_at;
            Strategy::new()
                .map(move |record: &Record<'_>| rows::ingest(record, fails_at))
                .reduce(sink(settings))
        }
        RowKind::Traced => Strategy::new().map(rows::traced).reduce(sink(settings)),
        RowKind::Payload => Strategy::new().map(rows::payload).reduce(sink(settings)),
        RowKind::Folded => {
            Strategy::new().map(rows::number).reduce(rows::by_number().into(sink::<rows::Folded>(settings)))
        }
    };
    if settings.dead_letters {
        strategy.reduce_err(OsStreamWriter::stderr().max_age(Duration::from_millis(100)))
    } else {
        strategy.into_pipeline()
    }
}

fn sink<R: Row + Serialize + Send + 'static>(settings: &Settings) -> FaultySink<ClickHouseWriter<R>> {
    let mut writer = ClickHouseWriter::<R>::new(&settings.clickhouse, &settings.table)
        .database(&settings.database)
        .max_rows(settings.max_rows)
        .max_age(settings.max_age)
        .max_in_flight(settings.max_in_flight)
        .retry(RetryPolicy::default().with_give_up_after(Some(settings.give_up_after)))
        .start_timeout(settings.start_timeout);
    for (name, value) in &settings.clickhouse_settings {
        writer = writer.setting(name, value);
    }
    if let Some(replicas) = settings.insert_quorum {
        writer = writer.insert_quorum(replicas);
    }
    if let Some(bytes) = settings.max_bytes {
        writer = writer.max_bytes(bytes);
    }
    if let Some(timeout) = settings.attempt_timeout {
        writer = writer.attempt_timeout(timeout);
    }
    if let Some((user, password)) = &settings.clickhouse_login {
        writer = writer.user(user).password(password);
    }
    FaultySink::new(writer, settings)
}

async fn report(handle: ConsumerHandle, started: Instant) {
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        emit_progress(&handle, started);
    }
}

fn emit_progress(handle: &ConsumerHandle, started: Instant) {
    let stats = handle.stats();
    emit(&Event::Progress {
        at: u64::try_from(started.elapsed().as_millis()).unwrap_or_default(),
        records: stats.records,
        rows: stats.rows.get("reduce 1").copied().unwrap_or_default(),
        bytes_held: stats.bytes_held,
        rebalances: stats.rebalances,
    });
}

/// Prints an event. The last one is the end of the run. The task that reports the progress prints
/// nothing after it.
fn emit(event: &Event) {
    static ENDED: Mutex<bool> = Mutex::new(false);
    let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    if *ended {
        return;
    }
    *ended = matches!(event, Event::Ended { .. } | Event::Failed { .. });
    if let Ok(line) = serde_json::to_string(event) {
        // One write per line. A test that has ended does not read it.
        let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
    }
}
