//! Which leaders do not respond (L2). Pure: observations and times are passed in.
//!
//! A partition whose leader does not respond has no records and no error: the broker is down, or
//! advertises an address that no client reaches. Only a request shows it. kmr sends one for each
//! partition whose position has not changed for a while (`unread`).
//!
//! Invariants:
//! 1. The time counts from the first request without a response. A response, records or an excuse
//!    end it.
//! 2. There is one warning per leader, for all of its partitions. It comes again when the time has
//!    doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::unread::ReadUpTo;
use crate::graph::assignment::id::AssignmentId;
use crate::member::SilentLeader;
use crate::record::TopicPartition;

/// The shortest interval between two requests to a leader that does not respond.
const INTERVAL: Duration = Duration::from_secs(5);

/// A leader that does not respond, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    pub(crate) leader: SilentLeader,
    /// The offset that would be read next, if that is known.
    pub(crate) position: Option<i64>,
    pub(crate) age: Duration,
}

/// A leader whose silence has to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SilenceWarning {
    pub(crate) leader: SilentLeader,
    pub(crate) partitions: Vec<TopicPartition>,
    /// The longest of these partitions.
    pub(crate) age: Duration,
}

#[derive(Debug)]
struct Silent {
    partition: TopicPartition,
    position: Option<i64>,
    leader: SilentLeader,
    since: Instant,
}

/// The assignments whose leaders do not respond.
#[derive(Debug, Default)]
pub(crate) struct LeaderWatch {
    silent: BTreeMap<AssignmentId, Silent>,
    /// When the last request without a response was sent.
    sent: Option<Instant>,
    /// The age at which each leader is logged next. Only leaders that were logged.
    warn_at: BTreeMap<SilentLeader, Duration>,
}

impl LeaderWatch {
    /// Receives how far all assignments without an excuse are read.
    pub(crate) fn observe(&mut self, seen: &[ReadUpTo]) {
        if self.silent.is_empty() {
            return;
        }
        let position_of: BTreeMap<AssignmentId, Option<i64>> =
            seen.iter().map(|seen| (seen.assignment, seen.position)).collect();
        self.silent.retain(|assignment, silent| position_of.get(assignment) == Some(&silent.position));
    }

    /// The leader of an assignment did not respond to a request that was sent at `sent`.
    pub(crate) fn receive_silence(
        &mut self,
        (partition, requested): (&TopicPartition, ReadUpTo),
        leader: SilentLeader,
        sent: Instant,
    ) {
        let ReadUpTo { assignment, position } = requested;
        self.sent = Some(sent);
        let known = self.silent.get(&assignment).filter(|silent| silent.position == position);
        let since = known.map_or(sent, |silent| silent.since);
        self.silent.insert(assignment, Silent { partition: partition.clone(), position, leader, since });
    }

    /// The leader of an assignment has responded, or nothing is known of it.
    pub(crate) fn receive(&mut self, assignment: AssignmentId) {
        self.silent.remove(&assignment);
    }

    /// The assignments to request again now: those whose leaders have not responded.
    pub(crate) fn due(&self, now: Instant) -> Vec<ReadUpTo> {
        if self.sent.is_none_or(|sent| now.duration_since(sent) < INTERVAL) {
            return Vec::new();
        }
        let read_up_to = |(assignment, silent): (&AssignmentId, &Silent)| ReadUpTo {
            assignment: *assignment,
            position: silent.position,
        };
        self.silent.iter().map(read_up_to).collect()
    }

    /// Since when the leader of an assignment does not respond. `None`: it responds.
    pub(crate) fn silence(&self, assignment: AssignmentId, now: Instant) -> Option<Silence> {
        let Silent { position, leader, since, .. } = self.silent.get(&assignment)?;
        let age = now.duration_since(*since);
        Some(Silence { leader: leader.clone(), position: *position, age })
    }

