//! The base for tests and demos of kmr without a server: feature `embedded`, and `testing` for the
//! simulated cluster and the test driver of one strategy.

mod cluster;
#[cfg(feature = "testing")]
mod driver;
mod embedded;
mod foldable;
mod new_record;
mod offsets;
#[cfg(feature = "testing")]
pub mod sim;

#[cfg(feature = "testing")]
pub use driver::Driver;
pub use embedded::EmbeddedCluster;
pub use foldable::assert_foldable;
pub use new_record::NewRecord;
