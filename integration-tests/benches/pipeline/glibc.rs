//! The contenders with glibc's malloc, for Rust and for librdkafka's C code. Nothing here names jemalloc, so it is not linked. The
//! benchmark `pipeline` builds this program and starts it; it has no driver of its own.
#![expect(clippy::print_stdout, reason = "it says that it does nothing")]
#![expect(dead_code, reason = "the driver's part of the modules that both programs have")]

mod contenders;
mod payload;
mod shared;

use anyhow::Result;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--job").skip(1);
    // `cargo bench` without a name starts this program, too, and so does `cargo test --all-targets`.
    let Some(job) = arguments.next() else {
        println!("the benchmark `pipeline` starts this program");
        return Ok(());
    };
    contenders::run(&job)
}