    /// The leaders to log now. `warn_after`: how long a leader is silent before its first warning.
    pub(crate) fn warnings(&mut self, warn_after: Duration, now: Instant) -> Vec<SilenceWarning> {
        let mut warnings = BTreeMap::<SilentLeader, SilenceWarning>::new();
        for Silent { partition, leader, since, .. } in self.silent.values() {
            let warning = warnings.entry(leader.clone()).or_insert_with(|| SilenceWarning {
                leader: leader.clone(),
                partitions: Vec::new(),
                age: Duration::ZERO,
            });
            warning.partitions.push(partition.clone());
            warning.age = warning.age.max(now.duration_since(*since));
        }
        self.warn_at.retain(|leader, _| warnings.contains_key(leader));
        let due = |warning: &SilenceWarning| {
            warning.age >= self.warn_at.get(&warning.leader).copied().unwrap_or(warn_after)
        };
        let mut due: Vec<SilenceWarning> = warnings.into_values().filter(due).collect();
        for warning in &mut due {
            self.warn_at.insert(warning.leader.clone(), warning.age * 2);
            warning.partitions.sort();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch, its start, and the position of the assignments 0 and 1.
    struct Scene(LeaderWatch, Instant);

    fn read_up_to(assignment: u64, position: i64) -> ReadUpTo {
        ReadUpTo { assignment: AssignmentId(assignment), position: Some(position) }
    }

    fn broker(id: i32) -> SilentLeader {
        SilentLeader::Broker { id, address: format!("b{id}:9092").into() }
    }

    impl Scene {
        fn new() -> Self {
            Self(LeaderWatch::default(), Instant::now())
        }

        fn at(&self, second: u64) -> Instant {
            self.1 + Duration::from_secs(second)
        }

        /// A request that was sent at a second has no response.
        fn silent(&mut self, assignment: u64, leader: SilentLeader, sent: u64) {
            let partition = TopicPartition::new("t", i32::try_from(assignment).unwrap());
            let sent = self.at(sent);
            self.0.receive_silence((&partition, read_up_to(assignment, 7)), leader, sent);
        }

        fn age(&self, assignment: u64, second: u64) -> Option<u64> {
            let silence = self.0.silence(AssignmentId(assignment), self.at(second));
            silence.map(|silence| silence.age.as_secs())
        }

        /// The warnings of a second: each leader, its partitions and its age.
        fn warnings(&mut self, second: u64) -> Vec<(SilentLeader, Vec<i32>, u64)> {
            let now = self.at(second);
            let warnings = self.0.warnings(Duration::from_secs(30), now).into_iter();
            let numbers = |warning: &SilenceWarning| {
                warning.partitions.iter().map(TopicPartition::partition).collect::<Vec<_>>()
            };
            warnings
                .map(|warning| (warning.leader.clone(), numbers(&warning), warning.age.as_secs()))
                .collect()
        }
    }

    #[test]
    fn silence_counts_from_the_first_request_and_ends_with_a_response_records_or_an_excuse() {
        for ends in [
            (|watch| watch.receive(AssignmentId(0))) as fn(&mut LeaderWatch),
            |watch| watch.observe(&[read_up_to(0, 8), read_up_to(1, 7)]),
            |watch| watch.observe(&[read_up_to(1, 7)]),
        ] {
            let mut scene = Scene::new();
            scene.silent(0, broker(2), 5);
            scene.silent(1, broker(2), 5);
            scene.0.observe(&[read_up_to(0, 7), read_up_to(1, 7)]);
            scene.silent(0, SilentLeader::Unknown, 16);
            assert_eq!((scene.age(0, 25), scene.age(1, 25)), (Some(20), Some(20)));
            assert_eq!(scene.0.silence(AssignmentId(0), scene.at(25)).unwrap().leader, SilentLeader::Unknown);
            ends(&mut scene.0);
            assert_eq!((scene.age(0, 25), scene.age(1, 25)), (None, Some(20)));
            scene.silent(0, broker(2), 30);
            assert_eq!(scene.age(0, 31), Some(1), "the time starts again");
        }
    }

    #[test]
    fn a_leader_is_logged_once_for_all_partitions_and_again_when_the_time_has_doubled() {
        let mut scene = Scene::new();
        scene.silent(1, broker(2), 0);
        scene.silent(0, broker(2), 10);
        scene.silent(3, broker(3), 100);
        let seconds = 0..125;
        let found: Vec<_> = seconds.flat_map(|second| scene.warnings(second)).collect();
        let of_two = |age| (broker(2), vec![0, 1], age);
        assert_eq!(found, [of_two(30), of_two(60), of_two(120)]);
        assert_eq!(scene.warnings(130), [(broker(3), vec![3], 30)]);
        scene.0.observe(&[]);
        assert_eq!(scene.warnings(131), []);
        scene.silent(1, broker(2), 200);
        assert_eq!((scene.warnings(229), scene.warnings(230)), (vec![], vec![(broker(2), vec![1], 30)]));
    }

    #[test]
    fn silent_leaders_get_the_next_request_soon() {
        let mut scene = Scene::new();
        assert_eq!(scene.0.due(scene.at(0)), []);
        scene.silent(0, broker(2), 0);
        assert_eq!(scene.0.due(scene.at(4)), [], "the request of second 0");
        assert_eq!(scene.0.due(scene.at(5)), [read_up_to(0, 7)]);
        scene.silent(0, broker(2), 5);
        assert_eq!(scene.0.due(scene.at(9)), []);
        assert_eq!(scene.0.due(scene.at(15)), [read_up_to(0, 7)]);
    }
}
