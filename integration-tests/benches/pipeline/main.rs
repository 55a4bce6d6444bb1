//! kmr's whole pipeline on real Kafka and real ClickHouse, its ceilings, and what a user would take instead, measured in one
//! run, round after round. BENCHMARKS.md says what is measured and how.
//!
//! ```sh
//! cargo bench -p integration-tests --bench pipeline
//! cargo bench -p integration-tests --bench pipeline -- --smoke
//! ```
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod contenders;
mod driver;
mod figures;
mod measurements;
mod options;
mod payload;
mod programs;
mod servers;
mod shared;
mod table;

use anyhow::Result;
use clap::Parser as _;

use self::options::Options;

// For Rust and for librdkafka's C code, as in kmr-demo. `glibc.rs` is the program without it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<()> {
    // `cargo test --all-targets` runs benchmarks, too, with a test's arguments. Only what `cargo bench` starts, or what this
    // program starts itself, is meant to run.
    if !std::env::args().any(|argument| matches!(argument.as_str(), "--bench" | "--job")) {
        println!("nothing is measured without `cargo bench`");
        return Ok(());
    }
    let options = Options::parse();
    if let Some(job) = &options.job {
        return contenders::run(job);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(driver::run(&options))
}
