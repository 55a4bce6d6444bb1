//! The frame of a program: logging, the runtime, and the exit code.

use std::process::ExitCode;

use crate::{errors, logging, output};

/// Runs a command to its end and prints its error, if any, as one line on standard error.
pub fn run(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    logging::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(command)) {
        Ok(code) => code,
        Err(error) => {
            output::note(&format!("error: {}", errors::one_line(&error)));
            ExitCode::FAILURE
        }
    }
}
