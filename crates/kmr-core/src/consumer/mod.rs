//! A consumer and its run.
//!
//! * `builder` and `options`: the settings, and the checks before anything is connected;
//! * `run`: a consumer that is built, and its run;
//! * `handle`, `status` and `report`: watching and directing a run, and its result;
//! * `runtime_watchdog`: a runtime whose threads are all held.

mod builder;
mod handle;
mod options;
mod report;
mod run;
mod runtime_watchdog;
#[cfg(feature = "metrics")]
mod status;
#[cfg(test)]
mod test_builder;

pub use self::builder::ConsumerBuilder;
pub use self::handle::ConsumerHandle;
pub use self::report::RunReport;
pub use self::run::Consumer;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::strategy::IntoPipeline;

/// Runs `strategy` on `topics` until SIGINT or SIGTERM, then ends in order. The short form of
/// [`Consumer::builder`].
///
/// # Errors
/// The reason why the consumer did not start, or stopped. No unfinished record was committed.
///
/// # Cancel safety
/// Dropping the future ends the consumer at once, without the ordered shutdown. Nothing is lost:
/// the next consumer reads unfinished records again.
pub async fn start_consumer<T, S>(topics: T, config: ClientConfig, strategy: S) -> Result<(), Error>
where
    T: IntoIterator,
    T::Item: Into<String>,
    S: IntoPipeline,
{
    Consumer::builder().topics(topics).config(config).strategy(strategy).build()?.run().await.map(drop)
}
