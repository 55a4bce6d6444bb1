//! JSON lines to standard output or standard error: [`OsStreamWriter`].

mod error;
mod lines;
mod thread;
mod writer;

pub use error::OsStreamError;
pub use lines::JsonLines;
pub use writer::{OsStream, OsStreamWriter};
