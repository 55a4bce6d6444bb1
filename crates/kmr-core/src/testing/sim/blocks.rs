//! Exactly-once mode in the simulated cluster: marks as the group's coordinator keeps them, a sink
//! that knows tokens, and what the judge has to say about both.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::cluster::State;
use super::group::MemberId;
use super::{Fate, RowId};
use crate::commit_metadata::{CommitMetadata, IdleMarker, Plan};
use crate::log_id::{LogAt, LogId};
use crate::member::{Change, CommitOutcome, OffsetCommit};
use crate::record::TopicPartition;
use crate::reducer::Fingerprint;

/// What is known of marks, plans and tokens.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Whether consumers run in exactly-once mode.
    pub(super) on: bool,
    /// How often a topic was created.
    created: BTreeMap<String, u128>,
    /// Plans that were committed, by token.
    planned: BTreeMap<String, (TopicPartition, Plan)>,
    /// What was inserted under a token.
    inserted: BTreeMap<(usize, String), Vec<RowId>>,
    /// Somebody else has committed their offsets: nobody may go on there.
    foreign: BTreeSet<TopicPartition>,
    /// Until then the sinks refuse nothing.
    pub(super) lenient_until: Option<Instant>,
    /// Plans that were asked for while a revoke waited for its answer, by member and rebalance.
    on_revoke: BTreeMap<(MemberId, u64), String>,
}

impl Blocks {
    pub(super) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }
}

impl State {
    /// The log of a partition as a member finds it.
    pub(super) fn log_of(&self, partition: &TopicPartition) -> Option<LogAt> {
        let created = self.blocks.created.get(partition.topic()).copied().unwrap_or(0);
        let topic = (u128::from(partition.topic().as_bytes()[0]) << 8) + created + 1;
        Some(LogAt { id: LogId::new("simulated", topic)?, millis: self.millis() })
    }

    /// The topic is another one from now on.
    pub(super) fn recreated(&mut self, topic: &str) {
        *self.blocks.created.entry(topic.to_owned()).or_default() += 1;
    }

    /// A commit is asked for: every mark is about the offset that it comes with, and no plan is new
    /// in a revoke.
    pub(super) fn check_metadata(&mut self, id: MemberId, commit: &OffsetCommit) {
        let OffsetCommit { partition, offset, metadata } = commit;
        if self.blocks.foreign.contains(partition) {
            let what = format!(
                "member {id} commits {partition} offset {offset}, and goes on from an offset that is not kmr's"
            );
            self.violate("E2, marks of others are not honoured", what);
        }
        let mark = metadata.as_deref().map(CommitMetadata::parse);
        let Some(Ok(mark)) = mark else {
            let what = format!("commit of {partition} offset {offset} carries {metadata:?}");
            return self.violate("C7, every commit carries the metadata in force", what);
        };
        // Of the log that the member has read: a topic may have been created again since.
        let (CommitMetadata::Idle(IdleMarker { log, .. }) | CommitMetadata::Plan(Plan { log, .. })) = &mark;
        if let Some(mismatch) = mark.mismatch(log, Some(*offset)) {
            let what = format!("commit of {partition} offset {offset}: {mismatch}");
            return self.violate("E1, a mark is about its offset", what);
        }
        let CommitMetadata::Plan(plan) = mark else { return };
        if self.blocks.planned.contains_key(&*plan.token) {
            return;
        }
        if let Some((rebalance, since)) = self.group.revoking(id, partition)
            && since < Instant::now()
        {
            let what = format!(
                "member {id} plans {partition} {}..={} while it hands it back",
                plan.first, plan.last
            );
            self.blocks.on_revoke.insert((id, rebalance), what);
        }
    }

    /// A revoke is answered by the graph: it was not on its way out meanwhile.
    pub(super) fn check_revoke(&mut self, id: MemberId, rebalance: u64, change: Change) {
        if let Some(what) = self.blocks.on_revoke.remove(&(id, rebalance))
            && change == Change::Revoke
        {
            self.violate("E9, a revoke plans nothing", what);
        }
    }

    /// What the coordinator has taken.
    pub(super) fn stored(&mut self, commit: &OffsetCommit, outcome: &CommitOutcome) {
        if *outcome == CommitOutcome::Committed
            && let Some(Ok(CommitMetadata::Plan(plan))) =
                commit.metadata.as_deref().map(CommitMetadata::parse)
        {
            self.blocks.planned.insert(plan.token.to_string(), (commit.partition.clone(), plan));
        }
    }

