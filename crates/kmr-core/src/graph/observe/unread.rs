//! Which partitions have records that are not read (L2). Pure: observations and times are passed
//! in.
//!
//! A partition may stop being read without an error and without an unfinished record: a fetcher of
//! librdkafka that has ended, a lost wake-up. Only the end of its log shows it. So kmr requests the
//! ends of the logs of partitions whose position has not changed for a while.
//!
//! A partition has an excuse if kmr knows why it is not read, such as a pause (`log_check`).
//!
//! Invariants:
//! 1. Records are unread only after two responses, with the same position in between. Their age is
//!    the time between the first of these responses and the last.
//! 2. After a change of the position, a new assignment, an excuse or a request without a response,
//!    the count of responses starts again.
//! 3. A response counts only if the fetch queue was empty once since the response before.
//!    Otherwise the records of the partition may be waiting in it.
//! 4. One request is for all partitions, and there is one per interval at most.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::graph::assignment::id::AssignmentId;
use crate::member::LogReach;

/// The usual interval between two requests.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest interval.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between two requests: two of them fit into the time until a warning.
pub(crate) fn interval(warn_after: Duration) -> Duration {
    (warn_after / 2).clamp(LEAST_INTERVAL, INTERVAL)
}

/// How far an assignment is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadUpTo {
    pub(crate) assignment: AssignmentId,
    /// The offset after the last record that a map task received. `None`: the lowest in the log.
    pub(crate) position: Option<i64>,
}

/// Records that are in the log and are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnreadRecords {
    /// The first offset that is not fetched.
    pub(crate) from: i64,
    /// The end of the log.
    pub(crate) end: i64,
    /// How long they have been known to be unread: invariant 1.
    pub(crate) age: Duration,
}

/// The position of an assignment, and what is known of its log.
#[derive(Debug)]
struct Watched {
    position: Option<i64>,
    /// Since when it has been the position, without an excuse.
    since: Instant,
    unread: Option<Unread>,
}

/// What the responses have shown.
#[derive(Clone, Copy, Debug)]
struct Unread {
    from: i64,
    end: i64,
    first: Instant,
    last: Instant,
}

/// The positions of all assignments of a client, and what is known of their logs.
#[derive(Debug, Default)]
pub(crate) struct UnreadWatch {
    watched: BTreeMap<AssignmentId, Watched>,
    requested_at: Option<Instant>,
}

impl UnreadWatch {
    /// Receives how far all assignments without an excuse are read.
    pub(crate) fn observe(&mut self, seen: impl IntoIterator<Item = ReadUpTo>, now: Instant) {
        let mut before = std::mem::take(&mut self.watched);
        for ReadUpTo { assignment, position } in seen {
            let same = before.remove(&assignment).filter(|watched| watched.position == position);
            let watched = same.unwrap_or(Watched { position, since: now, unread: None });
            self.watched.insert(assignment, watched);
        }
    }

    /// The assignments to request the ends of the logs for now.
    pub(crate) fn due(&mut self, interval: Duration, now: Instant) -> Vec<ReadUpTo> {
        if self.requested_at.is_some_and(|at| now.duration_since(at) < interval) {
            return Vec::new();
        }
        let quiet = |watched: &Watched| now.duration_since(watched.since) >= interval;
        let due = self.watched.iter().filter(|(_, watched)| quiet(watched));
        let due = due.map(|(id, watched)| ReadUpTo { assignment: *id, position: watched.position });
        let due: Vec<ReadUpTo> = due.collect();
        if !due.is_empty() {
            self.requested_at = Some(now);
        }
        due
    }

    /// Receives the response for one assignment. `was_empty`: invariant 3.
    pub(crate) fn receive(&mut self, requested: ReadUpTo, reach: LogReach, was_empty: bool, now: Instant) {
        let ReadUpTo { assignment, position } = requested;
        let Some(watched) = self.watched.get_mut(&assignment) else { return };
        // A position that is younger than the request is another one, or was excused meanwhile.
        let is_current = watched.position == position && Some(watched.since) < self.requested_at;
        if !is_current || reach.fetched >= reach.end {
            watched.unread = None;
        } else if was_empty {
            let LogReach { end, fetched: from } = reach;
            let known = watched.unread.filter(|unread| unread.from == from);
            let first = known.map_or(now, |unread| unread.first);
            watched.unread = Some(Unread { from, end, first, last: now });
        }
    }

    /// There is no response for an assignment, as when its leader is unavailable.
    pub(crate) fn receive_nothing(&mut self, requested: ReadUpTo) {
        if let Some(watched) = self.watched.get_mut(&requested.assignment) {
            watched.unread = None;
        }
    }

