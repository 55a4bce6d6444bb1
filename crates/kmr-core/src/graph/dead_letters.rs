//! The way to `reduce_err`, for every stage that can fail a record.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::claim::Hold;
use super::defects::{Defect, planted};
use super::piece::{Origin, Piece};
use crate::dead_letter::DeadLetter;
use crate::error::Error;
use crate::reducer::Rows;
use crate::stage::{BoxFuture, Stage};
use crate::stats::Counters;

/// Takes dead letters with what answers for their records, which are finished when the letters are delivered.
pub(crate) trait ErrorBranch: Send + Sync + 'static {
    /// Hands over letters, one a record in the order of their offsets, or all for the same records.
    fn send(&self, letters: Vec<DeadLetter>, origin: Origin) -> BoxFuture<'_, Result<(), Error>>;
}

/// The branch of a strategy with `reduce_err`.
pub(crate) struct ToReducer<R: Rows> {
    stage: Stage,
    /// The empty container that new ones are made from.
    rows: Mutex<R>,
    reducer: mpsc::Sender<Piece<R>>,
    counters: Arc<Counters>,
}

impl<R: Rows<Item = DeadLetter>> ToReducer<R> {
    pub(crate) fn new(
        stage: Stage,
        rows: R,
        reducer: mpsc::Sender<Piece<R>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { stage, rows: Mutex::new(rows), reducer, counters }
    }
}

impl<R: Rows<Item = DeadLetter>> ErrorBranch for ToReducer<R> {
    fn send(&self, letters: Vec<DeadLetter>, origin: Origin) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).fresh();
            let count = letters.len();
            for letter in letters {
                let what = letter.to_string();
                rows.push(letter).map_err(|source| Error::Stage {
                    stage: self.stage.to_string(),
                    what,
                    source,
                })?;
            }
            self.counters.dead_letters(count);
            let origin = if planted(Defect::FinishesEarly) {
                origin.into_holds().into_iter().for_each(Hold::finish);
                Origin::of_batch(Vec::new())
            } else {
                origin
            };
            // A closed channel means that the branch has failed and the consumer is stopping: dropping the piece leaves
            // its records uncommitted.
            let _ = self.reducer.send(Piece { rows, origin }).await;
            Ok(())
        })
    }
}

/// The branch of a strategy without `reduce_err`, and of `reduce_err` itself: the first failure stops the consumer.
#[derive(Debug)]
pub(crate) struct Stop;

impl ErrorBranch for Stop {
    fn send(&self, letters: Vec<DeadLetter>, _: Origin) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            match letters.into_iter().next() {
                None => Ok(()),
                Some(DeadLetter { partition, offset, stage, error, .. }) => {
                    Err(Error::Record { partition, offset, stage, source: error })
                }
            }
        })
    }
}