    /// Rows reach a sink under a token: they are stored, or dropped because the token was there.
    pub(super) fn insert_block(&mut self, sink: usize, name: &str, token: &str, rows: &[RowId]) {
        let Some((partition, plan)) = self.blocks.planned.get(token).cloned() else {
            let what = format!("{name} gets {} rows under {token}, which no plan carries", rows.len());
            return self.violate("E1, a token is planned before it is used", what);
        };
        if let Some(at) = self.oracle.first_without_dead_letter(&partition, (plan.first, plan.last)) {
            let what = format!(
                "{name} gets {partition} {}..={}, and {at} is in no dead letter",
                plan.first, plan.last
            );
            return self.violate("E3, dead letters come before their block", what);
        }
        if let Some(what) = self.oracle.first_left_out(&partition, &plan, rows) {
            let what = format!("{name} gets {} rows under {token}: {what}", rows.len());
            return self.violate("E4, what is left out under a token is in the dead letters", what);
        }
        match self.blocks.inserted.get(&(sink, token.to_owned())) {
            Some(_) => self.note(format_args!("{name} drops {} rows, it has {token}", rows.len())),
            None => {
                self.note(format_args!("{name} gets {} rows under {token}", rows.len()));
                self.blocks.inserted.insert((sink, token.to_owned()), rows.to_vec());
                for row in rows {
                    self.oracle.delivered(sink, row);
                }
            }
        }
    }

    /// A tool that is not kmr's moves a stopped group's offset and keeps its metadata, or drops it.
    pub(super) fn commit_foreign(&mut self, partition: &TopicPartition, keeps: bool) {
        if !self.group.is_empty() {
            return self.note(format_args!("the group is not empty: nobody else can commit"));
        }
        let Some((offset, metadata)) = self.committed.get(partition).cloned() else { return };
        let foreign = (offset.saturating_sub(1).max(0), metadata.filter(|_| keeps));
        if foreign.1.is_some() && foreign.0 == offset {
            return;
        }
        self.note(format_args!("somebody else commits {partition} offset {}", foreign.0));
        self.committed.insert(partition.clone(), foreign);
        self.blocks.foreign.insert(partition.clone());
    }

    /// The operator finds out what is in the sink, and starts a new epoch behind it.
    pub(super) fn start_epoch(&mut self, partition: &TopicPartition) {
        if !self.blocks.foreign.remove(partition) {
            return;
        }
        let Some(log) = self.log_of(partition) else { return };
        let end = self.log.get(partition).map_or(0, super::log::PartitionLog::end);
        let offset = self.oracle.first_unfinished_of(partition).unwrap_or(end);
        let idle = IdleMarker { log: log.id, epoch: log.millis, offset };
        self.note(format_args!("the operator starts a new epoch of {partition} at {offset}"));
        self.committed.insert(partition.clone(), (offset, Some(idle.text())));
    }

    /// Whether somebody has meddled with a partition's offset.
    pub(super) fn is_foreign(&self, partition: &TopicPartition) -> bool {
        self.blocks.foreign.contains(partition)
    }
}

/// What simulated rows are known by.
pub(super) fn fingerprint(rows: &[RowId]) -> Fingerprint {
    let text: String =
        rows.iter().map(|row| format!("{} {} {};", row.partition, row.offset, row.number)).collect();
    // FNV-1a of 128 bits.
    let fold = |hash: u128, byte: u8| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B)
    };
    let hash = text.bytes().fold(0x6C62_272E_07BB_0142_62B8_2175_6295_C58D, fold);
    Fingerprint { rows: rows.len() as u64, bytes: text.len() as u64, hash }
}

impl super::oracle::Oracle {
    /// The first record of a range that has to become a dead letter and is none yet.
    fn first_without_dead_letter(
        &self,
        partition: &TopicPartition,
        (first, last): (i64, i64),
    ) -> Option<i64> {
        let mut range = self.known_in(partition, first..=last);
        range.find(|(_, fate, letters)| *fate == Fate::DeadLetter && *letters == 0).map(|(offset, ..)| offset)
    }

    /// A record of a plan that has fewer rows in its block than it is to have, and no dead letter;
    /// or a row that is not planned.
    fn first_left_out(&self, partition: &TopicPartition, plan: &Plan, rows: &[RowId]) -> Option<String> {
        let range = plan.first..=plan.last;
        if let Some(row) = rows.iter().find(|row| row.partition != *partition || !range.contains(&row.offset))
        {
            return Some(format!("{} {} is not planned", row.partition, row.offset));
        }
        let mut found: BTreeMap<i64, usize> = BTreeMap::new();
        rows.iter().for_each(|row| *found.entry(row.offset).or_default() += 1);
        let left_out = |(offset, fate, letters): &(i64, Fate, u32)| {
            let found = found.get(offset).copied().unwrap_or(0);
            match fate {
                Fate::Rows(rows) => found != *rows,
                // One of its rows may be in the dead letters.
                Fate::Rejectable(rows) => found != *rows && (*letters == 0 || found + 1 != *rows),
                Fate::DeadLetter | Fate::Skipped => found > 0,
            }
        };
        let (offset, fate, letters) = self.known_in(partition, range).find(left_out)?;
        Some(format!(
            "{offset}, which is to be {fate:?}, has {found:?} rows and {letters} letters",
            found = found.get(&offset)
        ))
    }
}
