//! The group coordinator of the simulated cluster: members, owners of partitions, rebalances that
//! wait for an answer, and the fencing of commits.
//!
//! It has no side effects except random draws. The cluster calls [`Group::step`] with the current
//! time, and sends the returned rebalances to the members.

mod rebalance;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::rng::Rng;
use super::schedule::Protocol;
use crate::member::{Change, Rebalance, RebalanceProtocol};
use crate::record::TopicPartition;

/// The session timeout: after that time without contact the group removes a member.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// `max.poll.interval.ms`: after that time without an answer to a rebalance the group removes a
/// member.
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);
/// Maximum time after a new generation in which commits must be retried.
const BETWEEN_GENERATIONS: Duration = Duration::from_millis(300);

/// Identifies a client. Ids are in the order of connections.
pub(super) type MemberId = u32;

/// A client as the group sees it.
#[derive(Debug)]
struct Member {
    /// `false`: the group has removed it. It joins again after it has answered the loss.
    joined: bool,
    generation: u32,
    /// The partitions that the member owns, according to the group.
    granted: BTreeSet<TopicPartition>,
    /// Partitions that were revoked without its answer. It may still drain them, until its next
    /// answer.
    still_draining: BTreeSet<TopicPartition>,
    /// Partitions that it has lost and was not notified of yet.
    lost: Option<BTreeSet<TopicPartition>>,
    /// A removed static member that was not notified: the partitions that its client still has. It
    /// joins again with its next answer.
    unnoticed: Option<BTreeSet<TopicPartition>>,
    /// How often it has joined again without a notice. Its client sees another member id each time.
    incarnation: u32,
    /// The rebalance that waits for its answer, and since when.
    pending: Option<(Rebalance, Instant)>,
    /// The start and the end of its isolation from the brokers.
    isolated: Option<(Instant, Instant)>,
    /// The end of its latest isolation.
    isolation_end: Instant,
    /// Its client will receive no events any more, as soon as it owns partitions.
    becomes_deaf: bool,
    /// Since when its client has received no events any more.
    deaf_since: Option<Instant>,
    /// Until then, its commits must be retried.
    retry_commits_until: Instant,
}

impl Member {
    /// Whether the group receives no heartbeat of it.
    fn is_silent(&self) -> bool {
        self.isolated.is_some() || self.deaf_since.is_some()
    }
}

/// The phase of a rebalance in a classic group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Stable,
    Revoking,
    Assigning,
}

/// The response of the group coordinator to a commit.
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
    /// The members are static, in a cooperative group.
    is_static: bool,
    generation: u32,
    phase: Phase,
    needs_rebalance: bool,
    shuffle: bool,
    /// The topics have changed.
    changed: bool,
    /// The members of a classic group join again before they have answered their revokes.
    /// librdkafka does that when the topics change meanwhile.
    rejoins_early: bool,
    /// Members have joined early at least once.
    rejoined_early: bool,
    target: BTreeMap<MemberId, BTreeSet<TopicPartition>>,
    members: BTreeMap<MemberId, Member>,
    last_rebalance: u64,
}

impl Group {
    pub(super) fn new(protocol: Protocol, is_static: bool) -> Self {
        Self {
            protocol,
            is_static: is_static && protocol == Protocol::Cooperative,
            generation: 0,
            phase: Phase::Stable,
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
            still_draining: BTreeSet::new(),
            lost: None,
            unnoticed: None,
            incarnation: 0,
            pending: None,
            isolated: None,
            isolation_end: now,
            becomes_deaf: false,
            deaf_since: None,
            retry_commits_until: now,
        };
        self.members.insert(id, member);
        self.needs_rebalance = true;
    }

    /// Removes a member that has left.
    pub(super) fn remove(&mut self, id: MemberId) {
        self.needs_rebalance |= self.members.remove(&id).is_some();
    }

