//! A ClickHouse client for single requests, and the remedies that its error texts name.

#[cfg(feature = "tls")]
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clickhouse::Client;
#[cfg(feature = "tls")]
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::connection::{ClickHouseArgs, environment};

/// Credentials come from the environment alone: every user of the machine can read arguments.
const USER: &str = "KMR_CLICKHOUSE_USER";
const PASSWORD: &str = "KMR_CLICKHOUSE_PASSWORD";

/// Timeout of a request; the client has none of its own.
const REQUEST: Duration = Duration::from_secs(60);

/// What identifies a user, and the server.
#[derive(Clone, Default)]
pub struct Access {
    /// The user's name. `None`: the server's default user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token in place of both.
    pub bearer_token: Option<String>,
    /// A PEM file of CA certificates, in place of the system's.
    pub ca_certificate: Option<std::path::PathBuf>,
    /// PEM files of the client's certificate and of its key.
    pub client_certificate: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

impl Access {
    /// The user and the password of the environment.
    pub fn of_environment() -> Self {
        Self { user: user(), password: password(), ..Self::default() }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A server and a table on it.
pub struct Server<'a> {
    client: Client,
    args: &'a ClickHouseArgs,
    /// Why no request can be sent.
    problem: Option<String>,
}

impl<'a> Server<'a> {
    /// A client of the server, with the credentials of the environment. It connects with the first
    /// request.
    pub fn new(args: &'a ClickHouseArgs) -> Self {
        Self::with_access(args, &Access::of_environment())
    }

    /// A client with these credentials.
    pub fn with_access(args: &'a ClickHouseArgs, access: &Access) -> Self {
        let (client, problem) = match https_client(&url(args), access) {
            None => (Client::default(), None),
            Some(Ok(client)) => (client, None),
            Some(Err(problem)) => (Client::default(), Some(problem)),
        };
        let client = client.with_url(url(args));
        let client = if args.database.is_empty() { client } else { client.with_database(&args.database) };
        let client = match &access.bearer_token {
            Some(token) => client.with_access_token(token),
            None => with_credentials(client, access.user.clone(), access.password.clone()),
        };
        Self { client, args, problem }
    }

    /// The client, to prepare a request with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The table, quoted, with its database.
    pub fn table(&self) -> String {
        format!("{}.{}", quoted(&self.args.database), quoted(&self.args.table))
    }

