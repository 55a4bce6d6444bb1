//! Small parts that do not depend on Kafka.

pub(crate) mod future;
pub(crate) mod identity_hasher;
pub(crate) mod jitter;
pub(crate) mod mutants;
pub(crate) mod ordered_watch;
pub(crate) mod panic;
pub(crate) mod supervise;
