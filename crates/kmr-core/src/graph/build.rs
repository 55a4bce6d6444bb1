//! Turns a strategy's types into running tasks. Each stage is started with the channel to the stage
//! after it, so the last stage is started first.

use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::claims::tracked_rows::TrackedRows;
use super::context::StageContext;
use super::dead_letters::demand::Demand;
use super::dead_letters::{ErrorBranch, Stop, ToReducer};
use super::exactly_once::task::BlockTask;
use super::map::{MAX_OFFLOADED, MapPhase, Mapping};
use super::pipeline::{Build, BuildErrors, BuildGraph, Pipeline, ReduceInfo};
use super::reduce::downstream::{Downstream, Finish, ToNext};
use super::reduce::runtime::ReduceRuntime;
use super::reduce::task::ReduceTask;
use crate::dead_letter::DeadLetter;
use crate::error::{BoxError, Error};
use crate::record::Record;
use crate::reducer::{Reducer, Rows};
use crate::stage::{Chain, Pass};
use crate::util::future::BoxFuture;
use crate::util::supervise::{Tasks, supervise};

/// Chunks of rows that may wait before a reduce. Few, because they are charged to the budget but
/// not yet in a batch.
const CHANNEL_CAPACITY: usize = 32;

type ConnectUp<T> =
    Box<dyn FnOnce(Box<dyn Downstream<T>>, Build) -> BoxFuture<'static, Result<Build, Error>> + Send>;

/// The stages of a pipeline, started.
pub(crate) struct Stages {
    pub(crate) map: Arc<dyn MapPhase>,
    pub(crate) tasks: Tasks,
}

/// Starts the stages of a pipeline: every reducer's start-up check runs here, before anything is
/// read.
pub(crate) async fn start_stages(pipeline: Pipeline, context: StageContext) -> Result<Stages, Error> {
    if let Some(problem) = pipeline.options.problem() {
        return Err(Error::Config(problem.to_owned()));
    }
    let (errors, tasks): (Arc<dyn ErrorBranch>, _) = match pipeline.errors {
        Some((_, build)) => build(context.clone()).await?,
        None => (Arc::new(Stop::Records), JoinSet::new()),
    };
    let build = Build { context, errors, tasks, map: None, map_options: pipeline.options };
    let built = (pipeline.build)(build).await?;
    match built.map {
        Some(map) => Ok(Stages { map, tasks: built.tasks }),
        None => Err(Error::Config("the strategy has no map stage".to_owned())),
    }
}

async fn start_reducer<R: Reducer>(
    info: &ReduceInfo,
    reducer: &mut R,
    context: &StageContext,
) -> Result<(), Error> {
    #[cfg(feature = "metrics")]
    reducer.metrics(context.counters.metrics.of_reducer(info.stage.name()));
    reducer.start().await.map_err(|source| start_failed(info, source))?;
    if context.exactly_once {
        let ready = reducer.start_exactly_once().await;
        ready.map_err(|source| Error::Stage {
            stage: info.stage.to_string(),
            step: "exactly-once mode did not start".to_owned(),
            source,
        })?;
    }
    Ok(())
}

fn start_failed(info: &ReduceInfo, source: BoxError) -> Error {
    Error::Stage { stage: info.stage.to_string(), step: "start-up check failed".to_owned(), source }
}

/// Where a reduce sends its dead letters, and the demand for its own deliveries.
struct Branch {
    errors: Arc<dyn ErrorBranch>,
    demand: Demand,
}

/// Spawns a reduce task. Returns the sender to it.
fn spawn_reduce<R: Reducer>(
    info: ReduceInfo,
    reducer: R,
    downstream: Box<dyn Downstream<R::Output>>,
    Branch { errors, demand }: Branch,
    (context, tasks): (&StageContext, &mut Tasks),
) -> mpsc::Sender<TrackedRows<R::Rows>> {
    let (sender, input) = mpsc::channel(CHANNEL_CAPACITY);
    let name = info.stage.to_string();
    context.counters.metrics.channel(&name, info.options.max_in_flight, sender.downgrade());
    let runtime = ReduceRuntime {
        recorder: context.counters.metrics.stage(info.stage.name()),
        stage: info.stage,
        options: info.options,
        reducer,
        input,
        downstream,
        errors,
        states: context.assignments.clone(),
        budget: context.budget.clone(),
        demand,
        counters: context.counters.clone(),
        board: context.board.clone(),
        seed: context.seed,
    };
    if context.exactly_once {
        tasks.spawn(supervise(name, BlockTask::new(runtime).run()));
    } else {
        tasks.spawn(supervise(name, ReduceTask::new(runtime).run()));
    }
    sender
}

