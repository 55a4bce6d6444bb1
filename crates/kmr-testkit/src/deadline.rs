//! Waits for a named fact until a deadline. Tests use this in place of sleeping.

use std::time::{Duration, Instant};

use crate::error::{BoxError, Context as _, Error, ErrorKind, Result};

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

    /// Runs `future` until the deadline.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`], naming `what`.
    pub async fn cap<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T> {
        let capped = tokio::time::timeout(self.remaining(), future).await;
        capped.map_err(|_elapsed| self.timeout(what, ""))
    }

    /// The error of a wait that has reached this deadline.
    fn timeout(&self, what: &str, instead: &str) -> Error {
        let allowed = self.allowed;
        let instead = if instead.is_empty() { String::new() } else { format!("; instead: {instead}") };
        Error::new(ErrorKind::Timeout, format!("not within {allowed:?}: {what}{instead}"))
    }
}

/// What a poll has found.
pub(crate) enum Found<T> {
    /// The awaited value.
    Value(T),
    /// Something else, for the text of a timeout.
    Instead(String),
}

/// Polls `condition` until it is true.
///
/// # Errors
///
/// At the deadline with [`ErrorKind::Timeout`], naming `what`. At once with
/// [`ErrorKind::Condition`] when the condition itself fails, so map transient errors to
/// `Ok(false)`.
///
/// # Examples
///
/// ```
/// # async fn example(topic: kmr_testkit::Topic) -> kmr_testkit::Result<()> {
/// use kmr_testkit::{Deadline, wait_until};
///
/// wait_until(Deadline::seconds(30), "the group has no lag", async || {
///     Ok(topic.lag("my-group").await? == 0)
/// })
/// .await
/// # }
/// ```
pub async fn wait_until(
    deadline: Deadline,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool, BoxError>,
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
    mut probe: impl AsyncFnMut() -> Result<Option<T>, BoxError>,
) -> Result<T> {
    poll_until(deadline, what, async || {
        Ok(probe().await?.map_or_else(|| Found::Instead(String::new()), Found::Value))
    })
    .await
}

/// As [`wait_for`]. The error of a timeout also has what the last poll has found instead.
pub(crate) async fn poll_until<T>(
    deadline: Deadline,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<Found<T>, BoxError>,
) -> Result<T> {
    let (mut pause, mut last) = (FIRST_POLL, String::new());
    loop {
        let Ok(found) = tokio::time::timeout(deadline.remaining(), probe()).await else {
            return Err(deadline.timeout(what, &last));
        };
        match found.context(ErrorKind::Condition, || format!("waiting: {what}"))? {
            Found::Value(value) => return Ok(value),
            Found::Instead(instead) => last = instead,
        }
        if deadline.has_passed() {
            return Err(deadline.timeout(what, &last));
        }
        tokio::time::sleep(pause.min(deadline.remaining())).await;
        pause = (pause * 3 / 2).min(SLOWEST_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief() -> Deadline {
        Deadline::after(Duration::from_millis(30))
    }

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
    async fn timeout_names_the_awaited_fact_and_what_was_found() {
        let never = wait_until(brief(), "the moon is cheese", async || Ok(false)).await.unwrap_err();
        assert_eq!(never.kind(), ErrorKind::Timeout);
        assert_eq!(never.to_string(), "not within 30ms: the moon is cheese");
        let probe = async || Ok(Found::<()>::Instead("3 rows".to_owned()));
        let rows = poll_until(brief(), "5 rows", probe).await.unwrap_err();
        assert_eq!(rows.to_string(), "not within 30ms: 5 rows; instead: 3 rows");
    }

    #[tokio::test]
    async fn a_condition_that_hangs_ends_at_the_deadline() {
        let error = wait_until(brief(), "a hang", async || std::future::pending().await).await.unwrap_err();
        assert!(error.to_string().contains("a hang"), "{error}");
    }

    #[tokio::test]
    async fn a_condition_that_fails_ends_the_wait_at_once() {
        let fails = async || Err("no such table".into());
        let error = wait_until(Deadline::seconds(60), "rows", fails).await.unwrap_err();
        assert_eq!(
            (error.kind(), format!("{error:?}").as_str()),
            (ErrorKind::Condition, "waiting: rows: no such table")
        );
    }
}
