//! [`AuthError`].

/// Why there is no token. It never holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A setting that cannot work.
    #[error("{0}")]
    Setting(String),

    /// The identity provider rejected the client.
    #[error(
        "the identity provider at {url} rejects the request: {reason}; check client id, secret and scope"
    )]
    #[non_exhaustive]
    Rejected {
        /// The token endpoint.
        url: String,
        /// The status, and the provider's error and description.
        reason: String,
    },

    /// The identity provider did not respond, or not with a token.
    #[error("no token from {url}: {reason}")]
    #[non_exhaustive]
    Unavailable {
        /// The token endpoint.
        url: String,
        /// The cause.
        reason: String,
    },

    /// There are no AWS credentials, or they cannot sign.
    #[error(
        "no AWS credentials: {0}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role of this machine"
    )]
    Aws(String),
}
