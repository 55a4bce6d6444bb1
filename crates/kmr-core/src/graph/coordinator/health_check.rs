//! Looks at every partition once a second: what its oldest unfinished record waits for, and whether something has to be done (L2).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Coordinator;
use super::repositioning::{Wanted, Why};
use super::session::{Running, Session};
use super::supervision::Failed;
use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::commit::handle::{CommitterHandle, Settled};
use crate::graph::observe::activity::{PulseReading, PulseState};
use crate::graph::observe::status::StatusBoard;
use crate::graph::observe::watchdog::{Seen, Treatment};
use crate::health::PartitionHealth;
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::future::BoxFuture;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Stages that have delivered within this time get on: what waits in front of them has its turn coming.
const LULL: Duration = Duration::from_secs(60);

/// Pends until it is time for the next look, then says how far all assignments are.
pub(super) fn next_look(committer: CommitterHandle) -> BoxFuture<'static, Vec<Settled>> {
    Box::pin(async move {
        sleep(EVERY).await;
        committer.report().await
    })
}

/// A partition that does not get on.
#[derive(Clone, Debug)]
pub(super) struct StuckAt {
    pub(super) offset: i64,
    pub(super) age: Duration,
    pub(super) waits_for: String,
}

impl StuckAt {
    pub(super) fn error(self, partition: TopicPartition) -> Error {
        let Self { offset, age, waits_for } = self;
        Error::Stuck { partition, offset, age, waits_for }
    }
}

/// What one partition waits for.
struct Found {
    /// The oldest record that is read and not finished, and since when.
    oldest: Option<(i64, Instant)>,
    waits_for: String,
    excused: bool,
}

impl Coordinator {
    /// # Errors
    /// A partition is stuck, and the last treatment is due.
    pub(super) fn examine(&mut self, session: &mut Session, states: &[Settled]) -> Result<(), Failed> {
        let (now, board) = (Instant::now(), self.controls.board.clone());
        Self::look_at_reforms(session, states);
        let states: BTreeMap<AssignmentId, &Settled> =
            states.iter().map(|state| (state.epoch, state)).collect();
        let thresholds = self.setup.options.thresholds;
        let mut partitions = BTreeMap::new();
        let mut due = Vec::new();
        for assignment in self.ownership.assignments() {
            let Some(running) = session.running(assignment) else { continue };
            let (partition, state) = (&assignment.partition, states.get(&assignment.id).copied());
            let found = find(&board, running, state, now);
            let oldest = found.oldest.map(|(offset, since)| (offset, now.duration_since(since)));
            let seen = Seen {
                oldest,
                committed: state.and_then(|state| state.committed),
                excused: found.excused || session.is_busy(partition) || session.will_move(partition),
            };
            let verdict = self.watchdog.judge(partition, seen, thresholds, now);
            let (offset, age) = oldest.unwrap_or_default();
            if verdict.warn {
                telemetry::partition_late(partition, offset, age, &found.waits_for);
            }
            if let Some(treatment) = verdict.treatment {
                let stuck = StuckAt { offset, age, waits_for: found.waits_for.clone() };
                due.push((treatment, partition.clone(), stuck));
            }
            let health = PartitionHealth {
                oldest_unfinished: oldest.map(|(offset, _)| offset),
                age,
                waits_for: oldest.map(|_| found.waits_for),
                paused: session.pauses.wants(partition),
                late: age >= thresholds.warn_after,
            };
            partitions.insert(partition.clone(), health);
        }
        board.publish(|health| (health.connected, health.partitions) = (true, partitions));
        // What is more than a restart is done for all of them at once.
        due.sort_by_key(|(treatment, ..)| Reverse(*treatment));
        due.into_iter().try_for_each(|(treatment, partition, stuck)| {
            self.treat(session, partition, treatment, stuck) //
        })
    }