    /// The records of an assignment that are in its log and are not read.
    pub(crate) fn unread(&self, assignment: AssignmentId) -> Option<UnreadRecords> {
        let Unread { from, end, first, last } = self.watched.get(&assignment)?.unread?;
        let age = last.duration_since(first);
        (age > Duration::ZERO).then_some(UnreadRecords { from, end, age })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = 30;
    const ID: AssignmentId = AssignmentId(1);

    /// A watch of one assignment, and the seconds since it was started.
    struct Scene(UnreadWatch, Instant, u64);

    impl Scene {
        fn new() -> Self {
            Self(UnreadWatch::default(), Instant::now(), 0)
        }

        fn now(&self) -> Instant {
            self.1 + Duration::from_secs(self.2)
        }

        /// Observes the position each second. Every request has a response at once. Returns the
        /// number of requests.
        fn run(&mut self, seconds: u64, position: i64, reach: LogReach, was_empty: bool) -> u32 {
            let mut requests = 0;
            for _ in 0..seconds {
                self.2 += 1;
                let (seen, now) = (ReadUpTo { assignment: ID, position: Some(position) }, self.now());
                self.0.observe([seen], now);
                for due in self.0.due(Duration::from_secs(HALF), now) {
                    requests += 1;
                    self.0.receive(due, reach, was_empty, now);
                }
            }
            requests
        }

        fn age(&self) -> Option<u64> {
            self.0.unread(ID).map(|unread| unread.age.as_secs())
        }
    }

    fn reach(fetched: i64, end: i64) -> LogReach {
        LogReach { end, fetched }
    }

    #[test]
    fn records_are_unread_after_two_responses_with_the_same_position() {
        let mut scene = Scene::new();
        assert_eq!(scene.run(30, 7, reach(7, 9), true), 0, "the position is new");
        assert_eq!((scene.run(1, 7, reach(7, 9), true), scene.age()), (1, None), "one response");
        assert_eq!((scene.run(30, 7, reach(7, 12), true), scene.age()), (1, Some(30)));
        let unread = scene.0.unread(ID).unwrap();
        assert_eq!((unread.from, unread.end), (7, 12));
        assert_eq!((scene.run(300, 7, reach(7, 12), true), scene.age()), (10, Some(330)));
    }

    #[test]
    fn a_position_that_changes_starts_the_count_again() {
        let mut scene = Scene::new();
        scene.run(91, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(60));
        assert_eq!((scene.run(1, 8, reach(8, 90), true), scene.age()), (0, None));
        // There is no request for a partition whose records keep coming.
        let requests: u32 =
            (9..300).map(|position| scene.run(29, position, reach(position, 900), true)).sum();
        assert_eq!((requests, scene.age()), (0, None));
    }

    #[test]
    fn an_excuse_starts_the_count_again() {
        let mut scene = Scene::new();
        scene.run(91, 7, reach(7, 90), true);
        scene.0.observe([], scene.now());
        assert_eq!(scene.age(), None, "paused");
        assert_eq!(scene.run(30, 7, reach(7, 90), true), 0);
        scene.run(1, 7, reach(7, 90), true);
        assert_eq!(scene.age(), None, "one response since the excuse");
    }

    #[test]
    fn a_request_without_a_response_starts_the_count_again() {
        let mut scene = Scene::new();
        scene.run(91, 7, reach(7, 90), true);
        scene.0.receive_nothing(ReadUpTo { assignment: ID, position: Some(7) });
        assert_eq!(scene.age(), None, "the leader does not respond");
        scene.run(30, 7, reach(7, 90), true);
        assert_eq!(scene.age(), None, "one response since then");
        scene.run(30, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(30));
    }

    #[test]
    fn a_response_to_a_request_before_an_excuse_does_not_count() {
        let mut scene = Scene::new();
        scene.run(30, 7, reach(7, 90), true);
        let seen = ReadUpTo { assignment: ID, position: Some(7) };
        scene.2 += 1;
        scene.0.observe([seen], scene.now());
        let due = scene.0.due(Duration::from_secs(HALF), scene.now());
        scene.2 += 1;
        scene.0.observe([], scene.now());
        scene.0.observe([seen], scene.now());
        scene.0.receive(due[0], reach(7, 90), true, scene.now());
        scene.2 += 1;
        scene.0.receive(due[0], reach(7, 90), true, scene.now());
        assert_eq!(scene.age(), None);
    }

    #[test]
    fn offsets_without_records_that_the_client_has_fetched_are_read() {
        let mut scene = Scene::new();
        // Transaction markers: the position of the records stays below the end of the log.
        scene.run(300, 7, reach(8, 8), true);
        assert_eq!(scene.age(), None);
        // The client goes on fetching markers, and each response finds it one offset below the end.
        for fetched in 8..20 {
            scene.run(30, 7, reach(fetched, fetched + 1), true);
            assert_eq!(scene.age(), None, "the client fetches");
        }
        scene.run(60, 7, reach(20, 21), true);
        assert_eq!(scene.age(), Some(30), "the client fetches no more");
        scene.run(30, 7, reach(21, 21), true);
        assert_eq!(scene.age(), None);
    }

    #[test]
    fn records_may_wait_while_the_fetch_queue_is_never_empty() {
        let mut scene = Scene::new();
        scene.run(900, 7, reach(7, 90), false);
        assert_eq!(scene.age(), None);
        scene.run(90, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(60));
        scene.run(60, 7, reach(7, 90), false);
        assert_eq!(scene.age(), Some(60), "it neither counts nor starts the count again");
        scene.run(30, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(150));
    }

    #[test]
    fn one_request_is_for_all_quiet_partitions() {
        let (mut watch, start) = (UnreadWatch::default(), Instant::now());
        let seen = |assignment| ReadUpTo { assignment: AssignmentId(assignment), position: None };
        let mut requested = Vec::new();
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            // They become quiet one after the other.
            watch.observe((0..1000).filter(|id| second >= id / 20).map(seen), now);
            requested.push(watch.due(Duration::from_secs(HALF), now).len());
        }
        let requested: Vec<usize> = requested.into_iter().filter(|count| *count > 0).collect();
        assert_eq!(requested, [20, 620, 1000, 1000][..requested.len()], "one request in 30 s");
        assert_eq!(requested.len(), 3);
    }

    #[test]
    fn two_requests_fit_into_the_time_until_a_warning() {
        let seconds = Duration::from_secs;
        assert_eq!(interval(seconds(60)), seconds(30));
        assert_eq!(interval(seconds(3600)), seconds(30));
        assert_eq!(interval(seconds(10)), seconds(5));
        assert_eq!(interval(Duration::ZERO), seconds(1));
    }
}
