//! Runs a child process under test: collects its output, sends signals, and reads its resource
//! usage.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kmr_testkit::__private::Guard;
use kmr_testkit::Deadline;
use serde_json::Value;

use crate::wait::wait_for;

/// The unit of processor time in `/proc`. Linux reports it to user space as 100 on every machine.
const TICKS_PER_SECOND: u64 = 100;

/// A signal that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM, as a supervisor sends it.
    Terminate,
    /// SIGKILL, `kill -9`.
    Kill,
    /// SIGHUP: read the configuration again.
    Hangup,
    /// SIGSTOP: freeze.
    Stop,
    /// SIGCONT: resume.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Hangup => "HUP",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A running child. Dropping it kills it. It never outlives the test binary.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: Output,
    stderr: Output,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program and collects both outputs in memory. Set `RUST_LOG` and the like on the
    /// command.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let guard = Guard::get()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        guard.watch(child.id());
        let stdout = Output::collect(child.stdout.take())?;
        let stderr = Output::collect(child.stderr.take())?;
        Ok(Self { child, name, stdout, stderr, ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("{} has ended already ({status}); its standard error:\n{}", self.name, self.stderr());
        }
        // The shell's built-in command, because the alternative is an unsafe call.
        let command = format!("kill -{} {}", signal.name(), self.pid());
        let sent = Command::new("sh").args(["-c", &command]).status().context("cannot run sh")?;
        if !sent.success() {
            bail!("{command}: {sent}");
        }
        Ok(())
    }

    /// Whether it has ended.
    ///
    /// # Errors
    ///
    /// The system does not know.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.try_wait()?.is_some())
    }

    /// Waits for its end. Afterwards both outputs are complete.
    ///
    /// # Errors
    ///
    /// At the deadline, with its standard error. The process continues to run.
    pub async fn wait(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let status = wait_for(deadline, &what, async || self.try_wait()).await;
        let status =
            status.map_err(|error| error.context(format!("its standard error:\n{}", self.stderr())))?;
        self.stdout.finish();
        self.stderr.finish();
        Ok(status)
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    ///
    /// As for [`Process::signal`] and [`Process::wait`].
    pub async fn end(&mut self, signal: Signal, deadline: Deadline) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(deadline).await
    }

    /// Waits until a line of standard error contains `part`, and returns that line.
    ///
    /// # Errors
    ///
    /// At the deadline or when the process ends without such a line, with its standard error.
    pub async fn wait_for_line(&mut self, deadline: Deadline, part: &str) -> Result<String> {
        let what = format!("{} writes `{part}`", self.name);
        let line = wait_for(deadline, &what, async || {
            let ended = self.try_wait()?;
            if ended.is_some() {
                self.stderr.finish();
            }
            match (self.stderr.find(part), ended) {
                (Some(line), _) => Ok(Some(line)),
                (None, Some(status)) => bail!("it ended ({status})"),
                (None, None) => Ok(None),
            }
        });
        line.await.map_err(|error| error.context(format!("its standard error:\n{}", self.stderr())))
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Resident memory now, in bytes.
    ///
    /// # Errors
    ///
    /// When the process has ended. The same applies to the next two methods.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_field("VmRSS:")
    }

    /// Its peak resident memory, in bytes.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        self.status_field("VmHWM:")
    }

    /// Processor time so far, user and system, over all its threads.
    pub fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        // Counted after the parenthesis that ends the program's name: fields 14 and 15 of the line.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
        let ticks: Result<Vec<u64>, _> = fields.context("no name in it")?.map(str::parse).collect();
        Ok(Duration::from_millis(ticks?.iter().sum::<u64>() * 1000 / TICKS_PER_SECOND))
    }

    fn status_field(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|rest| rest.split_whitespace().next());
        let kilobytes: u64 = kilobytes.with_context(|| format!("{} has ended", self.name))?.parse()?;
        Ok(kilobytes * 1024)
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("waiting for {}", self.name))?;
            if self.ended.is_some() {
                Guard::get()?.forget(self.pid());
            }
        }
        Ok(self.ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // This fails only when the process has ended meanwhile.
        let _ = self.child.kill();
        let _ = self.try_wait();
        let _ = self.child.wait();
        if let Ok(guard) = Guard::get() {
            guard.forget(self.pid());
        }
    }
}

/// The text that a thread has read from a pipe.
#[derive(Debug)]
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn collect(pipe: Option<impl Read + Send + 'static>) -> Result<Self> {
        let pipe = pipe.context("the child has no pipe")?;
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let (mut lines, mut line) = (BufReader::new(pipe), Vec::new());
            // By bytes, because a child can write invalid UTF-8.
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let read = String::from_utf8_lossy(&line).into_owned();
                sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(&read);
                line.clear();
            }
        });
        Ok(Self { text, reader: Some(reader) })
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, part: &str) -> Option<String> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.lines().find(|line| line.contains(part)).map(str::to_owned)
    }

    /// Reads the rest of the pipe of a child that has ended.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The reader cannot panic. If it did, the text read so far remains.
            let _ = reader.join();
        }
    }
}

/// The path of a program of this workspace, built if it is not up to date, for tests that run what
/// users run: `program("kmr-demo", &["--release", "--package", "kmr-demo"]).await?`.
///
/// A set of features of its own means compiling most dependencies again, in minutes, so ask for
/// what `cargo xtask test` has built by then, as this example does. A consumer that only tests need
/// is better a binary of this package: it is compiled along, and its path is
/// `env!("CARGO_BIN_EXE_<name>")`.
///
/// # Errors
///
/// When it does not build, with the output of the compiler.
pub async fn program(name: &str, build: &[&str]) -> Result<PathBuf> {
    // target/<profile>/deps/it-1234: the tests themselves
    let tests = std::env::current_exe().context("where am I")?;
    let target = tests.ancestors().nth(3).context("the tests are not in target/<profile>/deps")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--message-format", "json-render-diagnostics"]);
    command.args(build).arg("--target-dir").arg(target);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cannot build {name}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    executable(&output.stdout, name).with_context(|| format!("cargo names no program {name}"))
}

/// Finds the path of a program in cargo's JSON messages. A benchmark's file has a hash in its name,
/// so the path cannot be derived.
fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut named = messages.filter(|message| message["target"]["name"] == name);
    named.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}
