//! The rebalances of the simulated group: classic ones in phases, and those of KIP-848 for each
//! member alone.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{BETWEEN_GENERATIONS, Group, Member, MemberId, Phase};
use crate::member::{Change, Rebalance};
use crate::record::TopicPartition;
use crate::testing::sim::rng::Rng;
use crate::testing::sim::schedule::Protocol;

impl Group {
    /// KIP-848: each member rebalances for itself, as partitions lose their owner.
    pub(super) fn reconcile(
        &mut self,
        now: Instant,
        partitions: &[TopicPartition],
        rng: &mut Rng,
        notified: &mut Vec<(MemberId, Rebalance)>,
    ) {
        if std::mem::take(&mut self.needs_rebalance) {
            self.assign_targets(partitions, rng);
        }
        for id in self.joined() {
            let Some(member) = self.members.get(&id) else { continue };
            if member.pending.is_some() || member.is_silent() {
                continue;
            }
            let (granted, target) = (self.granted(id), self.target(id));
            let revoked: BTreeSet<_> = granted.difference(&target).cloned().collect();
            let assigned: BTreeSet<_> =
                target.difference(&granted).filter(|new| self.is_unowned(new)).cloned().collect();
            if !revoked.is_empty() {
                notified.push(self.notify(id, Change::Revoke, revoked, now));
            } else if !assigned.is_empty() {
                notified.push(self.notify(id, Change::Assign, assigned, now));
            }
        }
    }

    /// Classic groups: a revoke for all members, then an assignment for all of them. The group
    /// enters the next phase when it waits for no member.
    pub(super) fn step_classic(
        &mut self,
        now: Instant,
        partitions: &[TopicPartition],
        rng: &mut Rng,
        notified: &mut Vec<(MemberId, Rebalance)>,
    ) {
        let revoking = self.phase == Phase::Revoking;
        self.rejoins_early |= std::mem::take(&mut self.changed) && revoking && rng.chance(50);
        if self.waits_for_members() {
            return;
        }
        match self.phase {
            Phase::Stable if self.needs_rebalance => self.start_revoking(now, partitions, rng, notified),
            Phase::Stable => {}
            Phase::Revoking => self.start_assigning(now, partitions, rng, notified),
            Phase::Assigning => self.phase = Phase::Stable,
        }
    }

    /// Whether a member is silent, or has a rebalance to answer. Members that join early do not
    /// answer their revokes.
    fn waits_for_members(&self) -> bool {
        let waits = |member: &Member| {
            let skips_answer = |(rebalance, _): &(Rebalance, Instant)| {
                self.rejoins_early && rebalance.change == Change::Revoke
            };
            let unanswered = member.pending.as_ref().is_some_and(|pending| !skips_answer(pending));
            member.joined && (unanswered || member.is_silent())
        };
        self.members.values().any(waits)
    }

    fn start_revoking(
        &mut self,
        now: Instant,
        partitions: &[TopicPartition],
        rng: &mut Rng,
        notified: &mut Vec<(MemberId, Rebalance)>,
    ) {
        self.needs_rebalance = false;
        self.assign_targets(partitions, rng);
        for id in self.joined() {
            let (granted, target) = (self.granted(id), self.target(id));
            let revoked: BTreeSet<_> = match self.protocol {
                Protocol::Eager => granted,
                _ => granted.difference(&target).cloned().collect(),
            };
            // Empty revokes are normal (R2).
            if !revoked.is_empty() || rng.chance(15) {
                notified.push(self.notify(id, Change::Revoke, revoked, now));
            }
        }
        self.phase = Phase::Revoking;
    }

    /// Starts the next generation, and assigns what no other member owns.
    fn start_assigning(
        &mut self,
        now: Instant,
        partitions: &[TopicPartition],
        rng: &mut Rng,
        notified: &mut Vec<(MemberId, Rebalance)>,
    ) {
        self.generation += 1;
        if std::mem::take(&mut self.rejoins_early) {
            self.end_pending_revokes();
        }
        if self.needs_rebalance {
            self.needs_rebalance = false;
            self.assign_targets(partitions, rng);
        }
        for id in self.joined() {
            let (granted, target) = (self.granted(id), self.target(id));
            let new: BTreeSet<_> = target.difference(&granted).cloned().collect();
            let assigned: BTreeSet<_> = new.iter().filter(|new| self.is_unowned(new)).cloned().collect();
            self.needs_rebalance |=
                assigned.len() < new.len() || granted.difference(&target).next().is_some();
            if let Some(member) = self.members.get_mut(&id) {
                member.generation = self.generation;
                member.retry_commits_until = now + rng.time(BETWEEN_GENERATIONS);
            }
            let joined_early = self.members.get(&id).is_some_and(|member| member.pending.is_some());
            if joined_early || !assigned.is_empty() || rng.chance(50) {
                notified.push(self.notify(id, Change::Assign, assigned, now));
            }
        }
        self.phase = Phase::Assigning;
    }

    /// Takes the revoked partitions from the members that have joined before they answered their
    /// revoke.
    fn end_pending_revokes(&mut self) {
        for member in self.members.values_mut().filter(|member| member.joined) {
            let Some((rebalance, _)) = &member.pending else { continue };
            let revoked = |partition: &TopicPartition| rebalance.partitions.contains(partition);
            let (revoked, kept) = std::mem::take(&mut member.granted).into_iter().partition(revoked);
            member.granted = kept;
            let mut revoked: BTreeSet<TopicPartition> = revoked;
            member.still_draining.append(&mut revoked);
        }
        self.rejoined_early = true;
    }

    /// Assigns the partitions. Members keep what they own, up to a fair share, unless the assignor
    /// moves partitions.
    fn assign_targets(&mut self, partitions: &[TopicPartition], rng: &mut Rng) {
        self.target.clear();
        let mut joined = self.joined();
        if joined.is_empty() {
            return;
        }
        let quota = partitions.len().div_ceil(joined.len());
        let exists: BTreeSet<_> = partitions.iter().cloned().collect();
        let mut open: BTreeSet<_> = exists.clone();
        for id in &joined {
            let keeps = if std::mem::take(&mut self.shuffle) { rng.below(quota + 1) } else { quota };
            let kept: BTreeSet<_> = self.granted(*id).intersection(&exists).take(keeps).cloned().collect();
            open.retain(|partition| !kept.contains(partition));
            self.target.insert(*id, kept);
        }
        if rng.chance(50) {
            joined.reverse();
        }
        for partition in open {
            let least = joined.iter().min_by_key(|id| self.target(**id).len()).copied();
            if let Some(id) = least {
                self.target.entry(id).or_default().insert(partition);
            }
        }
    }
}
