//! What each partition waits for and since when: `status` for health, `activity` for its map task,
//! `unread` for records that are not fetched, `leaders` for leaders that do not respond, and the
//! `watchdog` (L2).

pub(crate) mod activity;
pub(crate) mod leaders;
pub(crate) mod status;
pub(crate) mod unread;
pub(crate) mod watchdog;
