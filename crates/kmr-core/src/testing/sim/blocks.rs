//! Exactly-once mode in the simulated cluster: commit metadata, deduplication tokens in the sinks,
//! and the rules of the invariant checker for both.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::cluster::ClusterState;
use super::group::MemberId;
use super::{Fate, RowId};
use crate::commit_metadata::{CommitMetadata, IdleMarker, Plan};
use crate::log_id::{LogAt, LogId};
use crate::member::{Change, CommitOutcome, OffsetCommit};
use crate::record::TopicPartition;
use crate::reducer::Fingerprint;

/// The state of exactly-once mode: commit metadata, plans and tokens.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Whether consumers run in exactly-once mode.
    pub(super) enabled: bool,
    /// How often each topic was created again.
    recreations: BTreeMap<String, u128>,
    /// Committed plans, by token.
    planned: BTreeMap<String, (TopicPartition, Plan)>,
    /// The inserted rows, by sink and token.
    inserted: BTreeMap<(usize, String), Vec<RowId>>,
    /// A foreign tool has moved their offsets. No member may continue from there.
    foreign: BTreeSet<TopicPartition>,
    /// Until then the sinks reject no row.
    pub(super) lenient_until: Option<Instant>,
    /// Plans that were requested while a revoke waited for its answer, by member and rebalance.
    on_revoke: BTreeMap<(MemberId, u64), String>,
}

impl Blocks {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }
}

impl ClusterState {
    /// The identity of a partition's log, as a member reads it.
    pub(super) fn log_of(&self, partition: &TopicPartition) -> Option<LogAt> {
        let recreations = self.blocks.recreations.get(partition.topic()).copied().unwrap_or(0);
        let topic = (u128::from(partition.topic().as_bytes()[0]) << 8) + recreations + 1;
        Some(LogAt { id: LogId::new("simulated", topic)?, millis: self.millis() })
    }

    /// The topic was created again, so it has a new id from now on.
    pub(super) fn change_topic_id(&mut self, topic: &str) {
        *self.blocks.recreations.entry(topic.to_owned()).or_default() += 1;
    }

    /// Checks the metadata of a commit at the moment of its request. The metadata must name the
    /// committed offset. During a revoke it must not hold a new plan.
    pub(super) fn check_metadata(&mut self, id: MemberId, commit: &OffsetCommit) {
        let OffsetCommit { partition, offset, metadata } = commit;
        if self.blocks.foreign.contains(partition) {
            let what = format!(
                "member {id} commits {partition} offset {offset}, and continues from an offset that is not kmr's"
            );
            self.violate("E2 only known offsets", what);
        }
        let parsed = metadata.as_deref().map(CommitMetadata::parse);
        let Some(Ok(parsed)) = parsed else {
            let what = format!("commit of {partition} offset {offset} carries {metadata:?}");
            return self.violate("C7 metadata in force", what);
        };
        // The log that the member has read. The topic may have been created again since then.
        let (CommitMetadata::Idle(IdleMarker { log, .. }) | CommitMetadata::Plan(Plan { log, .. })) = &parsed;
        if let Some(mismatch) = parsed.mismatch(log, Some(*offset)) {
            let what = format!("commit of {partition} offset {offset}: {mismatch}");
            return self.violate("E1 commit metadata names its own offset", what);
        }
        let CommitMetadata::Plan(plan) = parsed else { return };
        if self.blocks.planned.contains_key(&*plan.token) {
            return;
        }
        if let Some((rebalance, since)) = self.group.revoking(id, partition)
            && since < Instant::now()
        {
            let what =
                format!("member {id} plans {partition} {}..={} during its revoke", plan.first, plan.last);
            self.blocks.on_revoke.insert((id, rebalance), what);
        }
    }

    /// The graph answers a revoke, so it was not shutting down. It must not have planned a block
    /// meanwhile.
    pub(super) fn check_revoke(&mut self, id: MemberId, rebalance: u64, change: Change) {
        if let Some(what) = self.blocks.on_revoke.remove(&(id, rebalance))
            && change == Change::Revoke
        {
            self.violate("E9 no new plan on a revoke", what);
        }
    }

    /// Keeps the plan of a commit that the group coordinator has accepted.
    pub(super) fn keep_plan(&mut self, commit: &OffsetCommit, outcome: &CommitOutcome) {
        if *outcome == CommitOutcome::Committed
            && let Some(Ok(CommitMetadata::Plan(plan))) =
                commit.metadata.as_deref().map(CommitMetadata::parse)
        {
            self.blocks.planned.insert(plan.token.to_string(), (commit.partition.clone(), plan));
        }
    }

