//! The commits of simulated members: how the group coordinator accepts, rejects, delays and loses
//! them, and what must hold for each of them.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Simulation;
use super::cluster::{Cluster, ClusterState};
use super::group::{Fence, MemberId};
use super::schedule::CommitFault;
use crate::graph::commit::committer::NOT_OWNED_LIMIT;
use crate::log_id::LogId;
use crate::member::{Change, CommitOutcome, OffsetCommit};

/// Time after which the client sends a commit again that had no response.
const RESEND_WAIT: Duration = Duration::from_secs(2);

/// The longest time that a copy of a commit is on its way. Shorter than the session timeout, so
/// that the coordinator may still know the member.
const LATEST_COPY: Duration = Duration::from_secs(9);

/// How long after [`NOT_OWNED_LIMIT`] a member may still commit: a drain, with slow responses.
const ENDING: Duration = Simulation::DRAIN_TIMEOUT.saturating_mul(2);

/// The group coordinator's side of a commit. After a latency it accepts the offsets, or returns the
/// reason why it does not.
pub(super) async fn process_commit(
    cluster: &Cluster,
    id: MemberId,
    offsets: &[OffsetCommit],
) -> Vec<CommitOutcome> {
    let (latency, isolated) = {
        let mut state = cluster.lock();
        let now = Instant::now();
        let slow = matches!(state.faults.commits, Some((CommitFault::Slow, until)) if now < until);
        let limit = if slow { Duration::from_secs(15) } else { Duration::from_millis(40) };
        (state.rng.time(limit), state.group.isolated_until(id, now))
    };
    // librdkafka keeps the commit while the coordinator is unavailable. It then sends the commit
    // with the generation of that later time, and the broker checks that generation.
    if let Some(until) = isolated {
        sleep_until(until).await;
    }
    let generation = cluster.lock().group.generation(id);
    let is_lost = lose_request(cluster, (id, generation), offsets).await;
    sleep(latency).await;
    let mut state = cluster.lock();
    if let Some(client) = state.clients.get_mut(&id) {
        client.committing.clear();
        client.lost_commit |= is_lost;
    }
    let mut outcomes = state.apply_commit((id, generation), offsets);
    state.hide_success(&mut outcomes);
    state.check_rejections(id, offsets, &outcomes);
    outcomes
}

/// Now and then during [`CommitFault::Lost`], a copy of the request reaches the coordinator later.
/// The client sends the request again after a wait. Returns whether it does.
async fn lose_request(cluster: &Cluster, sender: (MemberId, u32), offsets: &[OffsetCommit]) -> bool {
    let (late, logs) = {
        let mut state = cluster.lock();
        let now = Instant::now();
        let loses = matches!(state.faults.commits, Some((CommitFault::Lost, until)) if now < until);
        if !loses || state.rng.chance(50) {
            return false;
        }
        (state.rng.time(LATEST_COPY), state.logs_of(offsets))
    };
    let (cluster, offsets) = (cluster.clone(), offsets.to_vec());
    tokio::spawn(async move {
        sleep(late).await;
        let mut state = cluster.lock();
        // Kafka would accept it for a topic that was created again. No client can prevent that.
        if state.logs_of(&offsets) == logs {
            state.note(format_args!("a late copy of a commit of member {} arrives", sender.0));
            state.apply_commit(sender, &offsets);
        }
    });
    sleep(RESEND_WAIT).await;
    true
}

impl ClusterState {
    /// The identities of the logs that a commit names.
    fn logs_of(&self, offsets: &[OffsetCommit]) -> Vec<Option<LogId>> {
        offsets.iter().map(|commit| Some(self.log_of(&commit.partition)?.id)).collect()
    }

    /// Commits offsets that a member has sent with that generation.
    fn apply_commit(
        &mut self,
        (id, generation): (MemberId, u32),
        offsets: &[OffsetCommit],
    ) -> Vec<CommitOutcome> {
        let now = Instant::now();
        let fault = self.faults.commits.filter(|(_, until)| now < *until).map(|(fault, _)| fault);
        let fence = self.group.fence_commit(id, generation, now);
        let outcomes: Vec<CommitOutcome> = offsets
            .iter()
            .map(|commit| match fence {
                _ if fault == Some(CommitFault::Retryable) => {
                    CommitOutcome::Retryable("coordinator load in progress".to_owned())
                }
                _ if fault == Some(CommitFault::Rejected) => {
                    CommitOutcome::Failed("group authorization failed".to_owned())
                }
                Fence::Retryable => CommitOutcome::Retryable("rebalance in progress".to_owned()),
                Fence::IllegalGeneration => CommitOutcome::NotOwned("illegal generation".to_owned()),
                Fence::UnknownMember => CommitOutcome::NotOwned("unknown member id".to_owned()),
                Fence::Accepted if self.log.get(&commit.partition).is_none() => {
                    CommitOutcome::Gone("unknown topic or partition".to_owned())
                }
                Fence::Accepted => CommitOutcome::Committed,
            })
            .collect();
        for (commit, outcome) in offsets.iter().zip(&outcomes) {
            let OffsetCommit { partition, offset, metadata } = commit;
            if *outcome == CommitOutcome::Committed {
                self.committed.insert(partition.clone(), (*offset, metadata.clone()));
                self.counters.commits += 1;
            }
            self.keep_plan(commit, outcome);
            self.note(format_args!("member {id}: commit of {partition} offset {offset}: {outcome:?}"));
        }
        outcomes
    }

