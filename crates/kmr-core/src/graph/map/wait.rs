//! Where a partition's task waits, and what happens when one of its waits ends.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::StreamExt;
use tokio::time::{Instant, sleep_until};

use super::partition::{Next, Partition};
use super::pending::{CompletedWork, Pending};
use super::retry::into_last;
use crate::graph::observe::activity::ActivityState;
use crate::record::Record;
use crate::reducer::Rows;
use crate::stage::{Chain, StageError};
use crate::telemetry;

/// How long mapped records wait for a slow one after them.
const LINGER: Duration = Duration::from_millis(20);
/// Minimum time between two warnings about retries in one partition.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

impl<C, R> Partition<'_, C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    /// Waits for a pending record, a batch, or the flush deadline.
    pub(super) async fn wait(&mut self) -> Next {
        // A wait that has already ended needs no change of the activity.
        if let Some(Some((number, ended))) = self.pending.next().now_or_never() {
            return self.completed(number, ended);
        }
        self.publish_activity();
        self.slice.pause(Instant::now());
        let flush_at = self.builder.range.is_some().then(|| self.flush_deadline());
        let has_room = !self.has_next() && self.buffer.has_room() && !self.input_ended;
        tokio::select! {
            biased;
            () = self.input.stop.cancelled() => Next::End,
            Some((number, ended)) = self.pending.next(), if !self.pending.is_empty() => self.completed(number, ended),
            admitted = self.input.batches.recv(), if has_room => {
                match admitted {
                    Some(admitted) => self.add_batch(admitted),
                    None => self.input_ended = true,
                }
                Next::Advance
            }
            () = at(flush_at) => Next::Send,
        }
    }

    fn completed(&mut self, number: u64, ended: CompletedWork<C::Out>) -> Next {
        match ended {
            CompletedWork::Mapped(result) => self.attempted(number, result),
            CompletedWork::RetryDue => self.buffer.retry_due(number),
        }
        Next::Advance
    }

    /// Publishes the activity before a wait.
    fn publish_activity(&self) {
        let Some(slot) = self.buffer.front() else { return self.input.activity.idle() };
        let state = match &slot.attempts.error {
            Some(error) if slot.waits_for_retry => {
                ActivityState::Retrying { attempt: slot.attempts.failed, error: error.clone() }
            }
            _ => ActivityState::Awaiting,
        };
        self.input.activity.waiting(state, slot.offset);
    }

    /// When the rows are sent at the latest.
    fn flush_deadline(&mut self) -> Instant {
        *self.flush_at.get_or_insert_with(|| Instant::now() + LINGER)
    }

    /// Whether the rows have waited too long for the records after them.
    pub(super) fn is_overdue(&mut self) -> bool {
        self.builder.range.is_some() && self.flush_deadline() <= Instant::now()
    }

    /// A record is mapped, or an attempt has failed.
    pub(super) fn attempted(&mut self, number: u64, result: Result<Vec<C::Out>, StageError>) {
        let failed = match result {
            Err(failed) if failed.is_retryable() => failed,
            result => return self.buffer.finish(number, result),
        };
        let Some(slot) = self.buffer.get_mut(number) else { return };
        let (now, offset) = (Instant::now(), slot.offset);
        let partition = &self.input.assignment.partition;
        let seed = self.mapping.seed ^ self.input.assignment.id.0 ^ offset.cast_unsigned().rotate_left(32);
        match slot.attempts.failed_at(now, &failed, &self.mapping.options.retry, seed) {
            Some(wait) => {
                let warn = self.warned.is_none_or(|warned| now - warned >= WARN_INTERVAL);
                if warn {
                    self.warned = Some(now);
                }
                telemetry::map_retried((partition, offset), &failed, slot.attempts.failed, wait, warn);
                slot.waits_for_retry = true;
                self.pending.push(Pending::retry(number, wait));
            }
            None => {
                let tried = now - slot.attempts.since;
                telemetry::map_gave_up((partition, offset), &failed, slot.attempts.failed, tried);
                self.buffer.finish(number, Err(into_last(failed)));
            }
        }
    }
}

/// Pends for ever without an instant.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
