//! The group coordinator of the simulated cluster: who is a member, who owns what, which rebalances
//! wait for an answer, and whose commits are taken.
//!
//! Pure but for the dice: the cluster asks it to go on ([`Group::step`]), with the time in its
//! hand, and passes on what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::rng::Rng;
use super::schedule::Protocol;
use crate::member::{Change, Rebalance, RebalanceProtocol};
use crate::record::TopicPartition;

/// A member is put out when it has not been heard of for so long.
const SESSION: Duration = Duration::from_secs(10);
/// A member is put out when it has not answered a rebalance for so long: `max.poll.interval.ms`.
pub(super) const MAX_POLL: Duration = Duration::from_secs(300);
/// How long commits between two generations are put off.
const BETWEEN_GENERATIONS: Duration = Duration::from_millis(300);

/// A client, in the order in which they connected.
pub(super) type MemberId = u32;

/// One client in the eyes of the group.
#[derive(Debug)]
struct Member {
    /// `false`: put out; it joins again when it has answered for its loss.
    joined: bool,
    generation: u32,
    /// What the group counts as this member's.
    granted: BTreeSet<TopicPartition>,
    /// What was taken from it while it was about to hand it back: until its next answer it may
    /// still be at work on it.
    overtaken: BTreeSet<TopicPartition>,
    /// What it has lost and has not been notified yet.
    lost: Option<BTreeSet<TopicPartition>>,
    /// The rebalance that waits for its answer.
    pending: Option<(Rebalance, Instant)>,
    /// Cut off from the brokers since then, until then.
    isolated: Option<(Instant, Instant)>,
    away_until: Instant,
    /// Commits are put off until then.
    unsettled_until: Instant,
}

/// Where a classic group is in its rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Stable,
    Revoking,
    Assigning,
}

/// What the coordinator says to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    Accepted,
    Retryable,
    IllegalGeneration,
    UnknownMember,
}

/// The group.
#[derive(Debug)]
pub(super) struct Group {
    protocol: Protocol,
    generation: u32,
    round: Round,
    needs_rebalance: bool,
    shuffle: bool,
    /// The topics have changed.
    changed: bool,
    /// The members of an eager group join again without having handed back what they were to:
    /// librdkafka does that when the topics change meanwhile.
    rejoins_early: bool,
    /// They have done so at least once.
    rejoined_early: bool,
    target: BTreeMap<MemberId, BTreeSet<TopicPartition>>,
    members: BTreeMap<MemberId, Member>,
    last_rebalance: u64,
}

