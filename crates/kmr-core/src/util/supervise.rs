//! Supervised tasks (L1): a panic in a task becomes its error.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::panic::panic_message;
use crate::error::Error;

/// A set of supervised tasks. Each ends with its name and its result.
pub(crate) type Tasks = JoinSet<(String, Result<(), Error>)>;

/// Runs a task and turns a panic into its error.
pub(crate) async fn supervise(
    name: String,
    task: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> (String, Result<(), Error>) {
    let result = AssertUnwindSafe(task).catch_unwind().await;
    let result = result.unwrap_or_else(|panic: Box<dyn Any + Send>| {
        Err(Error::TaskPanicked { task: name.clone(), message: panic_message(&*panic) })
    });
    (name, result)
}
