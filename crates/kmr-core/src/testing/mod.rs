//! The base for tests and demos of kmr without a server: feature `testing`.

mod cluster;
mod embedded;
mod new_record;
mod offsets;
pub mod sim;

pub use embedded::EmbeddedCluster;
pub use new_record::NewRecord;
