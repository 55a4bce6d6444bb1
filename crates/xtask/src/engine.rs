//! The container engine: the running one, or one that is started for as long as it is needed.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::packages::{self, ensure, is_root};
use crate::process::{answer, end_of_log, is_installed, kill_tree, start, state_directory, system_path};

/// How long dockerd may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long dockerd may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Timeout of one command of the client.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// Runs dockerd until its own standard input ends, that is, until this process does, however it
/// ends. The reader has to name its input: a shell gives background commands an empty one.
const KEEPER: &str = r#"
"$@" </dev/null &
engine=$!
exec 3<&0
(while read -r line <&3; do :; done; kill -TERM "$engine") &
reader=$!
wait "$engine"
status=$?
kill "$reader" 2>/dev/null
exit "$status"
"#;

/// A running engine. Dropping it stops one that was started for this run.
pub(crate) struct Engine {
    own: Option<Child>,
}

/// The version of the running engine. `None`: no engine responds. That a client is installed does
/// not show that an engine runs.
pub(crate) fn version() -> Option<String> {
    let mut command = docker(&["version", "--format", "{{.Server.Version}}"]);
    answer(&mut command, COMMAND_LIMIT).ok().filter(|version| !version.is_empty())
}

/// The engine's command-line client.
pub(crate) fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments);
    command
}

impl Engine {
    /// The running engine, or one that is started now and stopped when this is dropped.
    ///
    /// # Errors
    ///
    /// When there is none and none can be started, with what is missing.
    pub(crate) fn get() -> Result<Self> {
        if let Some(version) = found()? {
            println!("container engine {version}, which was running");
            return Ok(Self { own: None });
        }
        let mut own = spawn(&mut supervised())?;
        match wait_ready(&mut own) {
            Ok(version) => {
                println!("container engine {version}, started for this run");
                Ok(Self { own: Some(own) })
            }
            Err(error) => {
                stop(&mut own);
                Err(error)
            }
        }
    }

    /// The running engine, or one that is started now and keeps running until `services down`.
    ///
    /// # Errors
    ///
    /// As for [`Engine::get`].
    pub(crate) fn get_and_leave() -> Result<()> {
        if let Some(version) = found()? {
            println!("container engine {version}, which was running");
            return Ok(());
        }
        let mut command = Command::new("dockerd");
        command.stdin(Stdio::null()).process_group(0);
        let mut child = spawn(&mut command)?;
        let version = wait_ready(&mut child).inspect_err(|_| kill_tree(&mut child))?;
        std::fs::write(pid_file(), child.id().to_string()).context("cannot write the engine's process id")?;
        println!("container engine {version}, started; `cargo xtask services down` stops it");
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        // The last test binary's guard may still be removing its containers.
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) && test_containers_left() {
            std::thread::sleep(Duration::from_millis(200));
        }
        stop(own);
        println!("container engine stopped");
    }
}

/// Stops the engine that [`Engine::get_and_leave`] started, if it still runs.
///
/// # Errors
///
/// When it does not end in time.
pub(crate) fn stop_left() -> Result<()> {
    let Ok(pid) = std::fs::read_to_string(pid_file()) else { return Ok(()) };
    let pid = pid.trim();
    let is_engine =
        || std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "dockerd");
    if is_engine() {
        answer(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]), COMMAND_LIMIT)?;
        let started = Instant::now();
        while is_engine() {
            if started.elapsed() > STOP_LIMIT {
                bail!(
                    "the container engine (process {pid}) does not end; its log is {}",
                    log_file().display()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("container engine stopped");
    }
    std::fs::remove_file(pid_file()).context("cannot remove the engine's process id")
}

/// The version of a running engine. `None`: none is running, and dockerd is installed.
fn found() -> Result<Option<String>> {
    ensure(&packages::CLIENT)?;
    if let Some(version) = version() {
        return Ok(Some(version));
    }
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        bail!("DOCKER_HOST is {host}, where no container engine answers: start it, or unset the variable");
    }
    if !is_root() {
        let start = if is_installed("dockerd") {
            "start dockerd"
        } else {
            "apt-get install docker.io, and start dockerd"
        };
        bail!("no container engine answers. As root: {start}; or run this command as root");
    }
    ensure(&packages::ENGINE)?;
    // Installing it may have started it.
    Ok(version())
}

fn supervised() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", KEEPER, "kmr-test-engine", "dockerd"]).stdin(Stdio::piped());
    // Out of reach of Ctrl-C: the engine is stopped after what runs in it.
    command.process_group(0);
    command
}

fn spawn(command: &mut Command) -> Result<Child> {
    let log = File::create(log_file()).context("cannot write the engine's log")?;
    start(command.env("PATH", system_path()).stdout(log.try_clone()?).stderr(log))
}

fn wait_ready(child: &mut Child) -> Result<String> {
    let started = Instant::now();
    loop {
        if let Some(version) = version() {
            return Ok(version);
        }
        let ended = child.try_wait()?;
        if ended.is_some() || started.elapsed() > START_LIMIT {
            bail!("dockerd does not come up; {}", end_of_log(&log_file()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Ends the keeper's standard input and waits for it, and so for the engine.
fn stop(keeper: &mut Child) {
    drop(keeper.stdin.take());
    let started = Instant::now();
    while matches!(keeper.try_wait(), Ok(None)) {
        if started.elapsed() > STOP_LIMIT {
            eprintln!("the container engine does not end; its log is {}", log_file().display());
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn test_containers_left() -> bool {
    let mut list = docker(&["ps", "--all", "--quiet", "--filter", "label=kmr-test.owner"]);
    answer(&mut list, COMMAND_LIMIT).is_ok_and(|ids| !ids.is_empty())
}

fn log_file() -> PathBuf {
    state_directory().join("dockerd.log")
}

fn pid_file() -> PathBuf {
    state_directory().join("dockerd.pid")
}
