//! The project's own commands. On a fresh machine, `cargo xtask test` is the only one you need.

#![expect(clippy::print_stderr, reason = "a command-line tool reports what it does")]

/// Shadows the standard macro, which panics if the reader has ended: `cargo xtask words | head`.
macro_rules! println {
    ($($arguments:tt)*) => {{
        let _ = std::io::Write::write_fmt(
            &mut std::io::stdout(),
            format_args!("{}\n", format_args!($($arguments)*)),
        );
    }};
}

/// The same without the end of a line.
macro_rules! print {
    ($($arguments:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!($($arguments)*));
    }};
}

mod bench;
mod chaos;
mod engine;
mod figures;
mod guide;
mod images;
mod packages;
mod process;
mod promtool;
mod servers;
mod sim;
mod steps;
mod style;
mod summary;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::steps::{Selection, Step};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs all tests: formatting, style, clippy, features, unit tests, docs, integration tests
    ///
    /// Installs missing packages first (as root on Debian). If one cannot be installed, an error
    /// names it, and the command fails. Starts the container engine if none runs, and stops it at
    /// the end. The last line is `N passed, N failed`: the tests of all steps. A step that failed
    /// without a failed test counts as one failed test.
    Test(TestArguments),
    /// The integration tests with large counts (KMR_SOAK=1). Takes hours on a small machine
    Soak {
        /// Arguments of the test binary, such as a part of a test's name
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// The simulation: thousands of runs of the whole consumer on a simulated cluster with faults,
    /// in virtual time
    Sim(sim::Arguments),
    /// Random faults on consumers, Kafka, ClickHouse and the network between them, in both modes
    /// of delivery, then `kmr verify`. Prints a table for each mode
    Chaos(chaos::Arguments),
    /// The tests of the Kafka client under valgrind's memcheck: no error, no leak (installs
    /// valgrind as root on Debian)
    Valgrind {
        /// Arguments of the test binary, such as a part of a test's name. Default: all tests of the
        /// client
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// The benchmark on real servers: kmr, its ceilings and its rivals (BENCHMARKS.md)
    Bench {
        /// Its options, such as --smoke or --rounds 3
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Counts the words that kmr replaces with standard terms, in text and in names
    Words {
        /// Print every occurrence
        #[arg(short, long)]
        verbose: bool,
    },
    /// Builds the guide into docs/guide/book and checks its links, as the doc step does
    Guide,
    /// The container engine, the images, and servers to try things on by hand
    Services {
        #[command(subcommand)]
        action: Services,
    },
}

#[derive(clap::Args)]
struct TestArguments {
    /// Run this step only (repeat for more)
    #[arg(long, value_enum)]
    only: Vec<Step>,
    /// Leave this step out (repeat for more)
    #[arg(long, value_enum, conflicts_with = "only")]
    skip: Vec<Step>,
    /// Leave out what needs containers; the rest needs Rust, a C toolchain and OpenSSL's
    /// development files
    #[arg(long)]
    no_containers: bool,
    /// Arguments of the test binaries in the steps `unit` and `integration`, such as a part of a
    /// test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Subcommand)]
enum Services {
    /// Starts the engine if none runs and gets or builds the images, which is all that the tests
    /// need
    Prepare,
    /// As `prepare`, and starts Kafka at 127.0.0.1:9092 and ClickHouse at 127.0.0.1:8123, the
    /// default addresses of `kmr-demo run`
    Up,
    /// Removes these two servers, and stops the engine if `prepare` or `up` started it
    Down,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether everything passed. An error means that the command could not run.
fn run(arguments: Arguments) -> Result<bool> {
    match arguments.command {
        Command::Test(test) => steps::run(&Selection {
            steps: steps::selected(&test.only, &test.skip, test.no_containers),
            arguments: test.arguments,
            soak: false,
        }),
        Command::Soak { arguments } => {
            steps::run(&Selection { steps: vec![Step::Integration], arguments, soak: true })
        }
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Valgrind { arguments } => steps::valgrind(&arguments),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Words { verbose } => style::count_words(verbose).map(|()| true),
        Command::Guide => guide::build().map(|findings| findings == 0),
        Command::Services { action } => {
            match action {
                Services::Prepare => drop(servers::prepare_and_leave()?),
                Services::Up => servers::up()?,
                Services::Down => servers::down()?,
            }
            Ok(true)
        }
    }
}

/// The root of the workspace.
fn root() -> &'static std::path::Path {
    // The manifest is in crates/xtask, two levels below the root.
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}
