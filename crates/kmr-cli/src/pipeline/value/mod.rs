//! Values in the file: texts with variables, secrets, times, sizes, settings.
//!
//! They serialise to what `kmr check FILE --settings` shows. No secret is shown.

mod quantity;
#[cfg(test)]
mod schema;
mod setting;
mod text;

pub(super) use quantity::{Size, Time};
pub(super) use setting::{Setting, Settings, is_secret};
pub(super) use text::{Origin, Secret, Text, Texts};

/// What is shown in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";
