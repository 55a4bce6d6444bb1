//! Pauses partitions whose mapper is too slow for what comes, and resumes them when they have caught up.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Coordinator;
use super::pauses::Reason;
use super::session::{Running, Session};
use crate::util::ordered_watch;

/// How long a partition may hold up the others before its mapper is called slow: what a batch of fast mappers takes is less.
/// Pausing throws away what is prefetched, so it is the exception.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks at partitions that are over their share, or paused for it.
const LOOK: Duration = Duration::from_millis(50);

/// When to look again.
#[derive(Default)]
pub(super) struct Looks {
    next: Option<Instant>,
}

impl Looks {
    /// Pends until it is time to look at the partitions' shares. Cancel safe.
    pub(super) async fn due(&self, crowded: &mut ordered_watch::Receiver<bool>) {
        match self.next {
            Some(at) => sleep_until(at).await,
            None => crowded.wait_for(|crowded| *crowded).await,
        }
    }
}

impl Coordinator {
    pub(super) fn look_at_shares(&mut self, session: &mut Session) {
        let now = Instant::now();
        let mut again = self.setup.budget.backlogs().crowded().read(|crowded| *crowded);
        for partition in self.ownership.partitions() {
            let running =
                self.ownership.assignment(partition).and_then(|assignment| session.running(assignment));
            let Some(running) = running else { continue };
            let pausing = session.pauses.has(partition, Reason::Share);
            let pause = if pausing { !running.backlog.is_low() } else { is_slow(running, now) };
            again |= pause;
            session.pauses.set(partition, Reason::Share, pause);
        }
        session.looks.next = again.then(|| now + LOOK);
    }
}

/// Whether a partition holds up the others because its mapper is slow. A slow sink holds up all of them: pausing would not help.
fn is_slow(running: &Running, now: Instant) -> bool {
    let in_mapper = || running.pulse.read().state.is_in_mapper();
    running.backlog.over_since().is_some_and(|since| now.duration_since(since) >= PATIENCE) && in_mapper()
}