    /// Waits for a response. `action` names the request in errors.
    ///
    /// # Errors
    ///
    /// The cause and its remedy.
    pub async fn request<T>(
        &self,
        action: &str,
        response: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> anyhow::Result<T> {
        self.request_within(REQUEST, action, response).await
    }

    /// The same, with another timeout.
    ///
    /// # Errors
    ///
    /// The cause and its remedy.
    pub async fn request_within<T>(
        &self,
        timeout: Duration,
        action: &str,
        response: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> anyhow::Result<T> {
        let address = &self.args.clickhouse;
        if let Some(problem) = &self.problem {
            return Err(anyhow!("{action}: ClickHouse at {address} cannot be reached: {problem}"));
        }
        match tokio::time::timeout(timeout, response).await {
            Err(_) => Err(anyhow!("{action}: ClickHouse at {address} did not respond within {timeout:?}")),
            Ok(Err(error)) => {
                let remedy = remedy(&error);
                Err(error).with_context(|| format!("{action}: ClickHouse at {address} failed ({remedy})"))
            }
            Ok(Ok(response)) => Ok(response),
        }
    }
}

/// Basic authentication for a password with a space at an end: a server removes spaces around the
/// value of a header, and the client sends the password as one.
fn with_credentials(client: Client, user: Option<String>, password: Option<String>) -> Client {
    use base64::Engine as _;
    let padded = |text: &&String| text.trim() != text.as_str();
    if user.iter().chain(&password).any(|text| padded(&text)) {
        let user = user.as_deref().unwrap_or("default");
        let credentials = format!("{user}:{}", password.unwrap_or_default());
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        return client.with_header("Authorization", format!("Basic {encoded}"));
    }
    let client = user.into_iter().fold(client, Client::with_user);
    password.into_iter().fold(client, Client::with_password)
}

/// A client that speaks TLS, for an `https` URL.
#[cfg(feature = "tls")]
fn https_client(url: &str, access: &Access) -> Option<Result<Client, String>> {
    use hyper_util::client::legacy::Client as HttpClient;
    use hyper_util::rt::TokioExecutor;
    if !url.starts_with("https://") {
        return None;
    }
    let builder = hyper_rustls::HttpsConnectorBuilder::new();
    let builder = tls_config(access).map(|config| builder.with_tls_config(config));
    Some(builder.map(|builder| {
        let connector = builder.https_or_http().enable_http1().build();
        Client::with_http_client(HttpClient::builder(TokioExecutor::new()).build(connector))
    }))
}

/// Settings of TLS: the trusted CAs, and the client's certificate.
#[cfg(feature = "tls")]
fn tls_config(access: &Access) -> Result<tokio_rustls::rustls::ClientConfig, String> {
    use hyper_rustls::ConfigBuilderExt as _;
    use tokio_rustls::rustls::{ClientConfig, crypto::ring};
    let builder = ClientConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match &access.ca_certificate {
        Some(file) => builder.with_root_certificates(roots_of(file)?),
        None => builder.with_native_roots().map_err(|error| {
            format!(
                "this system has no CA certificates ({error}): install them, or name a file of them in \
                 SSL_CERT_FILE"
            )
        })?,
    };
    let Some((certificate, key)) = &access.client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let problem = |error: &dyn std::fmt::Display| {
        format!(
            "the client certificate of {} and {} cannot be used: {error}",
            certificate.display(),
            key.display()
        )
    };
    let chain = certificates(certificate).map_err(|error| problem(&error))?;
    // The error of the parser could quote the key.
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|_| problem(&"the key cannot be read as PEM without encryption"))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| problem(&error))
}

/// The CAs of a PEM file.
#[cfg(feature = "tls")]
fn roots_of(file: &Path) -> Result<tokio_rustls::rustls::RootCertStore, String> {
    let problem = |error: &dyn std::fmt::Display| {
        format!("the CA certificates of {} cannot be used: {error}", file.display())
    };
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    for certificate in certificates(file).map_err(|error| problem(&error))? {
        roots.add(certificate).map_err(|error| problem(&error))?;
    }
    Ok(roots)
}

#[cfg(feature = "tls")]
fn certificates(
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, tokio_rustls::rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(file)?.collect()
}

#[cfg(not(feature = "tls"))]
fn https_client(url: &str, _: &Access) -> Option<Result<Client, String>> {
    let problem = "this program was built without https; build it with --features tls";
    url.starts_with("https://").then(|| Err(problem.to_owned()))
}

/// The remedy for the errors that users meet.
fn remedy(error: &clickhouse::error::Error) -> &'static str {
    if let clickhouse::error::Error::Network(source) = error {
        let mut causes =
            std::iter::successors(Some(&**source as &dyn std::error::Error), |error| error.source());
        if causes.any(|cause| cause.to_string().contains("certificate")) {
            return "correct the host name, renew the certificate, or name the file of its CA in SSL_CERT_FILE";
        }
        return "is it running, and is --clickhouse its HTTP address?";
    }
    let text = error.to_string();
    if text.contains("UNKNOWN_TABLE") {
        "create the table (kmr-demo create-table creates the demo's), or correct --table and --database"
    } else if text.contains("UNKNOWN_DATABASE") {
        "create the database, or correct --database"
    } else if text.contains("AUTHENTICATION_FAILED") || text.contains("REQUIRED_PASSWORD") {
        "set KMR_CLICKHOUSE_USER and KMR_CLICKHOUSE_PASSWORD"
    } else if text.contains("ACCESS_DENIED") {
        "grant the user the privilege that the message names"
    } else {
        "see ClickHouse's message"
    }
}

/// The server's URL.
pub(crate) fn url(args: &ClickHouseArgs) -> String {
    if args.clickhouse.contains("://") {
        args.clickhouse.clone()
    } else {
        format!("http://{}", args.clickhouse)
    }
}

/// The user's name, if the environment has one.
pub(crate) fn user() -> Option<String> {
    environment(USER)
}

/// The user's password, if the environment has one.
pub(crate) fn password() -> Option<String> {
    environment(PASSWORD)
}

/// A name in backquotes, with the characters escaped that would end it.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(quoted("a`; DROP TABLE b"), "`a\\`; DROP TABLE b`");
        assert_eq!(quoted("a\\"), "`a\\\\`");
    }
}
