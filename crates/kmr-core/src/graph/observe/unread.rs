//! Which partitions have records that are not read (L2). Pure: observations and times are passed
//! in.
//!
//! A partition may stop being read without an error and without an unfinished record: a fetcher of
//! librdkafka that has ended, a lost wake-up. Only the end of its log shows it. So the brokers are
//! asked for the ends of the logs of partitions whose position has not changed for a while.
//!
//! Invariants:
//! 1. Records are unread only after two answers, with the same position in between. Their age is
//!    the time between the first of these answers and the last.
//! 2. A change of the position, a new assignment, an excuse and a question without an answer begin
//!    anew.
//! 3. An answer counts only if the fetch queue was empty once since the answer before. Otherwise
//!    the records of the partition may be waiting for their turn.
//! 4. One question is for all partitions, and there is one per interval at most.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::graph::assignment::id::AssignmentId;
use crate::member::LogReach;

/// The usual interval between two questions.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest interval.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between two questions: two of them fit into the time until a warning.
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
    /// How long this is known.
    pub(crate) age: Duration,
}

#[derive(Debug)]
struct Reading {
    position: Option<i64>,
    /// Since when it has been the position, without an excuse.
    since: Instant,
    unread: Option<Unread>,
}

/// What the answers have shown.
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
    readings: BTreeMap<AssignmentId, Reading>,
    asked_at: Option<Instant>,
}

impl UnreadWatch {
    /// Receives how far all assignments without an excuse are read.
    pub(crate) fn observe(&mut self, seen: impl IntoIterator<Item = ReadUpTo>, now: Instant) {
        let mut before = std::mem::take(&mut self.readings);
        for ReadUpTo { assignment, position } in seen {
            let same = before.remove(&assignment).filter(|reading| reading.position == position);
            let reading = same.unwrap_or(Reading { position, since: now, unread: None });
            self.readings.insert(assignment, reading);
        }
    }

    /// The assignments to ask for now.
    pub(crate) fn ask(&mut self, interval: Duration, now: Instant) -> Vec<ReadUpTo> {
        if self.asked_at.is_some_and(|asked| now.duration_since(asked) < interval) {
            return Vec::new();
        }
        let quiet = |reading: &Reading| now.duration_since(reading.since) >= interval;
        let due = self.readings.iter().filter(|(_, reading)| quiet(reading));
        let due = due.map(|(id, reading)| ReadUpTo { assignment: *id, position: reading.position });
        let due: Vec<ReadUpTo> = due.collect();
        if !due.is_empty() {
            self.asked_at = Some(now);
        }
        due
    }

    /// Receives the answer for one assignment. `was_empty`: invariant 3.
    pub(crate) fn answered(&mut self, asked: ReadUpTo, reach: LogReach, was_empty: bool, now: Instant) {
        let ReadUpTo { assignment, position } = asked;
        let Some(reading) = self.readings.get_mut(&assignment) else { return };
        // A position that is younger than the question is another one, or was excused meanwhile.
        let is_current = reading.position == position && Some(reading.since) < self.asked_at;
        if !is_current || reach.fetched >= reach.end {
            reading.unread = None;
        } else if was_empty {
            let LogReach { end, fetched: from } = reach;
            let known = reading.unread.filter(|unread| unread.from == from);
            let first = known.map_or(now, |unread| unread.first);
            reading.unread = Some(Unread { from, end, first, last: now });
        }
    }

    /// The client knows nothing of an assignment, as when its leader does not respond.
    pub(crate) fn unanswered(&mut self, asked: ReadUpTo) {
        if let Some(reading) = self.readings.get_mut(&asked.assignment) {
            reading.unread = None;
        }
    }

    /// The records of an assignment that are in its log and are not read.
    pub(crate) fn unread(&self, assignment: AssignmentId) -> Option<UnreadRecords> {
        let Unread { from, end, first, last } = self.readings.get(&assignment)?.unread?;
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

        /// Each second the position is observed. Every question is answered at once.
        fn run(&mut self, seconds: u64, position: i64, reach: LogReach, was_empty: bool) -> u32 {
            let mut questions = 0;
            for _ in 0..seconds {
                self.2 += 1;
                let (seen, now) = (ReadUpTo { assignment: ID, position: Some(position) }, self.now());
                self.0.observe([seen], now);
                for asked in self.0.ask(Duration::from_secs(HALF), now) {
                    questions += 1;
                    self.0.answered(asked, reach, was_empty, now);
                }
            }
            questions
        }

        fn age(&self) -> Option<u64> {
            self.0.unread(ID).map(|unread| unread.age.as_secs())
        }
    }

    fn reach(fetched: i64, end: i64) -> LogReach {
        LogReach { end, fetched }
    }