impl Group {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            generation: 0,
            round: Round::Stable,
            needs_rebalance: false,
            shuffle: false,
            changed: false,
            rejoins_early: false,
            rejoined_early: false,
            target: BTreeMap::new(),
            members: BTreeMap::new(),
            last_rebalance: 0,
        }
    }

    pub(super) fn join(&mut self, id: MemberId, now: Instant) {
        let member = Member {
            joined: true,
            generation: 0,
            granted: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            lost: None,
            pending: None,
            isolated: None,
            away_until: now,
            unsettled_until: now,
        };
        self.members.insert(id, member);
        self.needs_rebalance = true;
    }

    /// It is gone: it left, or its session has ended after its death.
    pub(super) fn remove(&mut self, id: MemberId) {
        self.needs_rebalance |= self.members.remove(&id).is_some();
    }

    /// Its client has failed for good: it is put out, and will not be notified.
    pub(super) fn fence(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.joined = false;
            member.granted.clear();
            member.lost = None;
            member.pending = None;
            self.needs_rebalance = true;
        }
    }

    pub(super) fn isolate(&mut self, id: MemberId, now: Instant, until: Instant) {
        if let Some(member) = self.members.get_mut(&id) {
            let (since, end) = member.isolated.unwrap_or((now, until));
            member.isolated = Some((since, end.max(until)));
            member.away_until = end.max(until);
        }
    }

    /// When it can be reached again; `None`: it can be.
    pub(super) fn isolated_until(&self, id: MemberId, now: Instant) -> Option<Instant> {
        self.members.get(&id)?.isolated.map(|(_, until)| until).filter(|until| now < *until)
    }

    /// The topics have changed.
    pub(super) fn rebalance(&mut self) {
        self.needs_rebalance = true;
        self.changed = true;
    }

    /// Whether members had to give up what they were about to hand back.
    pub(super) fn has_rejoined_early(&self) -> bool {
        self.rejoined_early
    }

    /// The assignor changes its mind.
    pub(super) fn reshuffle(&mut self) {
        self.needs_rebalance = true;
        self.shuffle = true;
    }

    pub(super) fn protocol(&self) -> RebalanceProtocol {
        match self.protocol {
            Protocol::Eager => RebalanceProtocol::Eager,
            Protocol::Cooperative | Protocol::NextGeneration => RebalanceProtocol::Cooperative,
        }
    }

    /// Whether some member still has a partition of the topic.
    pub(super) fn holds_topic(&self, topic: &str) -> bool {
        let held = |member: &Member| {
            member.granted.iter().chain(&member.overtaken).any(|partition| partition.topic() == topic) //
        };
        self.members.values().any(held)
    }

    /// Whether this rebalance is the one that waits for the member's answer (R5).
    pub(super) fn is_pending(&self, id: MemberId, rebalance: u64) -> bool {
        self.members.get(&id).and_then(|m| m.pending.as_ref()).is_some_and(|(p, _)| p.id == rebalance)
    }

    /// Whether any rebalance waits for the member's answer.
    pub(super) fn is_rebalancing(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.pending.is_some())
    }

    /// The revoke of a partition that waits for the member's answer, and since when.
    pub(super) fn revoking(&self, id: MemberId, partition: &TopicPartition) -> Option<(u64, Instant)> {
        let (rebalance, since) = self.members.get(&id)?.pending.as_ref()?;
        let named = rebalance.change == Change::Revoke && rebalance.partitions.contains(partition);
        named.then_some((rebalance.id, *since))
    }

    /// Whether it has no member that it counts on.
    pub(super) fn is_empty(&self) -> bool {
        self.members.values().all(|member| !member.joined)
    }

    /// Takes a member's answer. `false`: the rebalance has been overtaken.
    pub(super) fn answer(&mut self, id: MemberId, rebalance: &Rebalance) -> bool {
        if !self.is_pending(id, rebalance.id) {
            return false;
        }
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.pending = None;
        member.overtaken.clear();
        match rebalance.change {
            Change::Assign => {}
            Change::Revoke => member.granted.retain(|partition| !rebalance.partitions.contains(partition)),
            Change::Lose => {
                member.joined = true;
                member.generation = 0;
                self.needs_rebalance = true;
            }
        }
        true
    }

    /// The generation that a commit of the member is sent with.
    pub(super) fn generation(&self, id: MemberId) -> u32 {
        self.members.get(&id).map_or(0, |member| member.generation)
    }

    /// Whether a commit of that member, sent with that generation, would be taken now.
    pub(super) fn fence_commit(&self, id: MemberId, generation: u32, now: Instant) -> Fence {
        let Some(member) = self.members.get(&id).filter(|member| member.joined) else {
            return Fence::UnknownMember;
        };
        if self.protocol == Protocol::NextGeneration {
            return Fence::Accepted;
        }
        if generation != self.generation {
            return if self.round == Round::Assigning { Fence::Retryable } else { Fence::IllegalGeneration };
        }
        if now < member.unsettled_until { Fence::Retryable } else { Fence::Accepted }
    }

    /// Goes on; returns what members are notified now.
    pub(super) fn step(
        &mut self,
        now: Instant,
        partitions: &[TopicPartition],
        rng: &mut Rng,
    ) -> Vec<(MemberId, Rebalance)> {
        self.remove_silent(now);
        let mut notified = self.notify_losses(now);
        match self.protocol {
            Protocol::NextGeneration => self.reconcile(now, partitions, rng, &mut notified),
            Protocol::Eager | Protocol::Cooperative => self.classic(now, partitions, rng, &mut notified),
        }
        notified
    }

    /// A member whose revoke waits for its answer longer than `limit`, its time away from the
    /// brokers not counted.
    pub(super) fn overdue(&self, now: Instant, limit: Duration) -> Option<(MemberId, &Rebalance)> {
        self.members.iter().find_map(|(id, member)| {
            let (rebalance, since) = member.pending.as_ref().filter(|(p, _)| p.change == Change::Revoke)?;
            let waits =
                member.joined && member.isolated.is_none() && now > (*since).max(member.away_until) + limit;
            waits.then_some((*id, rebalance))
        })
    }

    /// Puts out who has not been heard of, or has not answered.
    fn remove_silent(&mut self, now: Instant) {
        for member in self.members.values_mut().filter(|member| member.joined) {
            let silent = member.isolated.is_some_and(|(since, _)| now >= since + SESSION);
            let unanswered = member.pending.as_ref().is_some_and(|(_, since)| now >= *since + MAX_POLL);
            if silent || unanswered {
                member.joined = false;
                member.lost = Some(std::mem::take(&mut member.granted));
                self.needs_rebalance = true;
            }
            member.isolated = member.isolated.filter(|(_, until)| now < *until);
        }
    }

    /// Who was put out learns of it when it can be reached; the loss overtakes whatever it had to
    /// answer.
    fn notify_losses(&mut self, now: Instant) -> Vec<(MemberId, Rebalance)> {
        let protocol = self.protocol();
        let mut notified = Vec::new();
        for (id, member) in &mut self.members {
            member.isolated = member.isolated.filter(|(_, until)| now < *until);
            if member.isolated.is_some() {
                continue;
            }
            if let Some(lost) = member.lost.take() {
                self.last_rebalance += 1;
                let partitions = lost.into_iter().collect();
                let rebalance =
                    Rebalance { id: self.last_rebalance, protocol, change: Change::Lose, partitions };
                member.pending = Some((rebalance.clone(), now));
                notified.push((*id, rebalance));
            }
        }
        notified
    }

    fn notify(
        &mut self,
        id: MemberId,
        change: Change,
        partitions: BTreeSet<TopicPartition>,
        now: Instant,
    ) -> (MemberId, Rebalance) {
        self.last_rebalance += 1;
        let protocol = self.protocol();
        let rebalance = Rebalance {
            id: self.last_rebalance,
            protocol,
            change,
            partitions: partitions.iter().cloned().collect(),
        };
        if let Some(member) = self.members.get_mut(&id) {
            member.pending = Some((rebalance.clone(), now));
            if change == Change::Assign {
                member.granted.extend(partitions);
            }
        }
        (id, rebalance)
    }

    fn joined(&self) -> Vec<MemberId> {
        self.members.iter().filter(|(_, member)| member.joined).map(|(id, _)| *id).collect()
    }

    fn granted(&self, id: MemberId) -> BTreeSet<TopicPartition> {
        self.members.get(&id).map(|member| member.granted.clone()).unwrap_or_default()
    }

    fn target(&self, id: MemberId) -> BTreeSet<TopicPartition> {
        self.target.get(&id).cloned().unwrap_or_default()
    }

    /// Whether some member is still counted as the owner.
    fn is_free(&self, partition: &TopicPartition) -> bool {
        self.members.values().all(|member| !member.granted.contains(partition))
    }

    /// KIP-848: each member for itself, as partitions come free.
    fn reconcile(
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
            if member.pending.is_some() || member.isolated.is_some() {
                continue;
            }
            let (granted, target) = (self.granted(id), self.target(id));
            let gone: BTreeSet<_> = granted.difference(&target).cloned().collect();
            let new: BTreeSet<_> =
                target.difference(&granted).filter(|new| self.is_free(new)).cloned().collect();
            if !gone.is_empty() {
                notified.push(self.notify(id, Change::Revoke, gone, now));
            } else if !new.is_empty() {
                notified.push(self.notify(id, Change::Assign, new, now));
            }
        }
    }

    /// Classic groups: all revoke, then all are assigned.
    fn classic(
        &mut self,
        now: Instant,
        partitions: &[TopicPartition],
        rng: &mut Rng,
        notified: &mut Vec<(MemberId, Rebalance)>,
    ) {
        let joined = self.joined();
        let revoking = self.protocol == Protocol::Eager && self.round == Round::Revoking;
        self.rejoins_early |= std::mem::take(&mut self.changed) && revoking && rng.chance(50);
        let waits = |member: &Member| {
            let answers = |(rebalance, _): &(Rebalance, Instant)| {
                self.rejoins_early && rebalance.change == Change::Revoke
            };
            let unanswered = member.pending.as_ref().is_some_and(|pending| !answers(pending));
            member.joined && (unanswered || member.isolated.is_some())
        };
        if self.members.values().any(waits) {
            return;
        }
        match self.round {
            Round::Stable if self.needs_rebalance => {
                self.needs_rebalance = false;
                self.assign_targets(partitions, rng);
                for id in joined {
                    let (granted, target) = (self.granted(id), self.target(id));
                    let gone: BTreeSet<_> = match self.protocol {
                        Protocol::Eager => granted,
                        _ => granted.difference(&target).cloned().collect(),
                    };
                    // Empty revokes are normal (R2).
                    if !gone.is_empty() || rng.chance(15) {
                        notified.push(self.notify(id, Change::Revoke, gone, now));
                    }
                }
                self.round = Round::Revoking;
            }
            Round::Stable => {}
            Round::Revoking => {
                self.generation += 1;
                if std::mem::take(&mut self.rejoins_early) {
                    let late = |member: &&mut Member| member.joined && member.pending.is_some();
                    for member in self.members.values_mut().filter(late) {
                        member.overtaken.append(&mut member.granted);
                    }
                    self.rejoined_early = true;
                }
                if self.needs_rebalance {
                    self.needs_rebalance = false;
                    self.assign_targets(partitions, rng);
                }
                for id in joined {
                    let (granted, target) = (self.granted(id), self.target(id));
                    let new: BTreeSet<_> = target.difference(&granted).cloned().collect();
                    let free: BTreeSet<_> = new.iter().filter(|new| self.is_free(new)).cloned().collect();
                    self.needs_rebalance |=
                        free.len() < new.len() || granted.difference(&target).next().is_some();
                    if let Some(member) = self.members.get_mut(&id) {
                        member.generation = self.generation;
                        member.unsettled_until = now + rng.time(BETWEEN_GENERATIONS);
                    }
                    let late = self.members.get(&id).is_some_and(|member| member.pending.is_some());
                    if late || !free.is_empty() || rng.chance(50) {
                        notified.push(self.notify(id, Change::Assign, free, now));
                    }
                }
                self.round = Round::Assigning;
            }
            Round::Assigning => self.round = Round::Stable,
        }
    }

    /// Who is to own what: members keep what they have, as far as that is fair, unless the assignor
    /// shuffles.
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
