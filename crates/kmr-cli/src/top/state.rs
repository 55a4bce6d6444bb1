//! The states of consumers and partitions: a word, and how severe it is.

use super::status::{Partition, Status};

/// How a state is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Calm,
    Good,
    Warn,
    Bad,
}

/// The state of a consumer in a word.
pub(super) fn state(status: &Status) -> (&str, Kind) {
    match status.state.as_str() {
        "running" if !status.responsive => ("stuck", Kind::Bad),
        "running" if !status.healthy => ("late", Kind::Bad),
        "running" if status.all_paused => ("paused", Kind::Warn),
        "running" => ("healthy", Kind::Good),
        other @ ("ended" | "reconnecting") => (other, Kind::Bad),
        other => (other, Kind::Warn),
    }
}

/// The state of a partition in a word. The same as on the status page.
pub(super) fn partition_state(partition: &Partition) -> (&'static str, Kind) {
    if partition.late {
        ("late", Kind::Bad)
    } else if partition.paused {
        ("paused", Kind::Warn)
    } else if partition.age_seconds >= Some(10.0) {
        ("waiting", Kind::Warn)
    } else if partition.oldest_unfinished.is_some() || partition.lag_records > Some(0) {
        ("working", Kind::Good)
    } else {
        ("idle", Kind::Calm)
    }
}

/// How severe the state of a partition is. Severe partitions come first.
pub(super) fn severity(partition: &Partition) -> u8 {
    match partition {
        Partition { late: true, .. } => 3,
        Partition { age_seconds: Some(10.0..), .. } => 2,
        Partition { lag_seconds: Some(30.0..), .. } => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Status {
        let partition =
            |n: u64, late: bool| json!({ "topic": "t", "partition": n, "lag_records": 5, "late": late });
        let all = [partition(0, false), partition(1, true)];
        let value = json!({ "partitions": all, "state": "running", "healthy": true, "responsive": true });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn states_have_a_word() {
        let mut status = status();
        assert_eq!(state(&status), ("healthy", Kind::Good));
        status.all_paused = true;
        assert_eq!(state(&status).0, "paused");
        status.healthy = false;
        assert_eq!(state(&status), ("late", Kind::Bad));
        status.responsive = false;
        assert_eq!(state(&status), ("stuck", Kind::Bad));
        let words: Vec<_> = status.partitions.iter().map(|partition| partition_state(partition).0).collect();
        assert_eq!(words, ["working", "late"]);
    }
}
