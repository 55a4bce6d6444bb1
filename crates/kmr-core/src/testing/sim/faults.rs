//! Faults that some schedules have in addition. Each kind draws from a random number generator of
//! its own, so that a new kind does not change the schedules of the others.

use std::time::Duration;

use super::rng::Rng;
use super::schedule::{Action, CommitFault, PROCESSES, ReadFault, Schedule, SinkFault};

impl Schedule {
    /// When the last action is.
    pub(super) fn end(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// Adds actions at their times.
    pub(super) fn add(&mut self, steps: impl IntoIterator<Item = (Duration, Action)>) {
        self.steps.extend(steps);
        self.steps.sort_by_key(|(at, _)| *at);
    }

    /// Sometimes retention removes records that were read and wait for a slow sink. Then a member
    /// finds its position out of range while it holds records of the partition.
    pub(super) fn add_truncation(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x7C);
        if !rng.chance(10) {
            return;
        }
        let end = self.end();
        let (at, partition) = (rng.time(end), rng.below(self.partitions));
        let produce = |records| Action::Produce { topic: 0, partition, records, gap: 0 };
        let fault = if rng.chance(70) { SinkFault::Slow } else { SinkFault::Fail };
        let slow = Action::Sinks { fault, time: rng.time(Duration::from_secs(30)) };
        let before = produce(rng.between(60, 200));
        let cut = at + rng.time(Duration::from_secs(4));
        let truncate = Action::Truncate { topic: 0, partition, percent: rng.between(60, 100) };
        self.add([(at, slow), (at, before), (cut, truncate), (cut, produce(rng.between(1, 20)))]);
    }

    /// Sometimes a partition cannot be read, or calls of the clients fail.
    pub(super) fn add_client_faults(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0xCA);
        let end = self.end();
        if rng.chance(8) {
            let (topic, partition) = (usize::from(rng.chance(30)), rng.below(self.partitions));
            let fault = if rng.chance(70) { ReadFault::Corrupt } else { ReadFault::Unauthorized };
            self.add([(rng.time(end), Action::Unreadable { topic, partition, fault })]);
        }
        if rng.chance(8) {
            let time = rng.time(Duration::from_secs(30));
            self.add([(rng.time(end), Action::FailingCalls { time })]);
        }
    }

    /// Sometimes the credentials of processes change.
    pub(super) fn add_renewals(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x4E57);
        if !rng.chance(25) {
            return;
        }
        let end = self.end();
        for _ in 0..rng.between(1, 4) {
            let process = if rng.chance(60) { 0 } else { rng.below(PROCESSES) };
            self.add([(rng.time(end), Action::Renew { process })]);
        }
    }

    /// Sometimes a client receives no events of the group any more, while records arrive.
    pub(super) fn add_deafness(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0xDEAF);
        if !rng.chance(8) {
            return;
        }
        let end = self.end();
        let at = rng.time(end);
        let process = if rng.chance(70) { 0 } else { rng.below(PROCESSES) };
        self.add([(at, Action::Deaf { process })]);
        for _ in 0..rng.between(1, 3) {
            let (partition, records) = (rng.below(self.partitions), rng.between(1, 40));
            let produce = Action::Produce { topic: 0, partition, records, gap: 0 };
            self.add([(at + rng.time(Duration::from_secs(60)), produce)]);
        }
    }

    /// Sometimes a client no longer fetches a partition, and its log grows.
    pub(super) fn add_silence(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x51);
        if !rng.chance(8) {
            return;
        }
        let end = self.end();
        let (at, topic, partition) = (rng.time(end), usize::from(rng.chance(30)), rng.below(self.partitions));
        let produce = Action::Produce { topic, partition, records: rng.between(1, 20), gap: 0 };
        let later = at + rng.time(Duration::from_secs(10));
        self.add([(at, Action::Silence { topic, partition }), (later, produce)]);
    }

    /// Sometimes the response to a commit is an error although the commit has taken effect, or the
    /// principal may not commit for a while.
    pub(super) fn add_commit_faults(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0xC0);
        for (percent, fault, longest) in [(12, CommitFault::Applied, 20), (6, CommitFault::Rejected, 5)] {
            if rng.chance(percent) {
                let time = rng.time(Duration::from_secs(longest));
                let at = rng.time(self.end());
                self.add([(at, Action::Commits { fault, time })]);
            }
        }
    }

    /// Sometimes a process runs up to the end of each log, or up to a time. It does so again later.
    pub(super) fn add_bounded_runs(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0xB0);
        if !rng.chance(15) {
            return;
        }
        let end = self.end();
        let alone = rng.chance(50);
        for process in 0..rng.between(1, PROCESSES) {
            let until = rng.chance(40).then(|| rng.time(end));
            let at = if alone && process == 0 { Duration::ZERO } else { rng.time(end) };
            self.add([(at, Action::StartBounded { process, until })]);
        }
        if alone {
            // The first process starts bounded.
            self.steps.retain(|(at, action)| *at > Duration::ZERO || *action != Action::Start { process: 0 });
        }
    }

    /// Sometimes partitions without a committed offset start at a time.
    pub(super) fn choose_start(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x57A7);
        if !self.metadata && rng.chance(10) {
            self.start_at = Some(rng.time(self.end()));
        }
    }

    /// In some runs, adds commits without a response while records keep arriving, and kills all
    /// processes before the last copies have arrived.
    pub(super) fn add_late_commits(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x0E11);
        if !rng.chance(30) {
            return;
        }
        let end = self.end();
        let at = rng.time(end.max(Duration::from_millis(1)));
        let fault = Action::Commits { fault: CommitFault::Lost, time: Duration::from_secs(4) };
        let mut steps = vec![(at, fault)];
        let partition = rng.below(self.partitions);
        for number in 0..8 {
            let records = rng.between(1, 30);
            let produce = Action::Produce { topic: 0, partition, records, gap: 0 };
            steps.push((at + Duration::from_millis(700) * number, produce));
        }
        let killed = at + Duration::from_millis(5_600);
        steps.extend((0..PROCESSES).map(|process| (killed, Action::Kill { process })));
        steps.push((killed + Duration::from_secs(1), Action::Start { process: 0 }));
        self.add(steps);
    }
}
