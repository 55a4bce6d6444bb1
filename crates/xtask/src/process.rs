//! Running a program: with a deadline, with its output passed on and read, or for its answer alone.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::root;

/// How much of a log goes into an error.
const LOG_TAIL_LINES: usize = 20;

const POLL: Duration = Duration::from_millis(50);

/// How long the output of a program that has ended may stay open, held by a child that
/// still runs.
const LEFT_OPEN: Duration = Duration::from_secs(5);

/// Runs a program and passes on its standard output line by line. `look` sees each line, too.
///
/// # Errors
///
/// When it cannot be started, or at the deadline, when it and all its descendants are killed.
pub(crate) fn stream(
    command: &mut Command,
    limit: Duration,
    mut look: impl FnMut(&str),
) -> Result<ExitStatus> {
    let mut child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let (sender, lines) = mpsc::channel();
    let stdout = child.stdout.take().context("no pipe")?;
    std::thread::spawn(move || {
        let (mut stdout, mut line) = (BufReader::new(stdout), Vec::new());
        while stdout.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut pass_on = |line: String| {
        let mut stdout = std::io::stdout();
        // A closed pipe is no reason to stop testing.
        let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
        look(line.trim_end());
    };
    let started = Instant::now();
    let status = loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => pass_on(line),
            // Both mean that there is nothing to read now; the second returns at once.
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            kill_tree(&mut child);
            bail!("killed after its limit of {} s", limit.as_secs());
        }
    };
    let ended = Instant::now();
    while let Ok(line) = lines.recv_timeout(LEFT_OPEN.saturating_sub(ended.elapsed())) {
        pass_on(line);
    }
    Ok(status)
}

/// Runs a program whose many lines matter only when it fails: they go to a file, and the end of it
/// into the error.
///
/// # Errors
///
/// When it cannot be started, fails, or takes longer than `limit`.
pub(crate) fn logged(command: &mut Command, limit: Duration, log: &str) -> Result<()> {
    let path = state_directory().join(log);
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut child = start(command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file))?;
    let started = Instant::now();
    let failure = loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => break status.to_string(),
            None if started.elapsed() > limit => {
                kill_tree(&mut child);
                break format!("killed after its limit of {} s", limit.as_secs());
            }
            None => std::thread::sleep(POLL),
        }
    };
    bail!("{failure}; {}", end_of_log(&path))
}

/// The end of a log, and where all of it is.
pub(crate) fn end_of_log(path: &Path) -> String {
    let log = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
    format!("the end of {}:\n{tail}", path.display())
}

/// Where xtask keeps logs and what else outlives a run.
pub(crate) fn state_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let directory = target.join("xtask");
    // An error shows at the first file that is written there, with its name.
    let _ = std::fs::create_dir_all(&directory);
    directory
}

/// Runs a program for its standard output; its standard error is shown only when it fails.
///
/// # Errors
///
/// When it cannot be started, fails, or takes longer than `limit`.
pub(crate) fn answer(command: &mut Command, limit: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (pid, (sender, output)) = (child.id(), mpsc::channel());
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(limit) else {
        kill_descendants(pid);
        send(pid, "KILL");
        bail!("{name} gave no answer in {} s", limit.as_secs());
    };
    let output = output?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program of this name is on the [`system_path`].
pub(crate) fn is_installed(program: &str) -> bool {
    std::env::split_paths(&system_path()).any(|directory| directory.join(program).is_file())
}

/// The path, followed by the directories of dockerd and debootstrap, which not even every root
/// has on it.
pub(crate) fn system_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

pub(crate) fn start(command: &mut Command) -> Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().with_context(|| format!("cannot start {name}"))
}

pub(crate) fn kill_tree(child: &mut Child) {
    kill_descendants(child.id());
    // An error means that it has just ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// Descendants rather than a process group: with a group of its own a step would not receive
/// Ctrl-C.
fn kill_descendants(pid: u32) {
    // Stopped, it starts no child that the list of its children would lack.
    send(pid, "STOP");
    for child in children(pid) {
        kill_descendants(child);
        send(child, "KILL");
    }
}

fn send(pid: u32, signal: &str) {
    // The alternative to the program is an unsafe call. A process that is gone already is fine.
    let _ = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).stderr(Stdio::null()).status();
}

fn children(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|candidate| parent(*candidate) == Some(pid)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    stat_field(&pid.to_string(), 4)?.parse().ok()
}

/// The processor time of all programs that this one has started and that have ended, with theirs.
pub(crate) fn children_cpu() -> Duration {
    let ticks = |field| stat_field("self", field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    // In user mode and in the kernel. Linux reports both in hundredths of a second.
    Duration::from_millis(10 * (ticks(16) + ticks(17)))
}

/// A field of the status of a process, numbered as in proc(5), from 3 on.
fn stat_field(pid: &str, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    // Field 3 is the first after the parenthesis that ends the program's name.
    stat.rsplit_once(')')?.1.split_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_seen_and_the_status_comes_back() -> Result<()> {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        let status =
            stream(command.args(["-c", "echo one; echo two; exit 3"]), Duration::from_secs(10), |line| {
                seen.push(line.to_owned());
            })?;
        assert_eq!((status.code(), seen), (Some(3), vec!["one".to_owned(), "two".to_owned()]));
        Ok(())
    }

    #[test]
    fn a_deadline_kills_grandchildren_too() -> Result<()> {
        let mut pid = None;
        let mut command = Command::new("sh");
        let started = Instant::now();
        let script = "sh -c 'echo $$; while :; do sleep 1; done' & wait";
        let result =
            stream(command.args(["-c", script]), Duration::from_millis(500), |line| pid = line.parse().ok());
        assert!(result.is_err() && started.elapsed() < Duration::from_secs(20));
        let grandchild: u32 = pid.context("no process id read")?;
        // A killed process is seen until the kernel has taken it down, and until its new parent
        // collects it.
        let killed = Instant::now();
        while let Some(state) = state(grandchild).filter(|state| !"ZX".contains(state)) {
            assert!(killed.elapsed() < Duration::from_secs(10), "process {grandchild} is in state {state}");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// One character.
    fn state(pid: u32) -> Option<String> {
        stat_field(&pid.to_string(), 3)
    }

    #[test]
    fn the_processor_time_of_programs_is_counted() -> Result<()> {
        let before = children_cpu();
        // A loop in a child of the child.
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done'; :";
        answer(Command::new("sh").args(["-c", script]), Duration::from_secs(60))?;
        let used = children_cpu().saturating_sub(before);
        assert!(used >= Duration::from_millis(20), "{used:?}");
        Ok(())
    }

    #[test]
    fn an_answer_that_does_not_come_is_an_error() {
        let result = answer(Command::new("sleep").arg("60"), Duration::from_millis(100));
        assert!(result.is_err_and(|error| error.to_string().contains("no answer")));
    }
}
