//! JSON lines to standard output or standard error: [`OsStreamWriter`].

mod delivery;
mod error;
mod rows;
mod thread;
mod writer;

pub use error::OsStreamError;
pub use rows::JsonLines;
pub use writer::OsStreamWriter;

#[cfg(test)]
mod tests;
