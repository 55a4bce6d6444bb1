//! The test consumer with jemalloc, as in kmr's programs, for Rust and for librdkafka's C code.

#[path = "../consumer/main.rs"]
mod consumer;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<std::process::ExitCode> {
    consumer::main()
}
