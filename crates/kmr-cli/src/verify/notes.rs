//! Notes that both reports have: on the table, on dead letters, and on open transactions.

use std::collections::BTreeMap;
use std::ops::Range;

use kmr_cli_support::numbers::grouped;

use super::commits;

/// What an audit counts of dead-letter topics.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadLetterCounts {
    pub(super) repeated: u64,
    pub(super) nameless: u64,
}

/// Notes on open transactions and on the table.
pub(super) fn on_table(
    waiting: &BTreeMap<i32, Range<u64>>,
    volatile_engine: Option<&str>,
    knows_topics: bool,
) -> Vec<String> {
    let mut notes: Vec<String> =
        waiting.iter().map(|(partition, waiting)| commits::waiting(*partition, waiting)).collect();
    notes.extend(volatile_engine.map(|engine| {
        format!(
            "the table has the engine {engine}: its rows may be in memory only, and a kill of ClickHouse loses them"
        )
    }));
    if !knows_topics {
        notes.push("the table has no topic column: all of its rows count as this topic's".to_owned());
    }
    notes
}

/// Notes on dead letters, and `more` notes with their counts. Those with a count of 0 are left out.
pub(super) fn on_dead_letters(counts: DeadLetterCounts, more: &[(u64, &str)]) -> Vec<String> {
    let DeadLetterCounts { repeated, nameless } = counts;
    let all = [
        (repeated, "dead letters for a record that had one: they are delivered at least once"),
        (nameless, "messages of the dead-letter topics name no record in their headers"),
    ];
    let found = all.iter().chain(more).filter(|(count, _)| *count > 0);
    found.map(|(count, note)| format!("{} {note}", grouped(*count))).collect()
}
