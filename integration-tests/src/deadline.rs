//! Waiting for a fact, with a deadline and a name: the tests' replacement for sleeping.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Polls start this far apart and slow down to [`SLOWEST_POLL`]: quick facts are seen at once, slow ones cost little.
const FIRST_POLL: Duration = Duration::from_millis(10);
const SLOWEST_POLL: Duration = Duration::from_millis(250);

/// A point in time by which something must have happened. Copy it to give several steps one common limit.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    allowed: Duration,
}

impl Deadline {
    /// That long from now.
    pub fn after(allowed: Duration) -> Self {
        Self { end: Instant::now() + allowed, allowed }
    }

    /// That many seconds from now.
    pub fn seconds(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// What is left, zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Runs `future` until the deadline, and fails with the name of what was waited for.
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
/// At the deadline, naming `what`; at once when the condition itself fails, so map errors that may pass to `Ok(false)`.
pub async fn wait_until(
    deadline: Deadline,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(deadline, what, async || Ok(condition().await?.then_some(()))).await
}

/// Polls `probe` until it gives a value, and returns that.
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
    async fn gives_the_value_when_it_is_there() -> Result<()> {
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
    async fn names_what_never_came() {
        let deadline = Deadline::after(Duration::from_millis(30));
        let error = wait_until(deadline, "the moon is cheese", async || Ok(false)).await.unwrap_err();
        assert!(error.to_string().contains("the moon is cheese"), "{error}");
    }

    #[tokio::test]
    async fn cuts_off_a_condition_that_hangs() {
        let deadline = Deadline::after(Duration::from_millis(30));
        let error = wait_until(deadline, "a hang", async || std::future::pending().await).await.unwrap_err();
        assert!(error.to_string().contains("a hang"), "{error}");
    }
}
