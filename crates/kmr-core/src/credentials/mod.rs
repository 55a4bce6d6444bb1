//! Credentials that change while a consumer runs.
//!
//! `token` has what users implement: a source of tokens for SASL/OAUTHBEARER. `source` gets a new
//! token before the last one expires, for all clients of a configuration. `files` finds files that
//! have changed: certificates, keys, and settings that are read from files.

pub(crate) mod files;
pub(crate) mod source;
pub(crate) mod token;

pub use token::{Token, TokenProvider};
