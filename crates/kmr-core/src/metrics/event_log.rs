//! The last events of a consumer, in bounded memory.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::{Event, EventKind};

/// Events that are kept of each kind. A flood of one kind removes no event of another.
const KEPT: usize = 50;
/// Longest text of an event, in characters.
const LONGEST: usize = 500;

/// The last events of one consumer.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    rebalances: Mutex<VecDeque<Event>>,
    errors: Mutex<VecDeque<Event>>,
    dead_letters: Mutex<VecDeque<Event>>,
}

impl EventLog {
    /// Adds an event. It is counted with the last one if only time, offset and count differ.
    pub(super) fn add(&self, mut event: Event) {
        if let Some((end, _)) = event.text.char_indices().nth(LONGEST) {
            event.text.truncate(end);
        }
        let mut kept = self.of(event.kind);
        match kept.back_mut() {
            Some(last) if last.repeats(&event) => {
                let Event { time, offset, count, .. } = event;
                (last.time, last.offset, last.count) = (time, offset, last.count + count);
            }
            _ => {
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(event);
            }
        }
    }

    /// All events, the newest first.
    pub(super) fn all(&self) -> Vec<Event> {
        let kinds = [EventKind::Rebalance, EventKind::Error, EventKind::DeadLetter];
        let mut all: Vec<Event> =
            kinds.into_iter().flat_map(|kind| self.of(kind).iter().cloned().collect::<Vec<_>>()).collect();
        all.sort_by_key(|event| Reverse(event.time));
        all
    }

    fn of(&self, kind: EventKind) -> MutexGuard<'_, VecDeque<Event>> {
        let events = match kind {
            EventKind::Rebalance => &self.rebalances,
            EventKind::Error => &self.errors,
            EventKind::DeadLetter => &self.dead_letters,
        };
        events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Event {
    fn repeats(&self, other: &Event) -> bool {
        (&self.partition, &self.stage, &self.text) == (&other.partition, &other.stage, &other.text)
            && self.kind != EventKind::Rebalance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicPartition;

    #[test]
    fn repeated_events_are_counted_and_a_flood_removes_no_other_kind() {
        let log = EventLog::default();
        log.add(Event::new(EventKind::Rebalance, "assign"));
        log.add(Event::new(EventKind::Rebalance, "assign"));
        let failed = || Event::new(EventKind::DeadLetter, "code 27").in_stage("map 1");
        for offset in 0..1000 {
            log.add(failed().at(&TopicPartition::new("t", 0), Some(offset)).with_count(2));
        }
        let all = log.all();
        assert_eq!(all.len(), 3, "each rebalance is an event of its own");
        let dead = all.iter().find(|event| event.kind == EventKind::DeadLetter).unwrap();
        assert_eq!((dead.count, dead.offset), (2000, Some(999)));
        (0..1000).for_each(|n| log.add(Event::new(EventKind::Error, format!("error {n}"))));
        let all = log.all();
        assert_eq!(all.len(), 3 + KEPT);
        let errors: Vec<_> = all.iter().filter(|event| event.kind == EventKind::Error).collect();
        assert!(errors.iter().any(|event| event.text == "error 999"), "the last events are kept");
        assert!(all.is_sorted_by(|a, b| a.time >= b.time));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let log = EventLog::default();
        log.add(Event::new(EventKind::Error, "ü".repeat(10 * LONGEST)));
        assert_eq!(log.all()[0].text.chars().count(), LONGEST);
    }
}
