//! A ClickHouse server with a Keeper and a user with a password.

use anyhow::Result;
use kmr_testkit::{ClickHouse, ServerConfig};

/// The name and the password of a user with all permissions.
pub const ALICE: (&str, &str) = ("alice", "through-the-looking-glass");

/// A server for one test with a Keeper and the user [`ALICE`].
///
/// # Errors
///
/// When no server can be started.
pub async fn with_keeper() -> Result<ClickHouse> {
    let config = ServerConfig::default().keeper().user_with_password(ALICE.0, ALICE.1);
    Ok(ClickHouse::builder().config(config).start().await?)
}
