//! When assignments that leave the ledger are committed once more and released. Pure: the committer
//! passes in the time and the state of its entries.
//!
//! Invariant: while a commit that concerns these assignments is unanswered, they are not released
//! (one outstanding commit, C8). Past its timeout the step is [`LeavingStep::Fail`].

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::graph::assignment::id::AssignmentId;

/// Longest wait for the response to a commit, also past the drain deadline.
pub(crate) const COMMIT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait before a failed last commit is tried again, within the drain deadline.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// Attempts of a last commit, 5 s in all. A group between two generations, or a coordinator that
/// moves, needs less. After them the partitions are released, and records finished since the last
/// successful commit are delivered again.
const MAX_ATTEMPTS: u32 = 25;

/// Assignments that leave the ledger.
#[derive(Debug)]
pub(super) struct Leaving {
    assignments: BTreeSet<AssignmentId>,
    deadline: Instant,
    commits: bool,
    retry_at: Option<Instant>,
    attempts: u32,
}

/// What the assignments have left to commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remaining {
    /// Nothing is due.
    pub(super) clean: bool,
    /// A commit of one of them has failed.
    pub(super) failed: bool,
}

/// A commit that has no response yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    pub(super) sent: Instant,
    /// It holds offsets of these assignments.
    pub(super) concerns: bool,
}

/// What the committer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeavingStep {
    Wait,
    /// Commit what is due of these assignments, and only of these.
    Commit,
    Release,
    /// The commit stayed unanswered: fail the request.
    Fail,
}

impl Leaving {
    /// `commits`: what is finished is committed first. Otherwise nothing is.
    pub(super) fn new(assignments: BTreeSet<AssignmentId>, deadline: Instant, commits: bool) -> Self {
        Self { assignments, deadline, commits, retry_at: None, attempts: 0 }
    }

    pub(super) fn assignments(&self) -> &BTreeSet<AssignmentId> {
        &self.assignments
    }

    pub(super) fn commits(&self) -> bool {
        self.commits
    }

    /// When the committer has to check again. `sent`: since when a commit is outstanding. Until its
    /// response arrives there is nothing to try before the deadline, and after the deadline the
    /// response still has its timeout.
    pub(super) fn wake_at(&self, now: Instant, sent: Option<Instant>) -> Instant {
        match sent {
            None => self.retry_at.unwrap_or(self.deadline),
            Some(sent) if now >= self.deadline => self.deadline.max(sent + COMMIT_RESPONSE_TIMEOUT),
            Some(_) => self.deadline,
        }
    }

    /// Whether records are still in progress and have time. `settled`: none are in progress.
    pub(super) fn waits_for_records(&self, now: Instant, settled: bool) -> bool {
        self.commits && !settled && now < self.deadline
    }

