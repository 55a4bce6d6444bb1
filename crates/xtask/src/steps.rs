//! The steps of `cargo xtask test`: their commands, their order and their time limits.
//!
//! A cold run spends most of its time on compiling, above all librdkafka's C code. Cargo compiles
//! everything once for each set of features, and unites the features of the selected packages. So
//! every step that can selects the whole workspace, and librdkafka is built once, with gzip, zstd
//! and ssl. What is only checked needs no librdkafka ([`without_librdkafka`]).
//!
//! Tests are built by a command of their own, so that the summary has its processor time.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::engine::Engine;
use crate::style::{self, Check};
use crate::summary::{Failures, Line, Summary, Tests};
use crate::{figures, guide, images, packages, process, promtool, root};

/// The steps, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Formatting: rustfmt, and comments and Markdown of at most 100 columns
    Fmt,
    /// Style: import circles, links between documents, quotes of the code, the words in use
    Style,
    /// Clippy on everything, warnings denied
    Clippy,
    /// kmr-core without features, each sink alone, the status server alone, the test kit alone
    Features,
    /// Unit, property, mock-cluster, compile-fail and doc tests
    Unit,
    /// Documentation, warnings denied; the guide, and its links
    Doc,
    /// The demo on its embedded cluster, in the release profile (only with `--only demo`)
    Demo,
    /// Real Kafka and real ClickHouse, in containers
    Integration,
}

/// What to run.
pub(crate) struct Selection {
    pub(crate) steps: Vec<Step>,
    /// For the test binaries.
    pub(crate) arguments: Vec<String>,
    pub(crate) soak: bool,
}

/// The steps that these options select, in order. The step `Demo` runs only with `--only demo`,
/// because its profile compiles everything once more. A test in `Unit` runs the demo in the dev
/// profile.
pub(crate) fn selected(only: &[Step], skip: &[Step], no_containers: bool) -> Vec<Step> {
    let all = Step::value_variants().iter().copied();
    all.filter(|step| if only.is_empty() { *step != Step::Demo } else { only.contains(step) })
        .filter(|step| !skip.contains(step))
        .filter(|step| !(no_containers && *step == Step::Integration))
        .collect()
}

/// Runs all steps, also after a failure: no step depends on the result of another.
///
/// # Errors
///
/// The machine lacks something that every step needs. The error names it.
pub(crate) fn run(selection: &Selection) -> Result<bool> {
    packages::ensure(&packages::BUILD)?;
    let mut summary = Summary::default();
    // First, so that a machine that cannot run containers fails in the first minute. `engine` is
    // kept until all steps have ended.
    let engine = selection.steps.contains(&Step::Integration).then(|| services(&mut summary));
    let no_services = matches!(engine, Some(None));
    figures::clear()?;
    for step in &selection.steps {
        if *step == Step::Integration && no_services {
            // The step `services` has failed already, so the run fails.
            continue;
        }
        for command in commands(*step, selection) {
            summary.add(command.run());
        }
        for check in checks(*step) {
            summary.add(run_check(check.name, || check.run()));
        }
        if *step == Step::Doc {
            summary.add(run_check("guide", guide::build));
        }
        if *step == Step::Integration && selection.arguments.is_empty() {
            summary.add(run_check("alert rules", promtool::check));
        }
    }
    drop(engine);
    figures::print();
    summary.print();
    Ok(summary.is_good())
}

/// Runs the client's tests under memcheck. A finding that the suppression file does not list is a
/// failure.
///
/// # Errors
///
/// The machine lacks something that the run needs. The error names it.
pub(crate) fn valgrind(arguments: &[String]) -> Result<bool> {
    packages::ensure(&packages::BUILD)?;
    packages::ensure(&packages::VALGRIND)?;
    let suppressions = root().join("crates/kmr-core/tests/valgrind.supp");
    let runner = [
        "valgrind",
        "--error-exitcode=99",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
        "--num-callers=40",
        // Threads take turns. Otherwise, threads that wait for each other starve.
        "--fair-sched=yes",
        &format!("--suppressions={}", suppressions.display()),
    ];
    let client = ["client::".to_owned(), "--test-threads=4".to_owned()];
    let mut memcheck = cargo("valgrind", "test --package kmr-core --lib", 40)
        .with_env("KMR_CLIENT_ROUNDS", "30")
        .with_env("KMR_CLIENT_PATIENCE", "300")
        .with_arguments(if arguments.is_empty() { &client } else { arguments });
    let runner = format!("target.'cfg(all())'.runner={runner:?}");
    memcheck = memcheck.with_config(Some(&runner));
    let mut summary = Summary::default();
    summary.add(memcheck.run());
    summary.print();
    Ok(summary.is_good())
}

