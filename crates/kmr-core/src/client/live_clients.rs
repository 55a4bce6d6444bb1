//! Counts clients until they are destroyed.
//!
//! A client is destroyed by a thread of its own, because that blocks. If the process ends
//! meanwhile, `exit` releases what OpenSSL holds while librdkafka's threads still use it: the
//! process crashes (seen as SIGSEGV and SIGABRT, with SASL/SCRAM). So a caller that may be the last
//! to run waits here.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The longest wait. A task that does not end may keep records, and they keep their client.
const LIMIT: Duration = Duration::from_secs(3);

/// The clients of one owner. Clones count the same clients.
#[derive(Clone, Debug, Default)]
pub struct LiveClients(watch::Sender<usize>);

impl LiveClients {
    /// Counts a client. The guard has to be dropped after the client is destroyed.
    pub fn count(&self) -> LiveClient {
        self.0.send_modify(|clients| *clients += 1);
        LiveClient(self.0.clone())
    }

    /// Waits until all clients are destroyed, for `limit` at most, and for 3 s at most. Returns
    /// whether they are.
    pub async fn destroyed(&self, limit: Duration) -> bool {
        let mut clients = self.0.subscribe();
        timeout(limit.min(LIMIT), clients.wait_for(|clients| *clients == 0)).await.is_ok()
    }
}

/// Guard of one client.
#[derive(Debug)]
pub struct LiveClient(watch::Sender<usize>);

impl Drop for LiveClient {
    fn drop(&mut self) {
        self.0.send_modify(|clients| *clients -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_clients_are_waited_for_and_not_without_a_limit() {
        let (clients, started) = (LiveClients::default(), Instant::now());
        assert!(clients.destroyed(Duration::MAX).await, "there is none");
        let guards = [clients.count(), clients.clone().count()];
        let waiting = tokio::spawn({
            let clients = clients.clone();
            async move { clients.destroyed(Duration::MAX).await }
        });
        tokio::task::yield_now().await;
        let [first, second] = guards;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        assert!(waiting.await.unwrap() && started.elapsed() == Duration::ZERO);
        let _kept = clients.count();
        assert!(!clients.destroyed(Duration::MAX).await && started.elapsed() == LIMIT);
    }
}
