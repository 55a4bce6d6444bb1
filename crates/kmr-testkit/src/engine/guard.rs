//! Removes containers and child processes after the test binary has ended for any reason.
//!
//! The test runner has no teardown, and statics are not dropped. Therefore:
//!
//! 1. Every container carries a label with its owner: the id and the start time of this process.
//!    The start time distinguishes it from later processes with the same id.
//! 2. A shell reads from a pipe that only this process can write to. When this process ends, by
//!    return, panic, SIGINT or SIGKILL, the kernel closes the pipe. The shell then kills the listed
//!    children and removes the containers.
//! 3. At its first container, each run removes containers whose owner has ended. These are left
//!    when the engine was down or the shell was killed.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::ContainerSummary;
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use tokio::sync::OnceCell;

use crate::error::{Context as _, ErrorKind, Result};
use crate::report::log_line;

/// Label of every container of this crate. Its value is the owner.
const OWNER: &str = "kmr-test.owner";

/// Age after which a container is an orphan if its owner ran in another PID namespace, where this
/// process cannot check it. No run takes this long.
const OLDEST_FOREIGN_SECONDS: i64 = 3 * 3600;

/// The shell reads `watch PID` and `forget PID` until the end of input, and then cleans up.
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

/// The shell of this process, and the label of its containers.
#[derive(Debug)]
pub struct Guard {
    owner: String,
    shell: Mutex<ChildStdin>,
    swept: OnceCell<()>,
}

impl Guard {
    /// The guard of this process. The first call starts its shell.
    pub fn get() -> Result<&'static Self> {
        static GUARD: OnceLock<Result<Guard>> = OnceLock::new();
        GUARD.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self> {
        let owner = Owner::this()?.to_string();
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "kmr-test-guard", &format!("{OWNER}={owner}")])
            // With inherited outputs a reader of the tests' output would also wait for the shell.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // In a group of its own, so that the terminal's Ctrl-C ends only the tests.
            .process_group(0)
            .spawn()
            .context(ErrorKind::System, || {
                "cannot start sh, which removes containers at the end".to_owned()
            })?;
        let no_input = || "the shell has no standard input".to_owned();
        let stdin = shell.stdin.take().context(ErrorKind::System, no_input)?;
        Ok(Self { owner, shell: Mutex::new(stdin), swept: OnceCell::new() })
    }

    /// The labels of a container of this process.
    pub fn labels(&self) -> [(&'static str, String); 1] {
        [(OWNER, self.owner.clone())]
    }

    /// Adds a child to be killed when this process ends.
    pub fn watch(&self, pid: u32) {
        self.send(format_args!("watch {pid}\n"));
    }

    /// Removes a child that has ended. Another process can have its id by now.
    pub fn forget(&self, pid: u32) {
        self.send(format_args!("forget {pid}\n"));
    }

    fn send(&self, line: std::fmt::Arguments<'_>) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = shell.write_all(line.to_string().as_bytes()) {
            log_line(format_args!(
                "the cleanup shell has ended ({error}); the next run removes the containers"
            ));
        }
    }

    /// Removes containers of earlier runs, once per process.
    pub(crate) async fn sweep_once(&self, docker: &Docker) {
        let sweep = async || {
            if let Err(error) = sweep(docker).await {
                log_line(format_args!("cannot list containers of earlier runs: {error:?}"));
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
    let all = docker.list_containers(Some(options)).await;
    for container in all.context(ErrorKind::Engine, || "listing containers".to_owned())? {
        let Some(id) = container.id.clone().filter(|_| is_orphan(&container)) else { continue };
        log_line(format_args!("removing container {} of a killed run", &id[..12.min(id.len())]));
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        // If it fails, most likely the guard of that run, or another run, is removing it too.
        let _ = docker.remove_container(&id, Some(options)).await;
    }
    Ok(())
}

fn is_orphan(container: &ContainerSummary) -> bool {
    let label = container.labels.as_ref().and_then(|labels| labels.get(OWNER));
    let Some(owner) = label.and_then(|text| Owner::parse(text)) else { return false };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let age = i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - container.created.unwrap_or(i64::MAX);
    owner.has_ended().unwrap_or(age > OLDEST_FOREIGN_SECONDS)
}

/// The identity of a process, unique on this kernel.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    namespace: String,
    pid: u32,
    started: u64,
}

impl Owner {
    fn this() -> Result<Self> {
        let pid = std::process::id();
        let started = start_time(pid).context(ErrorKind::System, || {
            "cannot read the start time of this process from /proc: kmr-testkit needs Linux".to_owned()
        })?;
        Ok(Self { namespace: pid_namespace(), pid, started })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let namespace = parts.next()?.to_owned();
        Some(Self { namespace, pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? })
    }

    /// Whether the process has ended. `None` in another namespace.
    fn has_ended(&self) -> Option<bool> {
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

/// Field 22 of `/proc/PID/stat`, counted after the parenthesis that ends the program's name.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_with_another_start_time_has_ended() -> Result<()> {
        let this = Owner::this()?;
        assert_eq!(Owner::parse(&this.to_string()), Some(Owner::this()?));
        assert_eq!(this.has_ended(), Some(false));
        let earlier = Owner { started: this.started - 1, ..this };
        assert_eq!(earlier.has_ended(), Some(true));
        Ok(())
    }

    #[test]
    fn a_process_of_another_namespace_has_an_unknown_state() -> Result<()> {
        let foreign = Owner { namespace: "1".to_owned(), ..Owner::this()? };
        assert_eq!(foreign.has_ended(), None);
        Ok(())
    }
}
