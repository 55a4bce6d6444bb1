//! Where a partition's task waits, and what becomes of records that have been mapped: done, or mapped again after a while.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::StreamExt;
use tokio::time::{Instant, sleep_until};

use super::partition::{Next, Partition};
use super::pending::{Busy, Woken};
use super::retry::into_last;
use crate::graph::observe::activity::PulseState;
use crate::record::Record;
use crate::reducer::Rows;
use crate::stage::{Chain, StageError};
use crate::telemetry;

/// How long mapped records wait for a slow one behind them.
const LINGER: Duration = Duration::from_millis(20);
/// Least time between two warnings about retries in one partition.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

impl<C, R> Partition<'_, C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    /// Waits for a record, a batch, or the end of the draft's patience.
    pub(super) async fn wait(&mut self) -> Next {
        // What is done already is taken without further ado.
        if let Some(Some((number, woken))) = self.busy.next().now_or_never() {
            return self.wake(number, woken);
        }
        self.say_what_for();
        self.pace.pause(Instant::now());
        let flush_at = self.draft.range.is_some().then(|| self.patience());
        let takes_more = !self.has_next() && self.window.has_room() && !self.input_ended;
        tokio::select! {
            biased;
            () = self.input.stop.cancelled() => Next::End,
            Some((number, woken)) = self.busy.next(), if !self.busy.is_empty() => self.wake(number, woken),
            admitted = self.input.batches.recv(), if takes_more => {
                match admitted {
                    Some(admitted) => self.load(admitted),
                    None => self.input_ended = true,
                }
                Next::Advance
            }
            () = at(flush_at) => Next::Send,
        }
    }

    fn wake(&mut self, number: u64, woken: Woken<C::Out>) -> Next {
        match woken {
            Woken::Mapped(result) => self.attempted(number, result),
            Woken::Rested => self.window.rested(number),
        }
        Next::Advance
    }

    /// Writes the pulse before a wait.
    fn say_what_for(&self) {
        let Some(slot) = self.window.front() else { return self.input.pulse.idle() };
        let state = match &slot.attempts.error {
            Some(error) if slot.rests => {
                PulseState::Retrying { attempt: slot.attempts.failed, error: error.clone() }
            }
            _ => PulseState::Awaiting,
        };
        self.input.pulse.waiting(state, slot.offset);
    }

    /// When the draft is to be sent at the latest.
    fn patience(&mut self) -> Instant {
        *self.flush_at.get_or_insert_with(|| Instant::now() + LINGER)
    }

    /// Whether the draft has waited for the records behind it for too long.
    pub(super) fn is_overdue(&mut self) -> bool {
        self.draft.range.is_some() && self.patience() <= Instant::now()
    }

    /// A record has been mapped, or has failed: perhaps only for now.
    pub(super) fn attempted(&mut self, number: u64, result: Result<Vec<C::Out>, StageError>) {
        let failed = match result {
            Err(failed) if failed.is_retryable() => failed,
            result => return self.window.finish(number, result),
        };
        let Some(slot) = self.window.get_mut(number) else { return };
        let (now, offset) = (Instant::now(), slot.offset);
        let partition = &self.input.assignment.partition;
        let seed = self.mapping.seed ^ self.input.assignment.id.0 ^ offset.cast_unsigned().rotate_left(32);
        match slot.attempts.note(&failed, &self.mapping.options.retry, (seed, now)) {
            Some(wait) => {
                let loud = self.warned.is_none_or(|warned| now - warned >= WARN_INTERVAL);
                if loud {
                    self.warned = Some(now);
                }
                telemetry::map_retried((partition, offset), &failed, slot.attempts.failed, wait, loud);
                slot.rests = true;
                self.busy.push(Busy::resting(number, wait));
            }
            None => {
                let tried = now - slot.attempts.since;
                telemetry::map_gave_up((partition, offset), &failed, slot.attempts.failed, tried);
                self.window.finish(number, Err(into_last(failed)));
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
