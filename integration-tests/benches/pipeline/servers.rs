//! Starts the servers, fills topics, creates tables, and runs the processes of a measurement.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{ClickHouse, Database, Deadline, Kafka, Message, Process, Topic, log_line, unique};
use serde::de::DeserializeOwned;

use crate::bill::{Bill, Readings};
use crate::contenders::Contender;
use crate::payload::{PAYLOAD_BYTES, payload};
use crate::shared::job::{Job, Work};
use crate::shared::meter::Measured;

/// Timeout of one process. A process that loses a record waits forever and runs into it.
const RUN_SECONDS: u64 = 600;

/// Columns and sorting key of each work's table.
const TABLES: [(Work, (&str, &str)); 2] = [
    (Work::W1, ("partition UInt32, offset UInt64, timestamp DateTime", "partition, offset")),
    (
        Work::W2,
        (
            "org_id UInt32, project_id UInt32, name String, timestamp DateTime, value Float64, retention_days UInt16",
            "org_id, project_id, name, timestamp",
        ),
    ),
];

/// A broker, a database with the tables of both works, and this program.
pub(crate) struct Servers {
    pub(crate) kafka: Kafka,
    pub(crate) database: Database,
    pub(crate) own: PathBuf,
}

impl Servers {
    pub(crate) async fn start() -> Result<Self> {
        let kafka = Kafka::shared().await?;
        let database = ClickHouse::shared().await?.database("bench").await?;
        for (work, (columns, order)) in TABLES {
            let table = table_of(work);
            let sql = format!("CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY ({order})");
            database.exec(&sql).await?;
        }
        let own = std::env::current_exe().context("cannot read the path of this program")?;
        Ok(Self { kafka, database, own })
    }

    /// A topic with `records` of the benchmark's records, spread evenly.
    pub(crate) async fn topic(&self, name: &str, partitions: i32, records: u64) -> Result<Topic> {
        let topic = self.kafka.create_topic(name, partitions).await?;
        fill(&topic, records).await?;
        Ok(topic)
    }

    /// The job of a process that reads all of `topic`, a name or a pattern, in a group of its own.
    pub(crate) fn job(&self, work: Work, topic: &str, records: u64, lz4: bool) -> Job {
        Job {
            work,
            records,
            broker: self.kafka.bootstrap().to_owned(),
            topic: topic.to_owned(),
            group: unique("bench"),
            url: self.database.server().url().to_owned(),
            database: self.database.name().to_owned(),
            table: table_of(work).to_owned(),
            lz4,
            tuned: true,
        }
    }

    /// Starts this program again.
    pub(crate) fn spawn(&self, contender: Contender, job: &Job) -> Result<Process> {
        spawn(self.command(contender, job)?)
    }

    /// The command that starts this program again.
    pub(crate) fn command(&self, contender: Contender, job: &Job) -> Result<Command> {
        contender.command(&self.own, job)
    }

    /// Empties the tables: all of them, because the server would continue to merge rows of the
    /// previous run.
    pub(crate) async fn empty_tables(&self) -> Result<()> {
        for (work, _) in TABLES {
            self.database.exec(&format!("TRUNCATE TABLE {} SYNC", table_of(work))).await?;
        }
        Ok(())
    }

    /// Runs a process to its end on empty tables, and merges its rows. Returns its measurement, and
    /// what it has cost the servers. `inserts` is the required number of rows in the table.
    pub(crate) async fn run_billed(
        &self,
        command: Command,
        job: &Job,
        inserts: Option<u64>,
    ) -> Result<(Measured, Bill)> {
        self.empty_tables().await?;
        let before = Readings::take(&self.database).await?;
        let measured = self.run(command, job.work, inserts).await?;
        // What the server has not merged yet is work that it still has to do.
        self.database.exec(&format!("OPTIMIZE TABLE {} FINAL", job.table)).await?;
        Ok((measured, before.bill(&self.database, job.records).await?))
    }

    /// Runs a process to its end, and returns its measurement. `inserts` is the required number of
    /// rows in the table.
    pub(crate) async fn run<T: DeserializeOwned>(
        &self,
        command: Command,
        work: Work,
        inserts: Option<u64>,
    ) -> Result<T> {
        let table = table_of(work);
        let output = output(spawn(command)?).await?;
        if let Some(records) = inserts {
            let rows = self.database.count(table).await?;
            ensure!(rows == records, "the table has {rows} rows of {records} records");
        }
        Ok(output)
    }
}

/// Produces `records` records, spread evenly.
pub(crate) async fn fill(topic: &Topic, records: u64) -> Result<()> {
    let partitions = topic.partitions();
    log_line(format_args!("producing {records} records of {PAYLOAD_BYTES} bytes to {partitions} partitions"));
    let spread = u64::from(partitions.unsigned_abs().max(1));
    let message = move |n| Message::new(payload(n)).partition(i32::try_from(n % spread).unwrap_or_default());
    let produced = topic.produce((0..records).map(message)).await?;
    ensure!(produced.total() == records, "{} of {records} records produced", produced.total());
    Ok(())
}

fn spawn(mut command: Command) -> Result<Process> {
    // A backtrace would hide the panic message.
    command.env("RUST_LIB_BACKTRACE", "0");
    Process::spawn(command)
}

/// Waits for a process and parses the last line of its output.
pub(crate) async fn output<T: DeserializeOwned>(mut process: Process) -> Result<T> {
    let status = process.wait(Deadline::seconds(RUN_SECONDS)).await?;
    ensure!(status.success(), "{status}; its standard error:\n{}", process.stderr());
    let output = process.stdout();
    let line = output.lines().last().context("the process has printed nothing")?;
    serde_json::from_str(line).with_context(|| line.to_owned())
}

pub(crate) fn table_of(work: Work) -> &'static str {
    match work {
        Work::W1 => "seen",
        Work::W2 => "metrics",
    }
}
