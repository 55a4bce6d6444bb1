//! A watch channel that wakes its followers in the order in which they subscribed.
//!
//! `tokio::sync::watch` wakes them in a random order, so that a simulated run would not repeat.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// Makes a value and its first follower.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<Versioned<T>>,
    followers: Mutex<Vec<Weak<Notify>>>,
}

#[derive(Debug)]
struct Versioned<T> {
    value: T,
    version: u64,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Versioned<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, seen: u64) -> Receiver<T> {
        let wake = Arc::new(Notify::new());
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(&wake));
        Receiver { shared: self.clone(), seen, wake }
    }
}

/// The half that changes the value.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        let shared =
            Shared { state: Mutex::new(Versioned { value, version: 0 }), followers: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Changes the value and wakes all followers.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value, and wakes all followers if `change` returns `true`.
    pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        {
            let mut state = self.shared.lock();
            if !change(&mut state.value) {
                return;
            }
            state.version += 1;
        }
        let followers = self.shared.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.iter().filter_map(Weak::upgrade).for_each(|wake| wake.notify_one());
    }

    /// A follower that has seen the current value.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let seen = self.shared.lock().version;
        self.shared.follow(seen)
    }
}

/// One follower.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
    wake: Arc<Notify>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.follow(self.seen)
    }
}

impl<T> Receiver<T> {
    /// Resolves when the value has changed since the last call. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            let version = self.shared.lock().version;
            if std::mem::replace(&mut self.seen, version) != version {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Resolves when `wanted` holds for the value. Cancel safe.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) {
        loop {
            if self.read(&wanted) {
                return;
            }
            self.changed().await;
        }
    }

    /// Reads the value under its lock, so `read` must not block.
    pub(crate) fn read<U>(&self, read: impl FnOnce(&T) -> U) -> U {
        read(&self.shared.lock().value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_follower_sees_each_change_once() {
        let (sender, mut first) = channel(0);
        let mut second = first.clone();
        sender.send_modify(|value| *value = 1);
        sender.send_if_modified(|_| false);
        first.changed().await;
        second.changed().await;
        assert_eq!((first.read(|value| *value), second.read(|value| *value)), (1, 1));
        let waiting = tokio::time::timeout(std::time::Duration::from_secs(9), first.changed()).await;
        assert!(waiting.is_err());
        let waiting = tokio::spawn(async move { second.wait_for(|value| *value == 3).await });
        tokio::task::yield_now().await;
        sender.send_modify(|value| *value = 2);
        tokio::task::yield_now().await;
        sender.send_modify(|value| *value = 3);
        assert!(waiting.await.is_ok());
    }
}