/// Starts the engine and gets the images and the browser, as a step of its own.
pub(crate) fn services(summary: &mut Summary) -> Option<Engine> {
    heading("services");
    let started = Instant::now();
    let others = || {
        images::ensure_all()
            .and_then(|_| packages::ensure(&packages::BROWSER))
            .and_then(|()| packages::ensure(&packages::CHAOS))
    };
    let result = Engine::get().and_then(|engine| others().map(|()| engine));
    let failure = result.as_ref().err().map(|error| format!("{error:#}"));
    if let Some(failure) = &failure {
        eprintln!("error: {failure}");
    }
    summary.add(Line { name: "services".to_owned(), failure, took: started.elapsed(), ..Line::default() });
    result.ok()
}

/// One command of a step.
struct Cargo {
    name: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    limit: Duration,
}

/// How many tests run at once: more than a small machine has processors, because tests mostly wait
/// for timeouts and servers. Integration tests that need the whole machine run one at a time
/// (`alone` in their scene.rs).
const TEST_THREADS: &str = "RUST_TEST_THREADS";
const UNIT_THREADS: &str = "4";
const INTEGRATION_THREADS: &str = "4";

fn commands(step: Step, selection: &Selection) -> Vec<Cargo> {
    match step {
        Step::Fmt => vec![cargo("fmt", "fmt --all --check", 2)],
        Step::Style => Vec::new(),
        Step::Clippy => {
            // Cargo selects the integration tests only by their name, and not beside --all-targets.
            vec![
                cargo("clippy", "clippy --workspace --all-targets -- --deny warnings", 25),
                cargo("clippy, integration tests", "clippy --workspace --test it -- --deny warnings", 15),
            ]
        }
        // Without the integration tests: Cargo runs that target only by its name.
        Step::Unit => {
            let tests =
                cargo("unit", "test --no-fail-fast --workspace", 30).with_arguments(&selection.arguments);
            let build = cargo("unit, build", "test --no-run --workspace", 30);
            vec![build, tests.with_env(TEST_THREADS, UNIT_THREADS)]
        }
        Step::Features => features(),
        Step::Doc => {
            let doc = cargo("doc", "doc --workspace --no-deps", 15);
            // Packages without compiling them: metadata, files, and the order of publication.
            let packages =
                cargo("packages", "publish --workspace --dry-run --no-verify --allow-dirty --quiet", 10);
            vec![doc.with_env("RUSTDOCFLAGS", "--deny warnings"), packages]
        }
        Step::Demo => vec![cargo("demo", "run --release --package kmr-demo", 20)],
        Step::Integration => {
            let minutes = if selection.soak { 360 } else { 40 };
            let tests = cargo("integration", "test --no-fail-fast --workspace --test it", minutes)
                .with_arguments(&selection.arguments)
                .with_env(TEST_THREADS, INTEGRATION_THREADS)
                .with_env(figures::VARIABLE, &figures::file().to_string_lossy());
            let build = cargo("integration, build", "test --no-run --workspace --test it", 30);
            vec![build, if selection.soak { tests.with_env("KMR_SOAK", "1") } else { tests }]
        }
    }
}

/// The checks of a step that do not run cargo.
fn checks(step: Step) -> &'static [Check] {
    match step {
        Step::Fmt => &[style::COLUMNS],
        Step::Style => &[
            style::DEPLOYMENT,
            style::GUIDE_INDEX,
            style::IMPORTS,
            style::LINKS,
            style::LOG_EVENTS,
            style::QUOTES,
            style::WORDS,
        ],
        _ => &[],
    }
}

/// Runs what is not a cargo command, and returns the number of its findings.
fn run_check(name: &str, run: impl FnOnce() -> Result<usize>) -> Line {
    heading(name);
    let started = Instant::now();
    let failure = match run() {
        Ok(0) => None,
        Ok(findings) => Some(format!("{findings} findings")),
        Err(error) => Some(format!("{error:#}")),
    };
    println!("{name}: {}", failure.as_deref().unwrap_or("ok"));
    Line { name: name.to_owned(), failure, took: started.elapsed(), ..Line::default() }
}

