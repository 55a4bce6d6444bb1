//! Assignments on their way out.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::handle::Settled;
use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;

/// How long an answer to a commit may take, also when that is past the drain deadline.
pub(crate) const COMMIT_ANSWER: Duration = Duration::from_secs(10);

/// Assignments on their way out.
pub(super) struct Leaving {
    pub(super) epochs: BTreeSet<AssignmentId>,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Vec<Settled>, Error>>,
    pub(super) commits: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) tries: u32,
}

impl Leaving {
    /// When it has to be looked at again; while a commit is outstanding, since `sent`, there is nothing to try before the
    /// deadline, and behind that the answer has its time.
    pub(super) fn wake_at(&self, sent: Option<Instant>) -> Instant {
        match sent {
            None => self.retry_at.unwrap_or(self.deadline),
            Some(sent) if Instant::now() >= self.deadline => self.deadline.max(sent + COMMIT_ANSWER),
            Some(_) => self.deadline,
        }
    }
}
