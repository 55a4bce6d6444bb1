//! Rows in memory, with faults on demand: [`MemoryWriter`].

mod delivery;
mod records;
mod writer;

pub use records::MemoryRecords;
pub use writer::MemoryWriter;
