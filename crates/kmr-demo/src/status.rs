//! The status server of `run` and of the embedded demo.

use std::path::Path;

use kmr_cli_support::output;
use kmr_core::ConsumerHandle;
use kmr_status::StatusServer;

/// Starts the server, and names its address on standard error. It ends with the process.
///
/// # Errors
/// The address cannot be bound, or the token cannot be used.
pub(crate) async fn serve(
    address: &str,
    token_file: Option<&Path>,
    handle: ConsumerHandle,
) -> anyhow::Result<()> {
    let server = StatusServer::new(handle).bind(address);
    let server = match token_file {
        Some(path) => server.actions_token_file(path),
        None => server,
    };
    let server = server.spawn().await?;
    output::note(&format!("status page: http://{}/", server.address()));
    Ok(())
}