    /// Removes a member whose client has failed permanently. It is not notified.
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
            member.isolation_end = end.max(until);
        }
    }

    /// The member's client receives no events any more, once it owns partitions and has answered
    /// its rebalances. It does not take part in later ones, so the group removes it, and it does
    /// not learn that. Its requests are still answered.
    pub(super) fn deafen(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.becomes_deaf = true;
        }
    }

    /// Whether the client of any member receives no events any more.
    pub(super) fn has_deaf(&self) -> bool {
        self.members.values().any(|member| member.deaf_since.is_some())
    }

    fn start_deafness(&mut self, now: Instant) {
        for member in self.members.values_mut().filter(|member| member.becomes_deaf) {
            let owns = member.joined && member.pending.is_none() && !member.granted.is_empty();
            if owns && !member.is_silent() {
                member.deaf_since = Some(now);
            }
        }
    }

    /// From now on no other member becomes deaf.
    pub(super) fn end_faults(&mut self) {
        self.members.values_mut().for_each(|member| member.becomes_deaf = false);
    }

    /// Whether the member's client receives no events any more.
    pub(super) fn is_deaf(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.deaf_since.is_some())
    }

    /// The end of the member's isolation. `None`: the member is not isolated.
    pub(super) fn isolated_until(&self, id: MemberId, now: Instant) -> Option<Instant> {
        self.members.get(&id)?.isolated.map(|(_, until)| until).filter(|until| now < *until)
    }

    /// The topics have changed.
    pub(super) fn rebalance(&mut self) {
        self.needs_rebalance = true;
        self.changed = true;
    }

    /// Whether members have joined again before they had answered their revokes.
    pub(super) fn has_rejoined_early(&self) -> bool {
        self.rejoined_early
    }

    /// Makes the assignor move partitions at the next rebalance.
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

    /// Whether a member still holds a partition of the topic.
    pub(super) fn holds_topic(&self, topic: &str) -> bool {
        let held = |member: &Member| {
            member.granted.iter().chain(&member.still_draining).any(|partition| partition.topic() == topic) //
        };
        self.members.values().any(held)
    }

    /// Whether the member must answer this rebalance now: current answer (R5).
    pub(super) fn is_pending(&self, id: MemberId, rebalance: u64) -> bool {
        self.members.get(&id).and_then(|m| m.pending.as_ref()).is_some_and(|(p, _)| p.id == rebalance)
    }

    /// Whether a rebalance waits for the member's answer.
    pub(super) fn is_rebalancing(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.pending.is_some())
    }

    /// The pending revoke of a partition, and since when it waits for the member's answer.
    pub(super) fn revoking(&self, id: MemberId, partition: &TopicPartition) -> Option<(u64, Instant)> {
        let (rebalance, since) = self.members.get(&id)?.pending.as_ref()?;
        let named = rebalance.change == Change::Revoke && rebalance.partitions.contains(partition);
        named.then_some((rebalance.id, *since))
    }

    /// Whether the group has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.members.values().all(|member| !member.joined)
    }

    /// Accepts a member's answer. `false`: a later rebalance has replaced this one.
    pub(super) fn answer(&mut self, id: MemberId, rebalance: &Rebalance) -> bool {
        if !self.is_pending(id, rebalance.id) {
            return false;
        }
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.pending = None;
        member.still_draining.clear();
        match rebalance.change {
            Change::Assign => {}
            Change::Revoke => {
                member.granted.retain(|partition| !rebalance.partitions.contains(partition));
                if let Some(kept) = member.unnoticed.take() {
                    let is_kept = |partition: &TopicPartition| !rebalance.partitions.contains(partition);
                    member.granted = kept.into_iter().filter(is_kept).collect();
                    (member.joined, member.generation) = (true, 0);
                    self.needs_rebalance = true;
                }
                // KIP-848: the answer to a revoke moves the member to a later epoch.
                member.generation += u32::from(self.protocol == Protocol::NextGeneration);
            }
            Change::Lose => {
                member.joined = true;
                member.generation =
                    if self.protocol == Protocol::NextGeneration { member.generation + 1 } else { 0 };
                self.needs_rebalance = true;
            }
        }
        true
    }

    /// Stands for the member id that the client sees.
    pub(super) fn incarnation(&self, id: MemberId) -> u32 {
        self.members.get(&id).map_or(0, |member| member.incarnation)
    }

    /// The generation, or with KIP-848 the member epoch, that the member sends with a commit.
    pub(super) fn generation(&self, id: MemberId) -> u32 {
        self.members.get(&id).map_or(0, |member| member.generation)
    }

    /// The response to a commit that the member sent with that generation.
    pub(super) fn fence_commit(&self, id: MemberId, generation: u32, now: Instant) -> Fence {
        let Some(member) = self.members.get(&id).filter(|member| member.joined) else {
            return Fence::UnknownMember;
        };
        if self.protocol == Protocol::NextGeneration {
            let is_stale = generation != member.generation;
            return if is_stale { Fence::Retryable } else { Fence::Accepted };
        }
        if generation != self.generation {
            return if self.phase == Phase::Assigning { Fence::Retryable } else { Fence::IllegalGeneration };
        }
        if now < member.retry_commits_until { Fence::Retryable } else { Fence::Accepted }
    }

    /// Advances the group. Returns the rebalances that members are notified of now.
    pub(super) fn step(
        &mut self,
        now: Instant,
        partitions: &[TopicPartition],
        rng: &mut Rng,
    ) -> Vec<(MemberId, Rebalance)> {
        self.start_deafness(now);
        self.remove_unresponsive(now);
        let mut notified = self.notify_losses(now);
        match self.protocol {
            Protocol::NextGeneration => self.reconcile(now, partitions, rng, &mut notified),
            Protocol::Eager | Protocol::Cooperative => self.step_classic(now, partitions, rng, &mut notified),
        }
        notified
    }

    /// A member that has not answered a revoke within `limit`. Its isolation from the brokers does
    /// not count.
    pub(super) fn overdue(&self, now: Instant, limit: Duration) -> Option<(MemberId, &Rebalance)> {
        self.members.iter().find_map(|(id, member)| {
            let (rebalance, since) = member.pending.as_ref().filter(|(p, _)| p.change == Change::Revoke)?;
            let waits = member.joined
                && member.isolated.is_none()
                && now > (*since).max(member.isolation_end) + limit;
            waits.then_some((*id, rebalance))
        })
    }

    /// Removes members whose session has timed out, or that have not answered in time.
    fn remove_unresponsive(&mut self, now: Instant) {
        for member in self.members.values_mut().filter(|member| member.joined) {
            let silent_since = [member.isolated.map(|(since, _)| since), member.deaf_since];
            let silent = silent_since.iter().flatten().any(|since| now >= *since + SESSION_TIMEOUT);
            let unanswered =
                member.pending.as_ref().is_some_and(|(_, since)| now >= *since + MAX_POLL_INTERVAL);
            if silent || unanswered {
                member.joined = false;
                member.lost = Some(std::mem::take(&mut member.granted));
                if member.deaf_since.is_some() {
                    (member.lost, member.pending) = (None, None);
                }
                self.needs_rebalance = true;
            }
            member.isolated = member.isolated.filter(|(_, until)| now < *until);
        }
    }

    /// Notifies removed members of their loss, once they are no longer isolated. The loss replaces
    /// any pending rebalance.
    fn notify_losses(&mut self, now: Instant) -> Vec<(MemberId, Rebalance)> {
        let protocol = self.protocol();
        let mut notified = Vec::new();
        for (id, member) in &mut self.members {
            member.isolated = member.isolated.filter(|(_, until)| now < *until);
            if member.is_silent() {
                continue;
            }
            if let Some(lost) = member.lost.take() {
                let is_revoking = |(pending, _): &(Rebalance, Instant)| pending.change == Change::Revoke;
                if self.is_static && member.pending.as_ref().is_some_and(is_revoking) {
                    // librdkafka reports no loss while a revoke waits for its answer.
                    (member.unnoticed, member.incarnation) = (Some(lost), member.incarnation + 1);
                    continue;
                }
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

    /// Starts a rebalance of one member.
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

    /// Whether the partition has no owner.
    fn is_unowned(&self, partition: &TopicPartition) -> bool {
        self.members.values().all(|member| !member.granted.contains(partition))
    }
}
