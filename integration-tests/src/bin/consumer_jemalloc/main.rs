//! The test consumer with the allocator of kmr's own programs, for Rust and for librdkafka's C code.

#[path = "../consumer/main.rs"]
mod consumer;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<std::process::ExitCode> {
    consumer::main()
}
