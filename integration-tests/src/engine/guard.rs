//! Removing containers and child processes when the test binary has ended, whatever ended it.
//!
//! The test runner has no tear-down and statics are not dropped, so:
//!
//! 1. Every container carries the label of its owner: this process, told apart from later ones with the same id by its
//!    start time.
//! 2. A shell reads from a pipe that only this process can write to. When this process ends, by return, panic, SIGINT or
//!    SIGKILL, the kernel closes the pipe, the shell reads its end, kills the listed children and removes the containers.
//! 3. At its first container, each run removes those whose owner is no longer there: the engine was down, or the shell was killed.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use testcontainers::bollard::Docker;
use testcontainers::bollard::models::ContainerSummary;
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use tokio::sync::OnceCell;

use crate::report::say;

/// On every container of the harness; its value is the owner.
const OWNER: &str = "kmr-test.owner";

/// A container whose owner ran in another PID namespace cannot be asked for; no run takes this long.
const OLDEST_FOREIGN_SECONDS: i64 = 3 * 3600;

/// The shell: `watch PID` and `forget PID` until the end of input, then clean.
const SCRIPT: &str = r#"
pids=' '
while read -r verb pid; do
    case $verb in
    watch) pids="$pids$pid " ;;
    forget) pids=$(printf '%s' "$pids" | sed "s/ $pid / /") ;;
    esac
done
for pid in $pids; do kill -KILL "$pid"; done
ids=$(docker ps --all --quiet --filter "label=$1")
[ -z "$ids" ] || docker rm --force --volumes $ids
"#;

/// The shell of this process, and what labels its containers.
#[derive(Debug)]
pub(crate) struct Guard {
    owner: String,
    shell: Mutex<ChildStdin>,
    swept: OnceCell<()>,
}

impl Guard {
    /// The guard of this process; the first call starts its shell.
    pub(crate) fn get() -> Result<&'static Self> {
        static GUARD: OnceLock<Result<Guard, String>> = OnceLock::new();
        let guard = GUARD.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        guard.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn start() -> Result<Self> {
        let owner = Owner::this()?.to_string();
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "kmr-test-guard", &format!("{OWNER}={owner}")])
            // Null, or whoever reads the tests' output would wait for the shell, too.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C, which means the tests.
            .process_group(0)
            .spawn()
            .context("cannot start sh, which removes containers at the end")?;
        let stdin = shell.stdin.take().context("the shell has no standard input")?;
        Ok(Self { owner, shell: Mutex::new(stdin), swept: OnceCell::new() })
    }

    /// The labels of a container of this process.
    pub(crate) fn labels(&self) -> [(&'static str, String); 1] {
        [(OWNER, self.owner.clone())]
    }

    /// Kill this child at the end.
    pub(crate) fn watch(&self, pid: u32) {
        self.tell(format_args!("watch {pid}\n"));
    }

    /// This child has ended; its id may be somebody else's by now.
    pub(crate) fn forget(&self, pid: u32) {
        self.tell(format_args!("forget {pid}\n"));
    }

    fn tell(&self, line: std::fmt::Arguments<'_>) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = shell.write_all(line.to_string().as_bytes()) {
            say(format_args!("the shell that cleans up is gone ({error}); the next run sweeps"));
        }
    }

    /// Removes what earlier runs left, once a process.
    pub(crate) async fn sweep_once(&self, docker: &Docker) {
        let sweep = async || {
            if let Err(error) = sweep(docker).await {
                say(format_args!("could not look for containers of earlier runs: {error:#}"));
            }
        };
        self.swept.get_or_init(sweep).await;
    }
}

async fn sweep(docker: &Docker) -> Result<()> {
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&std::collections::HashMap::from([("label", vec![OWNER])]))
        .build();
    for container in docker.list_containers(Some(options)).await? {
        let Some(id) = container.id.clone().filter(|_| is_orphan(&container)) else { continue };
        say(format_args!("removing container {} of a run that was killed", &id[..12.min(id.len())]));
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        if let Err(error) = docker.remove_container(&id, Some(options)).await {
            // Most likely the guard of that run, or another run, is just doing the same.
            tracing::debug!(%error, "not removed");
        }
    }
    Ok(())
}

fn is_orphan(container: &ContainerSummary) -> bool {
    let label = container.labels.as_ref().and_then(|labels| labels.get(OWNER));
    let Some(owner) = label.and_then(|text| Owner::parse(text)) else { return false };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let age = i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - container.created.unwrap_or(i64::MAX);
    owner.is_gone().unwrap_or(age > OLDEST_FOREIGN_SECONDS)
}

/// A process, told apart from all others on this kernel.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    namespace: String,
    pid: u32,
    started: u64,
}

impl Owner {
    fn this() -> Result<Self> {
        let pid = std::process::id();
        let started = start_time(pid).context("cannot read the start time of this process from /proc")?;
        Ok(Self { namespace: pid_namespace(), pid, started })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let namespace = parts.next()?.to_owned();
        Some(Self { namespace, pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? })
    }

    /// Whether the process has ended; `None` where this process cannot know.
    fn is_gone(&self) -> Option<bool> {
        (self.namespace == pid_namespace()).then(|| start_time(self.pid) != Some(self.started))
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.namespace, self.pid, self.started)
    }
}

/// The number in `pid:[4026531836]`.
fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// Field 22 of `/proc/PID/stat`, counted behind the parenthesis that ends the program's name.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there_and_one_with_another_start_time_is_gone() -> Result<()> {
        let this = Owner::this()?;
        assert_eq!(Owner::parse(&this.to_string()), Some(Owner::this()?));
        assert_eq!(this.is_gone(), Some(false));
        let earlier = Owner { started: this.started - 1, ..this };
        assert_eq!(earlier.is_gone(), Some(true));
        Ok(())
    }

    #[test]
    fn a_process_of_another_namespace_is_unknown() -> Result<()> {
        let foreign = Owner { namespace: "1".to_owned(), ..Owner::this()? };
        assert_eq!(foreign.is_gone(), None);
        Ok(())
    }
}
