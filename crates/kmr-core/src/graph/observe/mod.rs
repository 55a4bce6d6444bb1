//! What each partition waits for, and since when: health, and the watchdog (L2).

pub(crate) mod activity;
pub(crate) mod status;
pub(crate) mod watchdog;
