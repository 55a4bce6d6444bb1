//! Pauses partitions whose slow mapper fills their fair share, and resumes them later.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Coordinator;
use super::pauses::Reason;
use super::session::{PartitionTask, Session};
use crate::util::ordered_watch;

/// A mapper that blocks the other partitions for so long counts as slow. A batch of a fast mapper
/// needs less. Pausing discards prefetched records, so it is the exception.
const SLOW_AFTER: Duration = Duration::from_millis(250);
/// Interval of checks while a partition is over its fair share, or paused for it.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// When the next check is due.
#[derive(Default)]
pub(super) struct ShareChecks {
    next: Option<Instant>,
}

impl ShareChecks {
    /// Pends until the next check is due. Cancel safe.
    pub(super) async fn due(&self, crowded: &mut ordered_watch::Receiver<bool>) {
        match self.next {
            Some(at) => sleep_until(at).await,
            None => crowded.wait_for(|crowded| *crowded).await,
        }
    }
}

impl Coordinator {
    /// Pauses partitions with slow mappers, and resumes those whose backlog is low again.
    pub(super) fn check_shares(&mut self, session: &mut Session) {
        let now = Instant::now();
        let mut again = self.setup.budget.backlogs().crowded().read(|crowded| *crowded);
        for partition in self.ownership.partitions() {
            let task = self.ownership.assignment(partition).and_then(|assignment| session.task(assignment));
            let Some(task) = task else { continue };
            let pausing = session.pauses.has(partition, Reason::FairShare);
            let pause = if pausing { !task.backlog.is_low() } else { is_slow(task, now) };
            again |= pause;
            session.pauses.set(partition, Reason::FairShare, pause);
        }
        session.share_checks.next = again.then(|| now + CHECK_INTERVAL);
    }
}

/// Whether a slow mapper of the partition blocks the others. A slow sink blocks all of them, so
/// that pausing would not help.
fn is_slow(task: &PartitionTask, now: Instant) -> bool {
    let in_mapper = || task.activity.read().state.is_in_mapper();
    task.backlog.over_since().is_some_and(|since| now.duration_since(since) >= SLOW_AFTER) && in_mapper()
}
