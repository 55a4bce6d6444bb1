//! Runs the workspace's programs against real servers, as their users do.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use integration_tests::{Deadline, Process, program};
use tokio::sync::OnceCell;

/// Exit code and both outputs of a program.
pub(crate) type Ended = (Option<i32>, String);

/// Runs `kmr-demo` to its end.
pub(crate) async fn demo(arguments: &[&str]) -> Result<Ended> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let build = || program("kmr-demo", &["--workspace", "--bin", "kmr-demo"]);
    run(PROGRAM.get_or_try_init(build).await?, arguments, &[]).await
}

/// Runs `kmr` to its end.
pub(crate) async fn kmr(arguments: &[&str]) -> Result<Ended> {
    kmr_with(arguments, &[]).await
}

/// Runs `kmr` with environment variables.
pub(crate) async fn kmr_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Ended> {
    run(kmr_program().await?, arguments, variables).await
}

/// Builds `kmr`, for tests that send signals to it.
pub(crate) async fn kmr_program() -> Result<&'static PathBuf> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let build = || program("kmr", &["--workspace", "--bin", "kmr"]);
    PROGRAM.get_or_try_init(build).await
}

async fn run(program: &PathBuf, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    let mut process = Process::spawn(command)?;
    let status = process.wait(Deadline::seconds(60)).await?;
    Ok((status.code(), format!("{}{}", process.stdout(), process.stderr())))
}
