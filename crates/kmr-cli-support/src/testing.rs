//! Runs a program in tests as its users do, and collects its exit code and output.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};

/// Every tested command ends long before. A program that hangs fails its test.
const DEADLINE: Duration = Duration::from_secs(60);

/// The result of a program.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

/// Runs `program` to its end, without the machine's own `KMR_` variables and `RUST_LOG`.
///
/// # Errors
///
/// When it cannot be started, or does not end within a minute.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KMR_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = drain(child.stdout.take().context("standard output is not a pipe")?);
    let stderr = drain(child.stderr.take().context("standard error is not a pipe")?);
    let Ok(stdout) = stdout.recv_timeout(DEADLINE) else {
        child.kill()?;
        child.wait()?;
        bail!("{args:?} did not end within {DEADLINE:?}: {:?}", stderr.recv());
    };
    let stderr = stderr.recv_timeout(DEADLINE).context("standard error did not end with standard output")?;
    Ok(Output { code: child.wait()?.code(), stdout, stderr })
}

/// Reads a stream to its end, which comes with the end of the process.
fn drain(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (text, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // After a read error the test checks the part that was read.
        let _ = stream.read_to_end(&mut bytes);
        let _ = text.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    received
}
