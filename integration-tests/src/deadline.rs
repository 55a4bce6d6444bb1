//! Waits for a named fact until a deadline. Tests use this in place of sleeping.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// First interval between polls. It grows to [`SLOWEST_POLL`], so that slow facts cost little.
const FIRST_POLL: Duration = Duration::from_millis(10);
const SLOWEST_POLL: Duration = Duration::from_millis(250);

/// A point in time by which something must have happened. Copies give several steps one limit.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    allowed: Duration,
}

impl Deadline {
    /// `allowed` from now.
    pub fn after(allowed: Duration) -> Self {
        Self { end: Instant::now() + allowed, allowed }
    }

    /// `seconds` from now.
    pub fn seconds(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// The time left, zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Runs `future` until the deadline. The error of a timeout names `what`.
    pub async fn cap<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.remaining(), future)
            .await
            .with_context(|| format!("not within {:?}: {what}", self.allowed))
    }
}

/// Polls `condition` until it is true.
///
/// # Errors
///
/// At the deadline, naming `what`. At once when the condition itself fails, so map transient errors
/// to `Ok(false)`.
pub async fn wait_until(
    deadline: Deadline,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(deadline, what, async || Ok(condition().await?.then_some(()))).await
}

/// Polls `probe` until it gives a value, and returns the value.
///
/// # Errors
///
/// As for [`wait_until`].
pub async fn wait_for<T>(
    deadline: Deadline,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut pause = FIRST_POLL;
    loop {
        if let Some(value) = deadline.cap(what, probe()).await?.with_context(|| format!("waiting: {what}"))? {
            return Ok(value);
        }
        if deadline.has_passed() {
            bail!("not within {:?}: {what}", deadline.allowed);
        }
        tokio::time::sleep(pause.min(deadline.remaining())).await;
        pause = (pause * 3 / 2).min(SLOWEST_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wait_returns_the_value_once_the_probe_gives_it() -> Result<()> {
        let mut polls = 0;
        let value = wait_for(Deadline::seconds(5), "three polls", async || {
            polls += 1;
            Ok((polls == 3).then_some(polls))
        })
        .await?;
        assert_eq!(value, 3);
        Ok(())
    }

    #[tokio::test]
    async fn timeout_names_the_awaited_fact() {
        let deadline = Deadline::after(Duration::from_millis(30));
        let error = wait_until(deadline, "the moon is cheese", async || Ok(false)).await.unwrap_err();
        assert!(error.to_string().contains("the moon is cheese"), "{error}");
    }

    #[tokio::test]
    async fn a_condition_that_hangs_ends_at_the_deadline() {
        let deadline = Deadline::after(Duration::from_millis(30));
        let error = wait_until(deadline, "a hang", async || std::future::pending().await).await.unwrap_err();
        assert!(error.to_string().contains("a hang"), "{error}");
    }
}
