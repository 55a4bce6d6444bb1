//! The input channels of the reduce stages, as a status shows them.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::WeakSender;

/// The input channel of one reduce stage. It keeps the channel not open.
pub(super) struct StageChannel {
    name: Arc<str>,
    capacity: usize,
    max_deliveries: usize,
    waiting: Box<dyn Fn() -> usize + Send + Sync>,
}

/// The channel of one stage at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StageReading {
    pub(crate) name: Arc<str>,
    /// Chunks of rows that wait in its channel.
    pub(crate) waiting: usize,
    pub(crate) capacity: usize,
    pub(crate) max_deliveries: usize,
}

impl StageChannel {
    pub(super) fn new<T: Send + 'static>(name: &str, max_deliveries: usize, sender: WeakSender<T>) -> Self {
        // A sender that is closed has no capacity to read, and nothing waits in it.
        let capacity = sender.upgrade().map_or(0, |sender| sender.max_capacity());
        let waiting = move || sender.upgrade().map_or(0, |open| open.max_capacity() - open.capacity());
        Self { name: name.into(), capacity, max_deliveries, waiting: Box::new(waiting) }
    }

    pub(super) fn read(&self) -> StageReading {
        let Self { name, capacity, max_deliveries, waiting } = self;
        StageReading {
            name: name.clone(),
            waiting: waiting(),
            capacity: *capacity,
            max_deliveries: *max_deliveries,
        }
    }
}

impl fmt::Debug for StageChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageChannel").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_reading_counts_what_waits_and_does_not_keep_the_channel_open() {
        let (sender, mut receiver) = mpsc::channel(4);
        let channel = StageChannel::new("reduce 1", 2, sender.downgrade());
        (0..3).for_each(|n| sender.try_send(n).unwrap());
        let reading = channel.read();
        assert_eq!((reading.waiting, reading.capacity, reading.max_deliveries), (3, 4, 2));
        drop(sender);
        while receiver.recv().await.is_some() {}
        assert_eq!((channel.read().waiting, channel.read().capacity), (0, 4));
    }
}
