#![doc = include_str!("../README.md")]

mod error;
#[cfg(feature = "msk-iam")]
mod msk_iam;
#[cfg(feature = "oidc")]
mod oidc;
mod settings;

pub use error::AuthError;
#[cfg(feature = "msk-iam")]
pub use msk_iam::MskIam;
#[cfg(feature = "oidc")]
pub use oidc::Oidc;
pub use settings::with_token_provider;
