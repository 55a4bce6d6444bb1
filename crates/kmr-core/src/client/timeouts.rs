//! Timeouts of single requests to brokers and to librdkafka.

use std::time::Duration;

/// One metadata request.
pub(super) const METADATA: Duration = Duration::from_secs(2);
/// One request to the group coordinator at start.
pub(super) const COORDINATOR: Duration = Duration::from_secs(2);
/// The statistics that have the addresses of brokers, for an error.
pub(super) const ADDRESSES: Duration = Duration::from_secs(2);
/// One request for the cluster id, which comes with the metadata.
pub(super) const CLUSTER_ID: Duration = Duration::from_secs(10);
/// One request for topic ids.
pub(super) const TOPIC_IDS: Duration = Duration::from_secs(5);
/// One request for offsets.
pub(super) const OFFSETS: Duration = Duration::from_secs(5);
/// One request for the ends of logs, to all leaders. No thread waits for it.
pub(super) const LOG_ENDS: Duration = Duration::from_secs(10);
/// The next statistics. They come twice a second, or as often as the user has set.
pub(super) const STATISTICS: Duration = Duration::from_secs(120);
/// Moving the position of partitions. librdkafka itself answers it.
pub(super) const SEEK: Duration = Duration::from_secs(10);
/// Leaving the group. Afterwards the client is dropped.
pub(super) const LEAVE: Duration = Duration::from_secs(10);