    #[test]
    fn records_are_unread_after_two_answers_with_the_same_position() {
        let mut scene = Scene::new();
        assert_eq!(scene.run(30, 7, reach(7, 9), true), 0, "the position is new");
        assert_eq!((scene.run(1, 7, reach(7, 9), true), scene.age()), (1, None), "one answer");
        assert_eq!((scene.run(30, 7, reach(7, 12), true), scene.age()), (1, Some(30)));
        let unread = scene.0.unread(ID).unwrap();
        assert_eq!((unread.from, unread.end), (7, 12));
        assert_eq!((scene.run(300, 7, reach(7, 12), true), scene.age()), (10, Some(330)));
    }

    #[test]
    fn a_position_that_changes_begins_anew() {
        let mut scene = Scene::new();
        scene.run(91, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(60));
        assert_eq!((scene.run(1, 8, reach(8, 90), true), scene.age()), (0, None));
        // A partition whose records keep coming is never asked for.
        let asked: u32 = (9..300).map(|position| scene.run(29, position, reach(position, 900), true)).sum();
        assert_eq!((asked, scene.age()), (0, None));
    }

    #[test]
    fn an_excuse_begins_anew() {
        let mut scene = Scene::new();
        scene.run(91, 7, reach(7, 90), true);
        scene.0.observe([], scene.now());
        assert_eq!(scene.age(), None, "paused");
        assert_eq!(scene.run(30, 7, reach(7, 90), true), 0);
        scene.run(1, 7, reach(7, 90), true);
        assert_eq!(scene.age(), None, "one answer since the excuse");
    }

    #[test]
    fn a_question_without_an_answer_begins_anew() {
        let mut scene = Scene::new();
        scene.run(91, 7, reach(7, 90), true);
        scene.0.unanswered(ReadUpTo { assignment: ID, position: Some(7) });
        assert_eq!(scene.age(), None, "the leader does not respond");
        scene.run(30, 7, reach(7, 90), true);
        assert_eq!(scene.age(), None, "one answer since then");
        scene.run(30, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(30));
    }

    #[test]
    fn an_answer_to_a_question_before_an_excuse_does_not_count() {
        let mut scene = Scene::new();
        scene.run(30, 7, reach(7, 90), true);
        let seen = ReadUpTo { assignment: ID, position: Some(7) };
        scene.2 += 1;
        scene.0.observe([seen], scene.now());
        let asked = scene.0.ask(Duration::from_secs(HALF), scene.now());
        scene.2 += 1;
        scene.0.observe([], scene.now());
        scene.0.observe([seen], scene.now());
        scene.0.answered(asked[0], reach(7, 90), true, scene.now());
        scene.2 += 1;
        scene.0.answered(asked[0], reach(7, 90), true, scene.now());
        assert_eq!(scene.age(), None);
    }

    #[test]
    fn offsets_without_records_that_the_client_has_fetched_are_read() {
        let mut scene = Scene::new();
        // Transaction markers: the position of the records stays below the end of the log.
        scene.run(300, 7, reach(8, 8), true);
        assert_eq!(scene.age(), None);
        // The client goes on fetching markers, and each answer finds it one offset below the end.
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
    fn records_may_wait_for_their_turn_while_the_fetch_queue_is_never_empty() {
        let mut scene = Scene::new();
        scene.run(900, 7, reach(7, 90), false);
        assert_eq!(scene.age(), None);
        scene.run(90, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(60));
        scene.run(60, 7, reach(7, 90), false);
        assert_eq!(scene.age(), Some(60), "it neither counts nor begins anew");
        scene.run(30, 7, reach(7, 90), true);
        assert_eq!(scene.age(), Some(150));
    }

    #[test]
    fn all_quiet_partitions_are_asked_for_at_once() {
        let (mut watch, start) = (UnreadWatch::default(), Instant::now());
        let seen = |assignment| ReadUpTo { assignment: AssignmentId(assignment), position: None };
        let mut asked = Vec::new();
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            // They become quiet one after the other.
            watch.observe((0..1000).filter(|id| second >= id / 20).map(seen), now);
            asked.push(watch.ask(Duration::from_secs(HALF), now).len());
        }
        let asked: Vec<usize> = asked.into_iter().filter(|asked| *asked > 0).collect();
        assert_eq!(asked, [20, 620, 1000, 1000][..asked.len()], "one question in 30 s");
        assert_eq!(asked.len(), 3);
    }

    #[test]
    fn two_questions_fit_into_the_time_until_a_warning() {
        let seconds = Duration::from_secs;
        assert_eq!(interval(seconds(60)), seconds(30));
        assert_eq!(interval(seconds(3600)), seconds(30));
        assert_eq!(interval(seconds(10)), seconds(5));
        assert_eq!(interval(Duration::ZERO), seconds(1));
    }
}