    /// Now and then during [`CommitFault::Applied`], the response is an error although the offsets
    /// are committed, as when the coordinator's replicas are slow.
    fn hide_success(&mut self, outcomes: &mut [CommitOutcome]) {
        let now = Instant::now();
        let hides = matches!(self.faults.commits, Some((CommitFault::Applied, until)) if now < until);
        if hides && self.rng.chance(50) {
            for outcome in outcomes.iter_mut().filter(|outcome| **outcome == CommitOutcome::Committed) {
                *outcome = CommitOutcome::Retryable("request timed out".to_owned());
            }
        }
    }

    /// C5: a member whose commits the group rejects all the time does not stay. Another member may
    /// own its partitions.
    fn check_rejections(&mut self, id: MemberId, offsets: &[OffsetCommit], outcomes: &[CommitOutcome]) {
        let now = Instant::now();
        let Some(client) = self.clients.get_mut(&id) else { return };
        let mut stays = None;
        for (OffsetCommit { partition, .. }, outcome) in offsets.iter().zip(outcomes) {
            match outcome {
                CommitOutcome::Committed => drop(client.rejected.remove(partition)),
                CommitOutcome::Failed(_) => drop(client.failed_commits.insert(partition.clone())),
                CommitOutcome::NotOwned(_) if !client.released.contains_key(partition) => {
                    let since = *client.rejected.entry(partition.clone()).or_insert(now);
                    stays = stays
                        .or((now - since > NOT_OWNED_LIMIT + ENDING).then(|| (partition.clone(), since)));
                }
                _ => {}
            }
        }
        if let Some((partition, since)) = stays {
            let what = format!("commits of {partition} by member {id} are rejected for {:?}", now - since);
            self.violate("C5 a removed member ends", what);
        }
    }
}

impl ClusterState {
    /// Whether the group has removed the member since it got these partitions, and it has joined
    /// again without a notice.
    pub(super) fn was_removed(&self, id: MemberId, offsets: &[OffsetCommit]) -> bool {
        let incarnation = self.group.incarnation(id);
        let Some(client) = self.clients.get(&id) else { return false };
        offsets.iter().any(|commit| client.incarnations.get(&commit.partition) != Some(&incarnation))
    }

    /// Checks what must hold for every commit at the moment of its request.
    pub(super) fn check_commit(&mut self, id: MemberId, offsets: &[OffsetCommit]) {
        let committing = offsets.iter().map(|commit| commit.partition.clone()).collect();
        let outstanding = self
            .clients
            .get_mut(&id)
            .is_some_and(|client| !std::mem::replace(&mut client.committing, committing).is_empty());
        if outstanding {
            self.violate(
                "C8 one outstanding commit",
                format!("member {id} commits while a commit is outstanding"),
            );
        }
        for commit in offsets {
            let OffsetCommit { partition, offset, metadata } = commit;
            self.note(format_args!("member {id} commits {partition} offset {offset}"));
            if self.clients.get(&id).is_some_and(|client| client.failed_commits.contains(partition)) {
                let what = format!("member {id} commits {partition} after a permanent failure");
                self.violate("C4 a permanent failure ends the consumer", what);
            }
            let released = self.clients.get(&id).and_then(|client| client.released.get(partition).copied());
            match released {
                Some(Change::Lose) => {
                    let what = format!("member {id} commits {partition} offset {offset}, which it has lost");
                    self.violate("C5 lost means uncommitted", what);
                }
                Some(_) => {
                    let what =
                        format!("member {id} commits {partition} offset {offset}, which it has released");
                    self.violate("C4 only the owner commits", what);
                }
                None => {}
            }
            if self.log.get(partition).is_none() {
                continue; // the topic is deleted, and the member does not know it yet
            }
            if let Some(in_force) =
                self.metadata.get(partition).filter(|text| metadata.as_ref() != Some(text))
            {
                let what = format!(
                    "commit of {partition} offset {offset} carries {metadata:?} instead of {in_force:?}"
                );
                self.violate("C7 metadata in force", what);
            }
            if self.blocks.enabled {
                self.check_metadata(id, commit);
            }
            self.oracle.check_commit_offset(partition, *offset);
            if let Some(violation) = self.oracle.violation().cloned() {
                self.note(format_args!("BROKEN {violation}"));
            }
        }
    }
}
