//! One sentence about how the consumer is.

use kmr_core::{ConsumerState, EventKind, Status};

/// The worst thing that a status shows, or that all is well.
pub(crate) fn of(status: &Status) -> String {
    match status.state {
        ConsumerState::Starting => "The consumer starts and has no Kafka client yet.".to_owned(),
        ConsumerState::Reconnecting => "The Kafka client failed and is being replaced.".to_owned(),
        ConsumerState::Stopping => "The consumer drains, flushes, commits and leaves the group.".to_owned(),
        ConsumerState::Ended => ended(status),
        _ if !status.responsive => {
            "The task that commits does not answer: the runtime is stuck, or overloaded.".to_owned()
        }
        _ => late(status).unwrap_or_else(|| progress(status)),
    }
}

fn ended(status: &Status) -> String {
    let errors = status.events.iter().filter(|event| event.kind == EventKind::Error);
    match errors.map(|event| event.text.as_str()).find_map(|text| text.strip_prefix("the consumer ended: ")) {
        Some(error) => format!("The consumer has ended with an error: {error}"),
        None => "The consumer has ended.".to_owned(),
    }
}

/// The late partition that has waited longest.
fn late(status: &Status) -> Option<String> {
    let late = || status.partitions.iter().filter(|(_, partition)| partition.late);
    let (name, partition) = late().max_by_key(|(_, partition)| partition.age)?;
    let waits_for = partition.waits_for.as_deref().unwrap_or("nothing that is known");
    let others = match late().count() - 1 {
        0 => String::new(),
        others => format!(" ({others} more late)"),
    };
    Some(format!("{name} makes no progress for {} s; waits for {waits_for}{others}", partition.age.as_secs()))
}

fn progress(status: &Status) -> String {
    let retried = status.deliveries.iter().find(|delivery| delivery.attempt > 1);
    if let Some(delivery) = retried {
        format!("{} retries a delivery, attempt {}.", delivery.stage, delivery.attempt)
    } else if status.all_paused {
        "All partitions are paused by the operator.".to_owned()
    } else if status.partitions.is_empty() {
        "No partition is assigned to this consumer.".to_owned()
    } else {
        "All partitions make progress.".to_owned()
    }
}
