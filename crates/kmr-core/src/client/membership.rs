//! A static member that was removed from its group, and has joined again without a notice.
//!
//! In a classic group with a static member, the group may remove the member while a revoke waits
//! for its answer. librdkafka then empties the member id, and reports no loss, because a rebalance
//! is under way (`rd_kafka_cgrp_revoke_all_rejoin_maybe`). After the answer it joins again at once,
//! under another member id and with a valid generation. Meanwhile another member may have had the
//! partitions that this one kept, and may have committed further. A commit from here would move
//! their offsets back. A dynamic member is rejected first, and then librdkafka reports the loss.
//!
//! So a commit needs the member id under which its partition was assigned.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::consumer::Consumer;

use super::context::Client;
use super::native::groups::member_id;
use crate::config::ClientConfig;
use crate::member::OffsetCommit;
use crate::record::TopicPartition;

/// The member ids under which the partitions of a static member were assigned.
#[derive(Default)]
pub(super) struct StaticMembership(Mutex<HashMap<TopicPartition, String>>);

impl StaticMembership {
    /// `None`: the member is dynamic, or in a KIP-848 group, where librdkafka reports each loss.
    pub(super) fn of(config: &ClientConfig) -> Option<Self> {
        let is_static = config.get("group.instance.id").is_some_and(|id| !id.is_empty());
        (is_static && !config.is_next_generation()).then(Self::default)
    }

    /// These partitions were assigned just now.
    pub(super) fn assigned(&self, client: &Client, partitions: &[TopicPartition]) {
        if !partitions.is_empty() {
            self.record(member_id(client.client()).as_deref().unwrap_or_default(), partitions);
        }
    }

    /// `id`: empty while the group has removed the member. It gets another one later.
    fn record(&self, id: &str, partitions: &[TopicPartition]) {
        self.lock().extend(partitions.iter().map(|partition| (partition.clone(), id.to_owned())));
    }

    /// Why none of these offsets may be committed. `None`: the partitions were assigned to this
    /// member.
    pub(super) fn removal(&self, client: &Client, offsets: &[OffsetCommit]) -> Option<String> {
        let now = member_id(client.client()).unwrap_or_default();
        self.removed(&now, offsets)
    }

    fn removed(&self, now: &str, offsets: &[OffsetCommit]) -> Option<String> {
        let ids = self.lock();
        let mut of = offsets.iter().filter_map(|commit| ids.get(&commit.partition));
        let before = of.find(|id| *id != now || now.is_empty())?;
        let before = if before.is_empty() { "that had these partitions" } else { before };
        let now = if now.is_empty() { "none" } else { now };
        Some(format!(
            "the group has removed the member {before}, and the client did not report it; its member id is {now}"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_static_member_of_a_classic_group_can_join_again_unnoticed() {
        let config = |settings: &[(&str, &str)]| {
            settings.iter().fold(ClientConfig::new(), |config, (name, value)| config.set(*name, *value))
        };
        assert!(StaticMembership::of(&config(&[("group.instance.id", "a")])).is_some());
        assert!(StaticMembership::of(&config(&[])).is_none());
        let next = [("group.instance.id", "a"), ("group.protocol", "consumer")];
        assert!(StaticMembership::of(&config(&next)).is_none());
    }

    #[test]
    fn a_commit_needs_the_member_id_of_its_assignment() {
        let membership = StaticMembership::default();
        let partition = |number| TopicPartition::new("t", number);
        let offsets =
            [0, 1].map(|number| OffsetCommit { partition: partition(number), offset: 5, metadata: None });
        assert_eq!(membership.removed("m-1", &offsets), None, "nothing is known");
        membership.record("m-1", &[partition(0)]);
        assert_eq!(membership.removed("m-1", &offsets), None);
        let removal = membership.removed("m-2", &offsets).unwrap();
        assert!(removal.contains("removed the member m-1") && removal.contains("is m-2"), "{removal}");
        assert!(membership.removed("", &offsets).unwrap().contains("is none"));
        assert_eq!(membership.removed("m-2", &offsets[1..]), None, "another partition");
        // Assigned while the client had no member id.
        membership.record("", &[partition(1)]);
        assert!(membership.removed("m-2", &offsets[1..]).is_some());
        assert!(membership.removed("", &offsets[1..]).is_some());
    }
}