fn features() -> Vec<Cargo> {
    let stub = without_librdkafka();
    let check = |name: &str, arguments: &str| {
        let check = cargo(name, &format!("clippy {arguments} -- --deny warnings"), 15);
        check.with_config(stub.as_deref())
    };
    let mut all = vec![check("kmr-core, no features", "--package kmr-core --no-default-features")];
    for feature in ["clickhouse", "clickhouse-tls", "clickhouse-zstd", "kafka", "os-stream", "memory"] {
        let alone = format!("--package kmr-sinks --no-default-features --features {feature}");
        all.push(check(&format!("kmr-sinks, {feature} alone"), &format!("--all-targets {alone}")));
    }
    for feature in ["csv", "raw", "registry", "avro", "protobuf", "tls", "testing"] {
        let alone = format!("--package kmr-formats --no-default-features --features {feature}");
        all.push(check(&format!("kmr-formats, {feature} alone"), &alone));
    }
    for feature in ["msk-iam", "oidc"] {
        let alone = format!("--package kmr-auth --no-default-features --features {feature}");
        all.push(check(&format!("kmr-auth, {feature} alone"), &alone));
    }
    // Without the tests, and so without the feature `testing` of kmr-core.
    all.push(check("kmr-status alone", "--package kmr-status"));
    all.push(check("kmr-testkit alone", "--package kmr-testkit"));
    all
}

/// A Cargo setting that replaces the build script of rdkafka-sys, which compiles librdkafka. It
/// suits commands that check code and link nothing. `None` if rustc does not name its platform.
fn without_librdkafka() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = process::answer(Command::new(rustc).arg("-vV"), Duration::from_secs(20)).ok()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "))?;
    Some(format!("target.{host}.rdkafka.rustc-link-lib=[]"))
}

fn cargo(name: &str, arguments: &str, minutes: u64) -> Cargo {
    Cargo {
        name: name.to_owned(),
        arguments: arguments.split_whitespace().map(str::to_owned).collect(),
        environment: Vec::new(),
        limit: Duration::from_secs(60 * minutes),
    }
}

impl Cargo {
    fn with_env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn with_config(mut self, setting: Option<&str>) -> Self {
        if let Some(setting) = setting {
            self.arguments.splice(1..1, ["--config".to_owned(), setting.to_owned()]);
        }
        self
    }

    /// Passes arguments on to the test binaries.
    fn with_arguments(mut self, arguments: &[String]) -> Self {
        if !arguments.is_empty() {
            self.arguments.push("--".to_owned());
            self.arguments.extend_from_slice(arguments);
        }
        self
    }

    fn run(&self) -> Line {
        heading(&format!("{}: cargo {}", self.name, self.arguments.join(" ")));
        let (started, used) = (Instant::now(), process::children_cpu());
        let (mut tests, mut failures) = (Tests::default(), Failures::default());
        let result = process::stream(&mut self.command(), self.limit, |line| {
            tests.read(line);
            failures.read(line);
        });
        let failure = match result {
            Ok(status) if status.success() => None,
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(format!("{error:#}")),
        };
        let (took, cpu) = (started.elapsed(), process::children_cpu().saturating_sub(used));
        let outcome = failure.as_deref().unwrap_or("ok");
        println!("{}: {outcome} in {:.1} s, {:.0} CPU s", self.name, took.as_secs_f64(), cpu.as_secs_f64());
        Line { name: self.name.clone(), failure, output: failures.into_lines(), tests, took, cpu }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root()).args(&self.arguments);
        // Without a backtrace, the error of a failed test is one readable chain of causes.
        command.env("RUST_LIB_BACKTRACE", "0");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn heading(text: &str) {
    println!("\n=== {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_leave_the_right_steps_in_order() {
        let all = selected(&[], &[], false);
        assert_eq!(all.len(), Step::value_variants().len() - 1);
        assert!(!all.contains(&Step::Demo) && selected(&[Step::Demo], &[], false) == [Step::Demo]);
        assert_eq!(selected(&[Step::Unit, Step::Fmt], &[], false), [Step::Fmt, Step::Unit]);
        let rest = selected(&[], &[Step::Unit], true);
        assert!(!rest.iter().any(|step| matches!(step, Step::Unit | Step::Integration)));
    }
}