    /// The next step once no record is waited for.
    pub(super) fn next_step(
        &mut self,
        now: Instant,
        remaining: Remaining,
        unanswered: Option<Unanswered>,
    ) -> LeavingStep {
        let clean = !self.commits || remaining.clean;
        if let Some(Unanswered { sent, concerns }) = unanswered {
            // Assignments that the commit does not concern wait too if they have something to
            // commit.
            let has_time = now < self.deadline.max(sent + COMMIT_RESPONSE_TIMEOUT);
            if has_time && (concerns || !clean) {
                return LeavingStep::Wait;
            }
            return if concerns { LeavingStep::Fail } else { LeavingStep::Release };
        }
        // Records that finished just before the deadline get one attempt, too.
        let limit = if now >= self.deadline { 1 } else { MAX_ATTEMPTS };
        if clean || self.attempts >= limit {
            return LeavingStep::Release;
        }
        match self.retry_at {
            None if remaining.failed => {
                self.retry_at = Some((now + RETRY_WAIT).min(self.deadline));
                LeavingStep::Wait
            }
            Some(at) if now < at => LeavingStep::Wait,
            _ => {
                self.retry_at = None;
                self.attempts += 1;
                LeavingStep::Commit
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(30);
    const DUE: Remaining = Remaining { clean: false, failed: false };
    const FAILED: Remaining = Remaining { clean: false, failed: true };
    const CLEAN: Remaining = Remaining { clean: true, failed: false };

    fn leaving(commits: bool) -> (Leaving, Instant) {
        let now = Instant::now();
        (Leaving::new([AssignmentId(1)].into(), now + DRAIN, commits), now)
    }

    fn unanswered(sent: Instant, concerns: bool) -> Option<Unanswered> {
        Some(Unanswered { sent, concerns })
    }

    #[test]
    fn records_in_progress_are_waited_for_until_the_deadline() {
        let (leaving, now) = leaving(true);
        assert!(leaving.waits_for_records(now, false));
        assert!(!leaving.waits_for_records(now, true));
        assert!(!leaving.waits_for_records(now + DRAIN, false));
        assert_eq!(leaving.wake_at(now, None), now + DRAIN);
    }

    #[test]
    fn finished_records_are_committed_before_the_release() {
        let (mut leaving, now) = leaving(true);
        assert_eq!(leaving.next_step(now, DUE, None), LeavingStep::Commit);
        assert_eq!(leaving.next_step(now, DUE, unanswered(now, true)), LeavingStep::Wait);
        assert_eq!(leaving.next_step(now, CLEAN, None), LeavingStep::Release);
    }

    #[test]
    fn lost_assignments_leave_without_a_commit() {
        let (mut leaving, now) = leaving(false);
        assert!(!leaving.waits_for_records(now, false));
        assert_eq!(leaving.next_step(now, DUE, None), LeavingStep::Release, "lost means uncommitted (C5)");
    }

    #[test]
    fn a_failed_commit_is_tried_again_after_a_wait() {
        let (mut leaving, now) = leaving(true);
        assert_eq!(leaving.next_step(now, FAILED, None), LeavingStep::Wait);
        assert_eq!(leaving.wake_at(now, None), now + RETRY_WAIT);
        assert_eq!(leaving.next_step(now + RETRY_WAIT / 2, FAILED, None), LeavingStep::Wait);
        assert_eq!(leaving.next_step(now + RETRY_WAIT, FAILED, None), LeavingStep::Commit);
    }

    #[test]
    fn attempts_of_a_last_commit_are_limited() {
        let (mut leaving, now) = leaving(true);
        for _ in 0..MAX_ATTEMPTS {
            assert_eq!(leaving.next_step(now, DUE, None), LeavingStep::Commit);
        }
        assert_eq!(leaving.next_step(now, DUE, None), LeavingStep::Release);
    }

    #[test]
    fn one_attempt_is_left_at_the_deadline() {
        let (mut leaving, now) = leaving(true);
        assert_eq!(leaving.next_step(now + DRAIN, DUE, None), LeavingStep::Commit);
        assert_eq!(leaving.next_step(now + DRAIN, DUE, None), LeavingStep::Release);
    }

    #[test]
    fn an_unanswered_commit_holds_the_release_until_its_timeout() {
        let (mut leaving, now) = leaving(true);
        let (deadline, sent) = (now + DRAIN, now + DRAIN - Duration::from_secs(1));
        let timeout = sent + COMMIT_RESPONSE_TIMEOUT;
        assert_eq!(
            leaving.next_step(deadline, CLEAN, unanswered(sent, true)),
            LeavingStep::Wait,
            "a commit without an answer holds the release (C8)"
        );
        assert_eq!(leaving.wake_at(now, Some(sent)), deadline);
        assert_eq!(leaving.wake_at(deadline, Some(sent)), timeout);
        assert_eq!(leaving.next_step(timeout, CLEAN, unanswered(sent, true)), LeavingStep::Fail);
    }

    #[test]
    fn an_unanswered_commit_of_others_holds_only_what_is_due() {
        let (mut leaving, now) = leaving(true);
        assert_eq!(leaving.next_step(now, CLEAN, unanswered(now, false)), LeavingStep::Release);
        assert_eq!(leaving.next_step(now, DUE, unanswered(now, false)), LeavingStep::Wait);
        let late = now + DRAIN;
        assert_eq!(leaving.next_step(late, DUE, unanswered(now, false)), LeavingStep::Release);
    }
}
