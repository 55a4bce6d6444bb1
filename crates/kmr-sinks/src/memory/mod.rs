//! Delivered rows in memory, and faults on demand: [`MemoryWriter`].

mod records;
mod writer;

pub use records::MemoryRecords;
pub use writer::MemoryWriter;