    /// Rows reach a sink under a token. The sink stores them, or drops them because it knows the
    /// token.
    pub(super) fn insert_block(&mut self, sink: usize, name: &str, token: &str, rows: &[RowId]) {
        let Some((partition, plan)) = self.blocks.planned.get(token).cloned() else {
            let what = format!("{name} receives {} rows under {token}, which is in no plan", rows.len());
            return self.violate("E1 plan before insert", what);
        };
        if let Some(at) = self.oracle.first_without_dead_letter(&partition, (plan.first, plan.last)) {
            let what = format!(
                "{name} receives {partition} {}..={}, and {at} has no dead letter",
                plan.first, plan.last
            );
            return self.violate("E3 everything else first", what);
        }
        if let Some(what) = self.oracle.first_left_out(&partition, &plan, rows) {
            let what = format!("{name} receives {} rows under {token}: {what}", rows.len());
            return self.violate("E4 one token, no lost row", what);
        }
        match self.blocks.inserted.get(&(sink, token.to_owned())) {
            Some(_) => self.note(format_args!("{name} drops {} rows, because it knows {token}", rows.len())),
            None => {
                self.note(format_args!("{name} stores {} rows under {token}", rows.len()));
                self.blocks.inserted.insert((sink, token.to_owned()), rows.to_vec());
                for row in rows {
                    self.oracle.delivered(sink, row);
                }
            }
        }
    }

    /// A foreign tool moves an offset of a stopped group. It keeps the metadata or drops it.
    pub(super) fn commit_foreign(&mut self, partition: &TopicPartition, keeps_metadata: bool) {
        if !self.group.is_empty() {
            return self.note(format_args!("the group has members, so a foreign tool cannot commit"));
        }
        let Some((offset, metadata)) = self.committed.get(partition).cloned() else { return };
        let foreign = (offset.saturating_sub(1).max(0), metadata.filter(|_| keeps_metadata));
        if foreign.1.is_some() && foreign.0 == offset {
            return;
        }
        self.note(format_args!("a foreign tool commits {partition} offset {}", foreign.0));
        self.committed.insert(partition.clone(), foreign);
        self.blocks.foreign.insert(partition.clone());
    }

    /// The operator checks what the sink has stored, and starts a new epoch after it.
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

    /// Whether a foreign tool has moved the partition's offset.
    pub(super) fn is_foreign(&self, partition: &TopicPartition) -> bool {
        self.blocks.foreign.contains(partition)
    }
}

/// The fingerprint of simulated rows, each with the ids of its values.
pub(super) fn fingerprint(rows: &[Vec<RowId>]) -> Fingerprint {
    let id = |id: &RowId| format!("{} {} {}", id.partition, id.offset, id.number);
    let row = |ids: &Vec<RowId>| ids.iter().map(id).collect::<Vec<_>>().join("+") + ";";
    let text: String = rows.iter().map(row).collect();
    // FNV-1a of 128 bits.
    let fold = |hash: u128, byte: u8| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B)
    };
    let hash = text.bytes().fold(0x6C62_272E_07BB_0142_62B8_2175_6295_C58D, fold);
    Fingerprint { rows: rows.len() as u64, bytes: text.len() as u64, hash }
}

impl super::oracle::Oracle {
    /// The first record of a range that must become a dead letter and has none yet.
    fn first_without_dead_letter(
        &self,
        partition: &TopicPartition,
        (first, last): (i64, i64),
    ) -> Option<i64> {
        let mut range = self.records_in(partition, first..=last);
        range
            .find(|(_, fate, dead_letters)| *fate == Fate::DeadLetter && *dead_letters == 0)
            .map(|(offset, ..)| offset)
    }

    /// The first row that is not planned, or the first record with a wrong number of rows that no
    /// dead letter explains.
    fn first_left_out(&self, partition: &TopicPartition, plan: &Plan, rows: &[RowId]) -> Option<String> {
        let range = plan.first..=plan.last;
        if let Some(row) = rows.iter().find(|row| row.partition != *partition || !range.contains(&row.offset))
        {
            return Some(format!("{} {} is not planned", row.partition, row.offset));
        }
        let mut found: BTreeMap<i64, usize> = BTreeMap::new();
        rows.iter().for_each(|row| *found.entry(row.offset).or_default() += 1);
        let left_out = |(offset, fate, dead_letters): &(i64, Fate, u32)| {
            let found = found.get(offset).copied().unwrap_or(0);
            match fate {
                Fate::Rows(rows) => found != *rows,
                // One of its rows may be a dead letter.
                Fate::Rejectable(rows) => found != *rows && (*dead_letters == 0 || found + 1 != *rows),
                Fate::DeadLetter | Fate::Skipped => found > 0,
            }
        };
        let (offset, fate, dead_letters) = self.records_in(partition, range).find(left_out)?;
        Some(format!(
            "{offset}, which must become {fate:?}, has {found:?} rows and {dead_letters} dead letters",
            found = found.get(&offset)
        ))
    }
}
