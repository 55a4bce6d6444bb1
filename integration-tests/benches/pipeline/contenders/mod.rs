//! The contenders. Each runs as a process of its own: this program, or the one with glibc's malloc,
//! started with a job.

mod by_hand;
mod forward;
mod in_memory;
mod kmr;
pub(crate) mod live;
mod native;
pub(crate) mod reducers;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::shared::job::{BATCH_ROWS, Job};

/// The `max_rows` of a consumer that wants its rows soon.
pub(crate) const SMALL_BLOCKS: usize = 300;

/// The contenders of this program. The pipeline on Arroyo is a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contender {
    /// kmr with a reducer that drops its rows.
    KmrDrop,
    /// The same with metrics.
    KmrMetrics,
    /// kmr with `ClickHouseWriter`.
    Kmr,
    /// Ceiling: librdkafka's batches, consumed and freed.
    Consume,
    /// Ceiling: the payloads, decoded in memory.
    Decode,
    /// Ceiling: the rows, inserted from memory through the `clickhouse` crate.
    Insert,
    /// rdkafka's `StreamConsumer` and the crate's `Inserter`.
    ByHand,
    /// kmr with `ClickHouseWriter` in exactly-once mode.
    KmrExactlyOnce,
    /// The same with a `max_rows` of [`SMALL_BLOCKS`].
    KmrSmallBlocks,
    /// kmr with a `Fold` upstream of `ClickHouseWriter`.
    KmrFold,
    /// kmr with `ClickHouseWriter::<JsonRow>`.
    KmrJson,
    /// kmr that sends JSON on to the server.
    KmrForward,
    /// kmr with a live producer.
    KmrTail,
    /// kmr with a stalled sink.
    KmrStalled,
    /// kmr without new records.
    KmrIdle,
    /// kmr as one of several members of a group.
    KmrMember,
}

impl Contender {
    /// Whether its rows have to be stored in the table.
    pub(crate) fn inserts(self) -> bool {
        matches!(self, Self::Kmr | Self::Insert | Self::ByHand)
    }

    /// The command that starts `program` so that it [`run`]s this contender.
    pub(crate) fn command(self, program: &Path, job: &Job) -> Result<Command> {
        let mut command = Command::new(program);
        command.arg("--job").arg(serde_json::to_string(&(self, job))?);
        Ok(command)
    }
}

/// Runs the job of `--job` and prints its measurement.
///
/// # Errors
///
/// The error that kept the contender from processing all records.
pub(crate) fn run(job: &str) -> Result<()> {
    let (contender, job): (Contender, Job) = serde_json::from_str(job).context("parsing the job")?;
    let job = &job;
    match contender {
        Contender::Decode => in_memory::decode(job),
        Contender::Consume => native::consume(job),
        Contender::KmrDrop => runtime()?.block_on(kmr::drop_rows(job)),
        Contender::KmrMetrics => runtime()?.block_on(kmr::drop_rows_with_metrics(job)),
        Contender::Kmr => runtime()?.block_on(kmr::insert(job)),
        Contender::Insert => runtime()?.block_on(in_memory::insert(job)),
        Contender::ByHand => runtime()?.block_on(by_hand::run(job)),
        Contender::KmrExactlyOnce => runtime()?.block_on(kmr::insert_exactly_once(job, BATCH_ROWS)),
        Contender::KmrSmallBlocks => runtime()?.block_on(kmr::insert_exactly_once(job, SMALL_BLOCKS)),
        Contender::KmrFold => runtime()?.block_on(kmr::insert_folded(job)),
        Contender::KmrJson => runtime()?.block_on(kmr::insert_json(job)),
        Contender::KmrForward => runtime()?.block_on(kmr::forward(job)),
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
