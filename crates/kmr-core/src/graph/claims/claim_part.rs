//! One part of a claim: records whose rows went different ways.
//!
//! Invariant: the claim is finished with its last part. A dropped part leaves it unfinished, so its
//! records are abandoned with the last part.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::claim::Claim;
use crate::graph::assignment::id::Assignment;
use crate::reducer::SourceRange;
use crate::util::mutants::{Mutant, enabled};

/// One part of a claim.
#[derive(Debug)]
pub(crate) struct ClaimPart {
    claim: Arc<SplitClaim>,
    finished: bool,
}

/// A claim in several parts.
#[derive(Debug)]
struct SplitClaim {
    assignment: Arc<Assignment>,
    sources: Vec<SourceRange>,
    state: Mutex<PartsLeft>,
}

#[derive(Debug)]
struct PartsLeft {
    unfinished: usize,
    claim: Option<Claim>,
    /// Dropped with any part that is dropped unfinished.
    waiter: Option<Waiter>,
}

/// Notified when at most `unfinished` parts are unfinished.
#[derive(Debug)]
struct Waiter {
    unfinished: usize,
    notify: oneshot::Sender<()>,
}

impl ClaimPart {
    /// Splits a claim into two parts.
    pub(super) fn split_claim(claim: Claim) -> (Self, Self) {
        let claim = Arc::new(SplitClaim {
            assignment: claim.assignment().clone(),
            sources: claim.sources().collect(),
            state: Mutex::new(PartsLeft { unfinished: 2, claim: Some(claim), waiter: None }),
        });
        (Self::of(&claim), Self::of(&claim))
    }

    fn of(claim: &Arc<SplitClaim>) -> Self {
        Self { claim: claim.clone(), finished: false }
    }

    /// Splits off another part.
    pub(super) fn split(self) -> (Self, Self) {
        self.state().unfinished += 1;
        let other = Self::of(&self.claim);
        (self, other)
    }

    pub(super) fn assignment(&self) -> &Assignment {
        &self.claim.assignment
    }

    pub(super) fn sources(&self) -> &[SourceRange] {
        &self.claim.sources
    }

    /// Notified when this part is finished. The sender is dropped if a part is dropped unfinished.
    /// One part of a claim at a time may be waited for, and the others must not end meanwhile.
    pub(super) fn when_finished(&self) -> oneshot::Receiver<()> {
        let (notify, finished) = oneshot::channel();
        let mut state = self.state();
        state.waiter = Some(Waiter { unfinished: state.unfinished.saturating_sub(1), notify });
        finished
    }

    pub(super) fn finish(mut self) {
        self.finished = true;
        let mut state = self.state();
        state.unfinished = state.unfinished.saturating_sub(1);
        let left = state.unfinished;
        let waiter = state.waiter.take_if(|waiter| left <= waiter.unfinished);
        let is_last = left == 0 || waiter.is_some() && enabled(Mutant::FinishesWithDeadLetter);
        let claim = if is_last { state.claim.take() } else { None };
        drop(state);
        // The receiver may be gone.
        waiter.map(|waiter| waiter.notify.send(()));
        if let Some(claim) = claim {
            claim.finish();
        }
    }

    fn state(&self) -> MutexGuard<'_, PartsLeft> {
        self.claim.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClaimPart {
    fn drop(&mut self) {
        if !self.finished {
            self.state().waiter = None;
        }
    }
}
