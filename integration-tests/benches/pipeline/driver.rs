//! Starts the servers, fills the topic, and runs every contender once in each round.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Message, Process, Topic, program, say, unique,
};

use crate::contenders::Contender;
use crate::figures::{Figures, Sample};
use crate::options::Options;
use crate::payload::{PAYLOAD_BYTES, payload};
use crate::shared::job::{Job, Work};
use crate::shared::meter::Measured;
use crate::table;

/// Longest run of one contender. One that loses a record, and so waits for ever, is an error.
const RUN_SECONDS: u64 = 600;

/// A line of the table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its name there; [`table`] refers to it in the ratios.
    name: &'static str,
    work: Work,
    program: Program,
}

/// Whose process it is.
#[derive(Clone, Copy, Debug)]
enum Program {
    Own(Contender),
    Arroyo,
}

const ENTRIES: [Entry; 11] = [
    entry("kmr W0", Work::W1, Program::Own(Contender::KmrDrop)),
    entry("ceiling: batch consume", Work::W1, Program::Own(Contender::Consume)),
    entry("kmr W1", Work::W1, Program::Own(Contender::Kmr)),
    entry("ceiling: insert W1", Work::W1, Program::Own(Contender::Insert)),
    entry("by hand W1", Work::W1, Program::Own(Contender::ByHand)),
    entry("Arroyo W1", Work::W1, Program::Arroyo),
    entry("kmr W2", Work::W2, Program::Own(Contender::Kmr)),
    entry("ceiling: decode W2", Work::W2, Program::Own(Contender::Decode)),
    entry("ceiling: insert W2", Work::W2, Program::Own(Contender::Insert)),
    entry("by hand W2", Work::W2, Program::Own(Contender::ByHand)),
    entry("Arroyo W2", Work::W2, Program::Arroyo),
];

const fn entry(name: &'static str, work: Work, program: Program) -> Entry {
    Entry { name, work, program }
}

/// The whole benchmark.
///
/// # Errors
///
/// Where there are no servers, when a contender fails, and when one has not done all its records.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let entries: Vec<Entry> = ENTRIES.into_iter().filter(|entry| options.wants(entry.name)).collect();
    ensure!(!entries.is_empty(), "--only leaves nothing to run");
    let programs = Programs::find(&entries).await?;
    let scene = Scene::prepare(options).await?;
    let mut figures = Figures::default();
    for round in 1..=options.rounds() {
        for entry in &entries {
            let sample = scene.run(entry, &programs).await.with_context(|| entry.name)?;
            say(format_args!("round {round}: {:24} {sample}", entry.name));
            figures.add(entry.name, sample);
        }
    }
    table::print(options, &figures);
    Ok(())
}

/// The programs to start.
struct Programs {
    own: PathBuf,
    arroyo: Option<PathBuf>,
}

impl Programs {
    async fn find(entries: &[Entry]) -> Result<Self> {
        let own = std::env::current_exe().context("where am I")?;
        let build = ["--release", "--locked", "--manifest-path", "benches/arroyo/Cargo.toml"];
        let arroyo =
            if entries.iter().any(|entry| matches!(entry.program, Program::Arroyo)) {
                say("building benches/arroyo");
                let built = program("arroyo-pipeline", &build).await;
                Some(built.context(
                    "sentry_arroyo needs cmake and libcurl's headers (Debian: libcurl4-openssl-dev)",
                )?)
            } else {
                None
            };
        Ok(Self { own, arroyo })
    }
}

/// The servers, the topic, the tables.
struct Scene {
    topic: Topic,
    database: Database,
    records: u64,
    lz4: bool,
}

impl Scene {
    async fn prepare(options: &Options) -> Result<Self> {
        let (records, partitions) = (options.records(), options.partitions);
        let topic = Kafka::shared().await?.create_topic("bench", partitions).await?;
        let database = ClickHouse::shared().await?.database("bench").await?;
        for (work, columns, order) in [
            (Work::W1, "partition UInt32, offset UInt64, timestamp DateTime", "partition, offset"),
            (
                Work::W2,
                "org_id UInt32, project_id UInt32, name String, timestamp DateTime, value Float64, retention_days UInt16",
                "org_id, project_id, name, timestamp",
            ),
        ] {
            let table = table_of(work);
            database
                .exec(&format!("CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY ({order})"))
                .await?;
        }
        say(format_args!("producing {records} records of {PAYLOAD_BYTES} bytes"));
        let spread = u64::from(partitions.unsigned_abs().max(1));
        let message =
            move |n| Message::new(payload(n)).partition(i32::try_from(n % spread).unwrap_or_default());
        let produced = topic.produce((0..records).map(message)).await?;
        ensure!(produced.total() == records, "{} of {records} records produced", produced.total());
        Ok(Self { topic, database, records, lz4: options.lz4() })
    }

    /// One run of one contender, on empty tables and in a group of its own.
    async fn run(&self, entry: &Entry, programs: &Programs) -> Result<Sample> {
        let table = table_of(entry.work);
        self.database.exec(&format!("TRUNCATE TABLE {table} SYNC")).await?;
        let job = Job {
            work: entry.work,
            records: self.records,
            broker: self.topic.kafka().bootstrap().to_owned(),
            topic: self.topic.name().to_owned(),
            group: unique("bench"),
            url: self.database.server().url().to_owned(),
            database: self.database.name().to_owned(),
            table: table.to_owned(),
            lz4: self.lz4,
        };
        let load = load_average()?;
        let (mut command, inserts) = match (entry.program, &programs.arroyo) {
            (Program::Own(contender), _) => {
                let mut command = Command::new(&programs.own);
                command.arg("--job").arg(serde_json::to_string(&(contender, job))?);
                (command, contender.inserts())
            }
            (Program::Arroyo, Some(path)) => (arroyo(path, &job)?, true),
            (Program::Arroyo, None) => anyhow::bail!("not built"),
        };
        // A lost panic message would leave nothing to look at.
        command.env("RUST_LIB_BACKTRACE", "0");
        let mut process = Process::spawn(command)?;
        let status = process.wait(Deadline::seconds(RUN_SECONDS)).await?;
        ensure!(status.success(), "{status}; its standard error:\n{}", process.stderr());
        let output = process.stdout();
        let line = output.lines().last().context("it has printed nothing")?;
        let measured: Measured = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if inserts {
            let rows = self.database.count(table).await?;
            ensure!(rows == self.records, "{rows} rows of {} records", self.records);
        }
        Ok(Sample { measured, load })
    }
}

fn arroyo(path: &Path, job: &Job) -> Result<Command> {
    let mut command = Command::new(path);
    command.arg(serde_json::to_string(job)?);
    Ok(command)
}

fn table_of(work: Work) -> &'static str {
    match work {
        Work::W1 => "seen",
        Work::W2 => "metrics",
    }
}

/// Tasks that want a processor, over the last minute.
fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().next().context("no load average")?.parse()?)
}
