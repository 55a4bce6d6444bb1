//! The last events of a consumer, in bounded memory.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::event::{Event, EventKind};

/// Events that are kept of each kind. A flood of one kind removes no event of another.
const KEPT: usize = 50;
/// An equal event after a longer time is another event.
const REPEATS_WITHIN: Duration = Duration::from_secs(60);
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
    /// Adds an event. If it repeats one of the last minute, it is counted with that one.
    pub(super) fn add(&self, mut event: Event) {
        if let Some((end, _)) = event.text.char_indices().nth(LONGEST) {
            event.text.truncate(end);
        }
        let mut kept = self.of(event.kind);
        if let Some(at) = kept.iter().rposition(|known| event.repeats(known))
            && let Some(known) = kept.remove(at)
        {
            (event.first_time, event.count) = (known.first_time, known.count + event.count);
        } else if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
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
    /// Not by partition: what fails mostly fails for all of them.
    fn repeats(&self, known: &Event) -> bool {
        let quiet = self.time.duration_since(known.time).unwrap_or_default();
        self.kind != EventKind::Rebalance
            && (&self.stage, &self.text) == (&known.stage, &known.text)
            && quiet < REPEATS_WITHIN
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
            let partition = i32::try_from(offset % 3).unwrap();
            log.add(failed().at(&TopicPartition::new("t", partition), Some(offset)).with_count(2));
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
    fn errors_that_alternate_are_counted_until_a_minute_is_quiet() {
        let log = EventLog::default();
        let late = |n: i32| Event::error(format!("late {}", n % 2)).at(&TopicPartition::new("t", n), None);
        (0..10).for_each(|n| log.add(late(n)));
        assert_eq!(log.all().iter().map(|event| event.count).collect::<Vec<_>>(), [5, 5]);
        let mut next = late(0);
        next.time += 2 * REPEATS_WITHIN;
        log.add(next.clone());
        next.time += REPEATS_WITHIN / 2;
        log.add(next);
        let all = log.all();
        assert_eq!((all.len(), all[0].count), (3, 2));
        assert!(all[0].time > all[0].first_time);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let log = EventLog::default();
        log.add(Event::new(EventKind::Error, "ü".repeat(10 * LONGEST)));
        assert_eq!(log.all()[0].text.chars().count(), LONGEST);
    }
}
