//! The demo's progress, and its display.

use std::time::{Duration, Instant};

use kmr_cli_support::numbers::{grouped, per_second};
use kmr_core::ConsumerHandle;

use super::console::Console;
use super::producer::MessageProducer;

/// Interval between lines, without a terminal.
const LINE: Duration = Duration::from_secs(1);
/// Minimum time that a rate is measured over.
const RATE: Duration = Duration::from_millis(500);

/// The progress at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) produced: u64,
    pub(crate) consumed: u64,
    pub(crate) committed: u64,
    pub(crate) dead_letters: u64,
    /// The producer has ended, and all its messages are committed.
    pub(crate) complete: bool,
}

impl Snapshot {
    pub(crate) fn take(producer: &MessageProducer, handle: &ConsumerHandle) -> Self {
        let ended = producer.ended(); // read first: afterwards `produced` is final
        let produced = producer.produced();
        let stats = handle.stats();
        let committed = stats.committed.values().map(|offset| offset.unsigned_abs()).sum();
        Self {
            produced,
            consumed: stats.records,
            committed,
            dead_letters: stats.dead_letters,
            complete: ended && committed >= produced,
        }
    }
}

/// Shows snapshots.
pub(crate) struct Progress<'a> {
    console: &'a Console,
    started: Instant,
    shown: Instant,
    measured: (Instant, Snapshot),
    rates: (u64, u64),
}

impl<'a> Progress<'a> {
    pub(crate) fn new(console: &'a Console) -> Self {
        let now = Instant::now();
        Self { console, started: now, shown: now, measured: (now, Snapshot::default()), rates: (0, 0) }
    }

    pub(crate) fn show(&mut self, now: &Snapshot) {
        self.measure(now);
        let (produce, consume) = self.rates;
        match self.console {
            Console::Bar(bar) => {
                bar.set_position(now.committed);
                bar.set_message(format!(
                    "{}/s produced, {}/s consumed, {} dead letters",
                    grouped(produce),
                    grouped(consume),
                    grouped(now.dead_letters)
                ));
            }
            Console::Lines if self.shown.elapsed() >= LINE => {
                self.shown += LINE;
                self.console.line(&format!(
                    "{:>3} s: produced {} ({}/s), consumed {} ({}/s), committed {}, dead letters {}",
                    self.started.elapsed().as_secs(),
                    grouped(now.produced),
                    grouped(produce),
                    grouped(now.consumed),
                    grouped(consume),
                    grouped(now.committed),
                    grouped(now.dead_letters)
                ));
            }
            Console::Lines => {}
        }
    }

    pub(crate) fn note(&self, text: &str) {
        self.console.line(text);
    }

    fn measure(&mut self, now: &Snapshot) {
        let (since, before) = self.measured;
        let time = since.elapsed();
        if time < RATE {
            return;
        }
        self.rates = (
            per_second(now.produced - before.produced, time),
            per_second(now.consumed - before.consumed, time),
        );
        self.measured = (Instant::now(), *now);
    }
}
