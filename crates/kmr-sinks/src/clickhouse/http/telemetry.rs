//! The log events of rotated credentials and certificates. Other events of the sink know its
//! tables, which know this folder.

use std::path::Path;

use kmr_core::error_chain;

use crate::clickhouse::error::ClickHouseError;

pub(crate) fn credentials_rotated(file: &Path) {
    let file = file.display().to_string();
    tracing::info!(name: "kmr.clickhouse.credentials_rotated", file, "credentials of ClickHouse changed: requests use the new ones");
}

#[cfg(feature = "clickhouse-tls")]
pub(crate) fn certificates_rotated(files: &str) {
    tracing::info!(name: "kmr.clickhouse.certificates_rotated", files, "certificates of ClickHouse changed: connections use the new ones");
}

/// Logged once, until the files are good again.
pub(crate) fn rotation_incomplete(problem: &str) {
    tracing::warn!(
        name: "kmr.clickhouse.rotation_incomplete",
        problem,
        "changed credentials or certificates cannot be used: kmr keeps those before them, and reads the files again"
    );
}

pub(crate) fn token_not_refreshed(error: &ClickHouseError) {
    tracing::warn!(
        name: "kmr.clickhouse.token_not_refreshed",
        error = error_chain(error),
        "token not refreshed: kmr uses the one before it, which has not expired, and tries again"
    );
}
