//! Pending records: they wait for an asynchronous map stage, or for their next attempt.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::stage::StageError;
use crate::util::future::BoxFuture;

/// A record that waits, with its number in the reorder buffer.
pub(super) struct Pending<'a, T> {
    number: u64,
    work: Work<'a, T>,
}

enum Work<'a, T> {
    Call(BoxFuture<'a, Result<Vec<T>, StageError>>),
    Retry(Pin<Box<Sleep>>),
}

/// How the wait of a record ended.
pub(super) enum CompletedWork<T> {
    /// All map stages have returned.
    Mapped(Result<Vec<T>, StageError>),
    /// It may be mapped again.
    RetryDue,
}

impl<'a, T> Pending<'a, T> {
    pub(super) fn mapping(number: u64, call: BoxFuture<'a, Result<Vec<T>, StageError>>) -> Self {
        Self { number, work: Work::Call(call) }
    }

    pub(super) fn retry(number: u64, wait: Duration) -> Self {
        Self { number, work: Work::Retry(Box::pin(sleep(wait))) }
    }
}

impl<T> Future for Pending<'_, T> {
    type Output = (u64, CompletedWork<T>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let completed = match &mut self.work {
            Work::Call(call) => CompletedWork::Mapped(ready!(call.as_mut().poll(context))),
            Work::Retry(sleep) => {
                ready!(sleep.as_mut().poll(context));
                CompletedWork::RetryDue
            }
        };
        Poll::Ready((self.number, completed))
    }
}
