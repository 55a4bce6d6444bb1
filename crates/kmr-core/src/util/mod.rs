//! Small parts that know nothing of Kafka.

pub(crate) mod future;
pub(crate) mod panic;
pub(crate) mod supervise;
