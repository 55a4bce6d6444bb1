#![doc = include_str!("../README.md")]

mod actions;
mod error;
mod events;
mod history;
mod json;
mod liveness_file;
mod page;
mod probes;
mod reason;
mod response;
mod router;
mod server;
mod shared;
mod telemetry;
mod token;

pub use self::error::StatusError;
pub use self::liveness_file::LivenessFile;
pub use self::router::router;
pub use self::server::{RunningServer, StatusServer};
