//! Records that wait: for an asynchronous map stage, or to be mapped again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::stage::StageError;
use crate::util::future::BoxFuture;

/// A record that waits, by its number in the window.
pub(super) struct Busy<'a, T> {
    number: u64,
    work: Work<'a, T>,
}

enum Work<'a, T> {
    Call(BoxFuture<'a, Result<Vec<T>, StageError>>),
    Rest(Pin<Box<Sleep>>),
}

/// What a record has waited for.
pub(super) enum Woken<T> {
    /// The stages are through with it.
    Mapped(Result<Vec<T>, StageError>),
    /// It may be mapped again.
    Rested,
}

impl<'a, T> Busy<'a, T> {
    pub(super) fn mapping(number: u64, call: BoxFuture<'a, Result<Vec<T>, StageError>>) -> Self {
        Self { number, work: Work::Call(call) }
    }

    pub(super) fn resting(number: u64, wait: Duration) -> Self {
        Self { number, work: Work::Rest(Box::pin(sleep(wait))) }
    }
}

impl<T> Future for Busy<'_, T> {
    type Output = (u64, Woken<T>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let woken = match &mut self.work {
            Work::Call(call) => Woken::Mapped(ready!(call.as_mut().poll(context))),
            Work::Rest(sleep) => {
                ready!(sleep.as_mut().poll(context));
                Woken::Rested
            }
        };
        Poll::Ready((self.number, woken))
    }
}
