//! The base for tests and demos of kmr without a server: feature `embedded`, and `testing` for the
//! simulated cluster.

mod cluster;
mod embedded;
mod foldable;
mod new_record;
mod offsets;
#[cfg(feature = "testing")]
pub mod sim;

pub use embedded::EmbeddedCluster;
pub use foldable::assert_foldable;
pub use new_record::NewRecord;
