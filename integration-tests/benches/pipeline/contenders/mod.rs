//! What is compared: each contender is one process, this program started again with a job, or the one with glibc's malloc.

mod by_hand;
mod in_memory;
mod kmr;
pub(crate) mod live;
mod native;
pub(crate) mod reducers;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::shared::job::Job;

/// The contenders of this program. The pipeline on Arroyo is a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contender {
    /// kmr with a reducer that drops its rows.
    KmrDrop,
    /// kmr with `ClickHouseWriter`.
    Kmr,
    /// librdkafka's batches, consumed and freed.
    Consume,
    /// The payloads, decoded in memory.
    Decode,
    /// The rows, inserted from memory through the `clickhouse` crate.
    Insert,
    /// rdkafka's `StreamConsumer` and the crate's `Inserter`.
    ByHand,
    /// kmr with `ClickHouseWriter`, each row exactly once.
    KmrExactlyOnce,
    /// kmr behind a producer.
    KmrTail,
    /// kmr in front of a sink that stands still.
    KmrStalled,
    /// kmr with nothing to do.
    KmrIdle,
    /// kmr as one of several in a group.
    KmrMember,
}

impl Contender {
    /// Whether its rows have to be in the table afterwards.
    pub(crate) fn inserts(self) -> bool {
        matches!(self, Self::Kmr | Self::Insert | Self::ByHand | Self::KmrExactlyOnce)
    }

    /// How a program is started that [`run`]s it.
    pub(crate) fn command(self, program: &Path, job: &Job) -> Result<Command> {
        let mut command = Command::new(program);
        command.arg("--job").arg(serde_json::to_string(&(self, job))?);
        Ok(command)
    }
}

/// Runs what `--job` says and prints its measurement.
///
/// # Errors
///
/// Whatever kept the contender from doing all its records.
pub(crate) fn run(job: &str) -> Result<()> {
    let (contender, job): (Contender, Job) = serde_json::from_str(job).context("reading the job")?;
    let job = &job;
    match contender {
        Contender::Decode => in_memory::decode(job),
        Contender::Consume => native::consume(job),
        Contender::KmrDrop => runtime()?.block_on(kmr::drop_rows(job)),
        Contender::Kmr => runtime()?.block_on(kmr::insert(job)),
        Contender::Insert => runtime()?.block_on(in_memory::insert(job)),
        Contender::ByHand => runtime()?.block_on(by_hand::run(job)),
        Contender::KmrExactlyOnce => runtime()?.block_on(kmr::insert_exactly_once(job)),
        Contender::KmrTail => runtime()?.block_on(live::tail(job)),
        Contender::KmrStalled => runtime()?.block_on(live::stalled(job)),
        Contender::KmrIdle => runtime()?.block_on(live::idle(job)),
        Contender::KmrMember => runtime()?.block_on(live::member(job)),
    }
}

/// The runtime of `#[tokio::main]`.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