    fn treat(
        &self,
        session: &mut Session,
        partition: TopicPartition,
        treatment: Treatment,
        stuck: StuckAt,
    ) -> Result<(), Failed> {
        match treatment {
            Treatment::RestartPartition => {
                telemetry::partition_restarts(&partition, stuck.offset, stuck.age, &stuck.waits_for);
                session.wanted.push(Wanted { partition, why: Why::Heal(stuck) });
                Ok(())
            }
            Treatment::NewClient => Err(Failed::Client(stuck.error(partition))),
            Treatment::End => Err(Failed::Task(stuck.error(partition))),
        }
    }
}

fn find(board: &StatusBoard, running: &Running, state: Option<&Settled>, now: Instant) -> Found {
    let reading = running.pulse.read();
    let tracked = state.and_then(|state| Some((state.unfinished_from?, state.unfinished_since?)));
    let mapped =
        reading.offset.filter(|_| reading.state.is_in_mapper()).map(|offset| (offset, reading.since));
    match (tracked, mapped) {
        (Some(tracked), Some(mapped)) if mapped.1 < tracked.1 => found_in_mapper(mapped, &reading),
        (None, Some(mapped)) => found_in_mapper(mapped, &reading),
        (Some(tracked), _) => {
            let given_up = state.is_some_and(|state| state.given_up);
            found_behind((tracked, given_up), &reading, board, running.assignment.id, now)
        }
        (None, None) => Found { oldest: None, waits_for: String::new(), excused: false },
    }
}

fn found_in_mapper(oldest: (i64, Instant), reading: &PulseReading) -> Found {
    let excused = matches!(reading.state, PulseState::Retrying { .. });
    Found { oldest: Some(oldest), waits_for: reading.to_string(), excused }
}

/// The record is mapped: it is in a batch, or on its way into one, or nobody holds it any more.
fn found_behind(
    (oldest, given_up): ((i64, Instant), bool),
    reading: &PulseReading,
    board: &StatusBoard,
    epoch: AssignmentId,
    now: Instant,
) -> Found {
    let oldest = Some(oldest);
    if given_up {
        // Whatever else of the partition is under way: only a restart reads it again.
        let waits_for = "nothing: it was given up by the stage that held it".to_owned();
        return Found { oldest, waits_for, excused: false };
    }
    if let Some(delivery) = board.delivery_of(epoch) {
        return Found { oldest, waits_for: delivery.to_string(), excused: true };
    }
    if let Some(other) = board.oldest_delivery() {
        return Found { oldest, waits_for: format!("its turn behind {other}"), excused: true };
    }
    let waits_for = match reading.state {
        PulseState::HandingOver { .. } => reading.to_string(),
        _ => "a batch that is not due yet".to_owned(),
    };
    // Between two deliveries of a slow sink nothing is stuck.
    let excused = board.quiet_for(now).is_some_and(|quiet| quiet < LULL);
    Found { oldest, waits_for, excused }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;
    use crate::graph::observe::activity::Activity;
    use crate::stage::Stage;

    #[tokio::test(start_paused = true)]
    async fn deliveries_excuse_what_waits_for_its_turn_and_not_what_was_given_up() {
        let (board, pulse) = (Arc::<StatusBoard>::default(), Activity::default());
        let look = |given_up: bool| {
            let now = Instant::now();
            let found = found_behind(((7, now), given_up), &pulse.read(), &board, AssignmentId(1), now);
            (found.excused, found.waits_for)
        };
        assert_eq!(look(false), (false, "a batch that is not due yet".to_owned()));
        let own = board.delivery(Stage::new("reduce", 1), [AssignmentId(1)].into());
        assert_eq!(look(false), (true, "reduce 1 attempt 1, 0 s".to_owned()));
        assert!(!look(true).0, "a later record is in the batch");
        drop(own);
        let other = board.delivery(Stage::new("reduce", 1), [AssignmentId(2)].into());
        assert_eq!(look(false), (true, "its turn behind reduce 1 attempt 1, 0 s".to_owned()));
        assert!(!look(true).0);
        drop(other);
        pulse.waiting(PulseState::HandingOver { to: Stage::new("reduce", 1) }, 9);
        assert_eq!(
            look(false),
            (true, "waiting for reduce 1 to take what is mapped up to offset 9".to_owned())
        );
        advance(LULL).await;
        assert!(!look(false).0, "nothing moves");
    }
}