/// `reduce_err`: a reduce like any other, whose own failures stop the consumer.
pub(crate) fn build_errors<R>(info: ReduceInfo, mut reducer: R) -> BuildErrors
where
    R: Reducer,
    R::Rows: Rows<Item = DeadLetter>,
{
    Box::new(move |context| {
        // Dead letters are delivered at least once in any mode.
        let context = StageContext { exactly_once: false, ..context };
        Box::pin(async move {
            start_reducer(&info, &mut reducer, &context).await?;
            let (stage, rows) = (info.stage.clone(), reducer.new_rows());
            let stop: Arc<dyn ErrorBranch> = Arc::new(Stop::DeadLetters);
            let finish = Finish { chain: Pass::default(), errors: stop.clone() };
            let mut tasks = JoinSet::new();
            let demand = Demand::new();
            let branch = Branch { errors: stop, demand: demand.clone() };
            let sender = spawn_reduce(info, reducer, Box::new(finish), branch, (&context, &mut tasks));
            let StageContext { counters, records, failures, .. } = context;
            let rows = Mutex::new(rows);
            let branch = ToReducer { stage, rows, reducer: sender, counters, records, failures, demand };
            Ok((Arc::new(branch) as Arc<dyn ErrorBranch>, tasks))
        })
    })
}

/// The input of a chain of maps: Kafka, or a reduce.
pub trait Link<C: Chain>: Send + 'static {
    /// Connects the chain, and the stages before it, to the reduce after it.
    #[doc(hidden)]
    fn connect<R: Rows<Item = C::Out>>(
        self,
        chain: C,
        target: Target<R>,
        build: Build,
    ) -> BoxFuture<'static, Result<Build, Error>>;
}

/// The reduce that a chain feeds.
pub struct Target<R: Rows> {
    pub(crate) info: ReduceInfo,
    pub(crate) rows: R,
    pub(crate) sender: mpsc::Sender<TrackedRows<R>>,
}

/// The maps take Kafka's records.
#[derive(Debug)]
pub struct SourceLink;

impl<C> Link<C> for SourceLink
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
{
    fn connect<R: Rows<Item = C::Out>>(
        self,
        chain: C,
        target: Target<R>,
        mut build: Build,
    ) -> BoxFuture<'static, Result<Build, Error>> {
        Box::pin(async move {
            let Target { info, rows, sender } = target;
            let mapping = Mapping {
                chain,
                options: build.map_options.clone(),
                rows: rows.into(),
                reducer: sender,
                reduce_stage: info.stage,
                errors: build.errors.clone(),
                counters: build.context.counters.clone(),
                seed: build.context.seed,
                offloads: Semaphore::new(MAX_OFFLOADED),
            };
            build.map = Some(Arc::new(mapping));
            Ok(build)
        })
    }
}

/// The maps take the output of a reduce.
#[allow(missing_debug_implementations, reason = "holds the stages before it")]
pub struct ReduceLink<T> {
    up: ConnectUp<T>,
}

impl<T: Send + 'static> ReduceLink<T> {
    /// A reduce that receives the output of `chain`, whose input is `link`.
    pub(crate) fn new<R, L, C>(info: ReduceInfo, mut reducer: R, link: L, chain: C) -> Self
    where
        R: Reducer<Output = T>,
        L: Link<C>,
        C: Chain,
        R::Rows: Rows<Item = C::Out>,
    {
        let up: ConnectUp<T> = Box::new(move |downstream, mut build| {
            Box::pin(async move {
                start_reducer(&info, &mut reducer, &build.context).await?;
                let rows = reducer.new_rows();
                let context = build.context.clone();
                // No task waits for rows of a stage that takes no dead letters.
                let branch = Branch { errors: build.errors.clone(), demand: Demand::new() };
                let sender =
                    spawn_reduce(info.clone(), reducer, downstream, branch, (&context, &mut build.tasks));
                link.connect(chain, Target { info, rows, sender }, build).await
            })
        });
        Self { up }
    }

    /// Ends the strategy after this reduce, with the maps of `chain`.
    pub(crate) fn finish<C>(self, chain: C) -> BuildGraph
    where
        C: for<'r> Chain<In<'r> = T>,
    {
        Box::new(move |build| {
            let finish = Finish { chain, errors: build.errors.clone() };
            (self.up)(Box::new(finish), build)
        })
    }
}

impl<T, C> Link<C> for ReduceLink<T>
where
    T: Send + 'static,
    C: for<'r> Chain<In<'r> = T>,
{
    fn connect<R: Rows<Item = C::Out>>(
        self,
        chain: C,
        target: Target<R>,
        build: Build,
    ) -> BoxFuture<'static, Result<Build, Error>> {
        let Target { info, rows, sender } = target;
        let errors = build.errors.clone();
        let next = ToNext { chain, rows: Mutex::new(rows), stage: info.stage, reducer: sender, errors };
        (self.up)(Box::new(next), build)
    }
}
