//! Every log event of this crate. Names and fields are stable. No event has a token in it.

use std::net::SocketAddr;
use std::path::Path;

use crate::error::StatusError;

pub(crate) fn listens(address: SocketAddr, actions: bool) {
    if address.ip().is_loopback() {
        tracing::info!(name: "kmr.status.listens", %address, actions, "status server listens");
    } else {
        tracing::warn!(
            name: "kmr.status.listens_beyond_loopback",
            %address,
            actions,
            "status server listens where other machines may reach it; it has no TLS, and every reader \
             there sees topics, offsets and errors"
        );
    }
}

pub(crate) fn action(action: &str) {
    tracing::warn!(name: "kmr.status.action", action, "the status server carries out an action of an operator");
}

pub(crate) fn action_denied(action: &str) {
    tracing::warn!(name: "kmr.status.action_denied", action, "the status server rejected an action: wrong or missing token");
}

pub(crate) fn liveness_file_failed(path: &Path, error: &StatusError) {
    tracing::warn!(name: "kmr.status.liveness_file_failed", path = %path.display(), error = kmr_core::error_chain(error), "liveness file not written");
}
