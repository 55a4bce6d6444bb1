//! The waits of kmr-testkit with conditions that return `anyhow`'s errors.

use anyhow::Result;
use kmr_testkit::Deadline;

/// See [`kmr_testkit::wait_until`].
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
    Ok(kmr_testkit::wait_until(deadline, what, async || Ok(condition().await?)).await?)
}

/// See [`kmr_testkit::wait_for`].
///
/// # Errors
///
/// As for [`wait_until`].
pub async fn wait_for<T>(
    deadline: Deadline,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    Ok(kmr_testkit::wait_for(deadline, what, async || Ok(probe().await?)).await?)
}
