//! Measures kmr's whole pipeline on real Kafka and real ClickHouse, its ceilings, and its
//! alternatives, in interleaved rounds of one run. BENCHMARKS.md describes the measurements.
//!
//! ```sh
//! cargo bench -p integration-tests --bench pipeline
//! cargo bench -p integration-tests --bench pipeline -- --smoke
//! ```
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod bill;
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

// For Rust and for librdkafka's C code, as in kmr's programs. `glibc.rs` is the program without it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<()> {
    // `cargo test --all-targets` also starts benchmarks, with a test's arguments. Only `cargo
    // bench` and this program itself should start a measurement.
    if !std::env::args().any(|argument| matches!(argument.as_str(), "--bench" | "--job")) {
        println!("not started by `cargo bench`: nothing is measured");
        return Ok(());
    }
    let options = Options::parse();
    if let Some(job) = &options.job {
        return contenders::run(job);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(driver::run(&options))
}
