//! The contenders with glibc's malloc, for Rust and for librdkafka's C code.
//!
//! This program does not name jemalloc, so it is not linked. The benchmark `pipeline` builds and
//! starts it.
#![expect(clippy::print_stdout, reason = "it prints how it is started")]
#![expect(dead_code, reason = "the shared modules have parts that only the driver uses")]

mod contenders;
mod payload;
mod shared;

use anyhow::Result;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--job").skip(1);
    // `cargo bench` without a name and `cargo test --all-targets` also start this program.
    let Some(job) = arguments.next() else {
        println!("the benchmark `pipeline` starts this program");
        return Ok(());
    };
    contenders::run(&job)
}
