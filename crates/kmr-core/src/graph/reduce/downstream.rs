//! Takes the output of a reduce: to more map stages and another reduce, or to the end.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::dead_letter::DeadLetter;
use crate::error::{Error, StopConsumer};
use crate::graph::claims::hold::Hold;
use crate::graph::claims::tracked_rows::{Origin, TrackedRows};
use crate::graph::dead_letters::ErrorBranch;
use crate::graph::dead_letters::failure_rate::{Source, Tally};
use crate::graph::dead_letters::reread::FailedValues;
use crate::reducer::{Rows, SourceRange, ensure_one_added};
use crate::stage::{Chain, Stage, StageError, Step};
use crate::util::future::BoxFuture;

/// Takes the output of a delivered batch, with the holds on its records.
pub(crate) trait Downstream<T>: Send + Sync + 'static {
    fn push(&self, output: T, holds: Vec<Hold>) -> BoxFuture<'_, Result<(), Error>>;
}

/// Maps an output and collects the values that the chain emits.
async fn run_chain<T, C>(chain: &C, output: T, rows: &mut Vec<C::Out>) -> Result<(), StageError>
where
    C: for<'r> Chain<In<'r> = T>,
{
    match chain.start(output, &mut |row| rows.push(row)) {
        Step::Done(result) => result,
        Step::Later(values) => {
            rows.extend(values.await?);
            Ok(())
        }
    }
}

/// The value failed in a map stage after a reduce. Each range of its records gets a dead letter.
async fn fail(errors: &dyn ErrorBranch, holds: Vec<Hold>, error: StageError) -> Result<(), Error> {
    let sources: Vec<SourceRange> = holds.iter().flat_map(Hold::sources).collect();
    let span = |source: &SourceRange| u64::try_from(source.last - source.first + 1).unwrap_or(0);
    let weight = sources.iter().map(span).sum();
    let dead_letters = DeadLetter::of_ranges(&sources, &error.stage, error.error);
    let last = dead_letters.first().map(DeadLetter::to_string).into_iter().collect();
    errors.send_failed(vec![FailedValues { dead_letters, holds }]).await?;
    errors.note(
        Tally { source: Source::AfterReduce, values: 1, failed: &[0], tombstones: 0, weight, counted: true },
        last,
    )
}

/// The value is mapped, which ends a streak of failures.
fn pass(errors: &dyn ErrorBranch) -> Result<(), Error> {
    errors.note(
        Tally {
            source: Source::AfterReduce,
            values: 1,
            failed: &[],
            tombstones: 0,
            weight: 0,
            counted: true,
        },
        Vec::new(),
    )
}

/// The end of the strategy: the records are finished.
pub(crate) struct Finish<C> {
    pub(crate) chain: C,
    pub(crate) errors: Arc<dyn ErrorBranch>,
}

impl<T, C> Downstream<T> for Finish<C>
where
    T: Send + 'static,
    C: for<'r> Chain<In<'r> = T>,
{
    fn push(&self, output: T, holds: Vec<Hold>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            match run_chain(&self.chain, output, &mut Vec::new()).await {
                Ok(()) => {
                    holds.into_iter().for_each(Hold::finish);
                    pass(&*self.errors)
                }
                Err(error) => fail(&*self.errors, holds, error).await,
            }
        })
    }
}

/// The next reduce, after any number of map stages.
pub(crate) struct ToNext<C, R: Rows> {
    pub(crate) chain: C,
    /// The empty container that new ones are made from.
    pub(crate) rows: Mutex<R>,
    pub(crate) stage: Stage,
    pub(crate) reducer: mpsc::Sender<TrackedRows<R>>,
    pub(crate) errors: Arc<dyn ErrorBranch>,
}

impl<T, C, R> Downstream<T> for ToNext<C, R>
where
    T: Send + 'static,
    C: for<'r> Chain<In<'r> = T>,
    R: Rows<Item = C::Out>,
{
    fn push(&self, output: T, holds: Vec<Hold>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut values = Vec::new();
            if let Err(error) = run_chain(&self.chain, output, &mut values).await {
                return fail(&*self.errors, holds, error).await;
            }
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).new_empty();
            for value in values {
                let before = rows.len();
                let pushed = rows.push(value);
                if let Err(error) = pushed.and_then(|()| ensure_one_added(&rows, before)) {
                    if error.is::<StopConsumer>() {
                        let what = "the output of the upstream reduce stops the consumer".to_owned();
                        return Err(Error::Stage {
                            stage: self.stage.to_string(),
                            step: what,
                            source: error,
                        });
                    }
                    return fail(&*self.errors, holds, StageError { stage: self.stage.clone(), error }).await;
                }
            }
            pass(&*self.errors)?;
            if rows.is_empty() {
                holds.into_iter().for_each(Hold::finish);
                return Ok(());
            }
            // A closed channel means that the next stage has failed and the consumer is stopping.
            let _ = self
                .reducer
                .send(TrackedRows { rows, origin: Origin::of_batch(holds), hand_off: None })
                .await;
            Ok(())
        })
    }
}
