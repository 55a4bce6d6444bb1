//! The error branch: every stage that can fail a record sends its dead letters here.
//!
//! `reread` reads lost records again for their dead letters, and `failure_rate` counts failures for
//! the circuit breaker. `demand` makes a batch of dead letters due while a task waits for it.

pub(crate) mod demand;
pub(crate) mod failure_rate;
pub(crate) mod reread;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use self::demand::{Demand, Waiting};
use self::failure_rate::{FailureRate, Tally};
use self::reread::{FailedValues, Rereader};
use super::claims::hold::Hold;
use super::claims::tracked_rows::{Origin, TrackedRows};
use crate::dead_letter::DeadLetter;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::reducer::{Rows, ensure_one_added};
use crate::stage::Stage;
use crate::stats::Counters;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// Takes dead letters with the holds on their records, which are finished when the dead letters are
/// delivered.
pub(crate) trait ErrorBranch: Send + Sync + 'static {
    /// Sends dead letters: one per record in the order of offsets, or all for the same records.
    fn send(&self, dead_letters: Vec<DeadLetter>, origin: Origin) -> BoxFuture<'_, Result<(), Error>>;

    /// Sends dead letters that lack their records. They are read again where possible.
    fn send_failed(&self, failed: Vec<FailedValues>) -> BoxFuture<'_, Result<(), Error>>;

    /// A task waits for dead letters until the value is dropped. Batches of them are due meanwhile.
    fn wait(&self) -> Option<Waiting> {
        None
    }

    /// Counts values that passed and failed.
    ///
    /// # Errors
    /// The circuit breaker trips.
    fn note(&self, tally: Tally<'_>, last: Vec<String>) -> Result<(), Error>;
}

/// The branch of a strategy with `reduce_err`.
pub(crate) struct ToReducer<R: Rows> {
    pub(crate) stage: Stage,
    /// The empty container that new ones are made from.
    pub(crate) rows: Mutex<R>,
    pub(crate) reducer: mpsc::Sender<TrackedRows<R>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) records: Option<Arc<Rereader>>,
    pub(crate) failures: Arc<FailureRate>,
    pub(crate) demand: Demand,
}

impl<R: Rows<Item = DeadLetter>> ErrorBranch for ToReducer<R> {
    fn send(&self, dead_letters: Vec<DeadLetter>, origin: Origin) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).new_empty();
            let count = dead_letters.len();
            let failures = dead_letters.iter().map(|failed| (failed.stage.as_str(), failed.code()));
            self.counters.metrics.dead_letters(failures);
            self.counters.metrics.events(events(&dead_letters));
            for dead_letter in dead_letters {
                let what = dead_letter.to_string();
                let before = rows.len();
                let pushed = rows.push(dead_letter);
                pushed.and_then(|()| ensure_one_added(&rows, before)).map_err(|source| Error::Stage {
                    stage: self.stage.to_string(),
                    step: what,
                    source,
                })?;
            }
            self.counters.dead_letters(count);
            let origin = if enabled(Mutant::FinishesEarly) {
                origin.into_holds().into_iter().for_each(Hold::finish);
                Origin::of_batch(Vec::new())
            } else {
                origin
            };
            // A closed channel means that the branch has failed and the consumer is stopping. The
            // dropped rows leave their records uncommitted.
            let _ = self.reducer.send(TrackedRows { rows, origin, hand_off: None }).await;
            Ok(())
        })
    }

    fn send_failed(&self, failed: Vec<FailedValues>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut waiting = reread::sorted(failed);
            let mut left = self.records.as_ref().map_or_else(Default::default, |records| records.limit());
            while !waiting.is_empty() {
                let (chunk, permit) = match &self.records {
                    Some(records) => records.next(&mut waiting, &mut left, &self.demand).await,
                    None => (waiting.drain(..1).collect(), None),
                };
                let (mut dead_letters, mut holds) = (Vec::new(), Vec::new());
                for failed in chunk {
                    dead_letters.extend(failed.dead_letters);
                    holds.extend(failed.holds);
                }
                self.send(dead_letters, Origin::of_batch(holds).with_permit(permit)).await?;
            }
            Ok(())
        })
    }

    fn wait(&self) -> Option<Waiting> {
        Some(self.demand.wait())
    }

    fn note(&self, tally: Tally<'_>, last: Vec<String>) -> Result<(), Error> {
        let noted = self.failures.note(tally, last, Instant::now());
        noted.inspect_err(|_| self.counters.metrics.breaker_tripped())
    }
}

/// An event for each run of dead letters with the same partition, stage and code. The text of the
/// error stays out, because it may quote the record.
fn events(dead_letters: &[DeadLetter]) -> impl Iterator<Item = Event> {
    let is_same = |a: &DeadLetter, b: &DeadLetter| {
        a.partition == b.partition && a.stage == b.stage && a.code() == b.code()
    };
    dead_letters.chunk_by(is_same).filter_map(|run| {
        let last = run.last()?;
        let text = last.code().map_or_else(String::new, |code| format!("code {code}"));
        let event = Event::new(EventKind::DeadLetter, text).with_count(run.len() as u64);
        Some(event.in_stage(&last.stage).at(&last.partition, Some(last.offset)))
    })
}

/// The error branch that takes no dead letter: the first failure stops the consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// The branch of a strategy without `reduce_err`.
    Records,
    /// The branch of `reduce_err` itself.
    DeadLetters,
}

impl ErrorBranch for Stop {
    fn send(&self, dead_letters: Vec<DeadLetter>, _: Origin) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            match dead_letters.into_iter().next() {
                None => Ok(()),
                Some(DeadLetter { partition, offset, stage, error, .. }) => Err(match self {
                    Stop::Records => Error::Record { partition, offset, stage, source: error },
                    Stop::DeadLetters => {
                        let what = format!("the dead letter of {partition} offset {offset} was rejected");
                        Error::Stage { stage, step: what, source: error }
                    }
                }),
            }
        })
    }

    fn send_failed(&self, failed: Vec<FailedValues>) -> BoxFuture<'_, Result<(), Error>> {
        let dead_letters = failed.into_iter().flat_map(|failed| failed.dead_letters).collect();
        self.send(dead_letters, Origin::of_batch(Vec::new()))
    }

    fn note(&self, _: Tally<'_>, _: Vec<String>) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::error_chain;
    use crate::record::OwnedRecord;
    use crate::test_reducer::Miscounting;

    #[tokio::test]
    async fn a_container_that_does_not_add_one_row_for_a_dead_letter_stops_the_consumer() {
        let (reducer, mut received) = mpsc::channel(1);
        let branch = ToReducer {
            stage: Stage::new("reduce_err", 1),
            rows: Mutex::new(Miscounting::new(2)),
            reducer,
            counters: Arc::default(),
            records: None,
            failures: Arc::new(FailureRate::new(None)),
            demand: Demand::new(),
        };
        let dead_letter = DeadLetter::new(OwnedRecord::new("t", 0, 7), "map 1", "bad");
        let error = branch.send(vec![dead_letter], Origin::of_batch(Vec::new())).await.unwrap_err();
        let text = error_chain(&error);
        assert!(
            text.contains("reduce_err") && text.contains("Miscounting") && text.contains("must add one row"),
            "{text}"
        );
        assert!(received.try_recv().is_err(), "a row was passed on");
    }
}
