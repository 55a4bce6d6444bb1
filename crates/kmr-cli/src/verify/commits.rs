//! What the reports of both audits have on committed offsets.

use std::ops::Range;

use kmr_cli_support::numbers::grouped;

use super::args::VerifyArgs;
use super::partition_account::Bounds;

/// The faults of committed offsets, which make a comparison meaningless.
pub(super) fn faults(args: &VerifyArgs, partitions: &[(i32, Bounds)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (partition, bounds) in partitions.iter().filter(|(_, bounds)| bounds.committed_too_far()) {
        faults.push(format!(
            "partition {partition}: {} is committed, and the log ends at {}; was the topic recreated, or is a transaction open?",
            bounds.committed.unwrap_or_default(),
            bounds.end
        ));
    }
    if partitions.iter().all(|(_, bounds)| bounds.committed.is_none()) {
        let (group, topic) = (&args.group, &args.kafka.topic);
        faults.push(format!("group {group:?} has committed nothing of {topic:?}; is --group right?"));
    }
    faults
}

/// The note on offsets that an open transaction holds back.
pub(super) fn waiting(partition: i32, offsets: &Range<u64>) -> String {
    format!(
        "partition {partition}: {} offsets from {} on are held back by an open transaction: no consumer reads them before \
         it ends, and they are not checked",
        grouped(offsets.end - offsets.start),
        offsets.start
    )
}
