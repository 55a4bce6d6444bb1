//! The way to `reduce_err`, for every stage that can fail a record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use self::failure_rate::{FailureRate, Tally};
use self::reread::{Failed, Rereader};
use super::claims::claim::Hold;
use super::claims::tracked_rows::{Origin, TrackedRows};
use crate::dead_letter::DeadLetter;
use crate::error::Error;
use crate::reducer::Rows;
use crate::stage::Stage;
use crate::stats::Counters;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// Takes dead letters with what answers for their records, which are finished when the letters are delivered.
pub(crate) trait ErrorBranch: Send + Sync + 'static {
    /// Hands over letters, one a record in the order of their offsets, or all for the same records.
    fn send(&self, letters: Vec<DeadLetter>, origin: Origin) -> BoxFuture<'_, Result<(), Error>>;

    /// Hands over letters that have no records, which are read again as far as they can be.
    fn send_failed(&self, failed: Vec<Failed>) -> BoxFuture<'_, Result<(), Error>>;

    /// Counts what failed, and what did not. An error: it is too much.
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
}

impl<R: Rows<Item = DeadLetter>> ErrorBranch for ToReducer<R> {
    fn send(&self, letters: Vec<DeadLetter>, origin: Origin) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).new_empty();
            let count = letters.len();
            for letter in letters {
                let what = letter.to_string();
                rows.push(letter).map_err(|source| Error::Stage {
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
            // A closed channel means that the branch has failed and the consumer is stopping: dropping the piece leaves
            // its records uncommitted.
            let _ = self.reducer.send(TrackedRows { rows, origin, turn: None }).await;
            Ok(())
        })
    }

    fn send_failed(&self, failed: Vec<Failed>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut waiting = VecDeque::from(failed);
            let mut left = self.records.as_ref().map_or_else(Default::default, |records| records.limit());
            while !waiting.is_empty() {
                let (chunk, room) = match &self.records {
                    Some(records) => records.next(&mut waiting, &mut left).await,
                    None => (waiting.drain(..1).collect(), None),
                };
                let (mut letters, mut holds) = (Vec::new(), Vec::new());
                for failed in chunk {
                    letters.extend(failed.letters);
                    holds.extend(failed.holds);
                }
                self.send(letters, Origin::of_batch(holds).with_room(room)).await?;
            }
            Ok(())
        })
    }

    fn note(&self, tally: Tally<'_>, last: Vec<String>) -> Result<(), Error> {
        self.failures.note(tally, last, Instant::now())
    }
}

/// Where no letter goes: the first failure stops the consumer, and there is nothing to count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// The branch of a strategy without `reduce_err`.
    ForRecords,
    /// The branch of `reduce_err` itself.
    ForLetters,
}

impl ErrorBranch for Stop {
    fn send(&self, letters: Vec<DeadLetter>, _: Origin) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            match letters.into_iter().next() {
                None => Ok(()),
                Some(DeadLetter { partition, offset, stage, error, .. }) => Err(match self {
                    Stop::ForRecords => Error::Record { partition, offset, stage, source: error },
                    Stop::ForLetters => {
                        let what = format!("the dead letter of {partition} offset {offset} was refused");
                        Error::Stage { stage, step: what, source: error }
                    }
                }),
            }
        })
    }

    fn send_failed(&self, failed: Vec<Failed>) -> BoxFuture<'_, Result<(), Error>> {
        let letters = failed.into_iter().flat_map(|failed| failed.letters).collect();
        self.send(letters, Origin::of_batch(Vec::new()))
    }

    fn note(&self, _: Tally<'_>, _: Vec<String>) -> Result<(), Error> {
        Ok(())
    }
}
pub(crate) mod failure_rate;
pub(crate) mod reread;
