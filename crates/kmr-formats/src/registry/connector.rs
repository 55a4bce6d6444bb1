//! Opens connections, with TLS if an address needs it.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;

use super::RegistryError;

#[cfg(feature = "tls")]
pub(super) type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
pub(super) type Connector = HttpConnector;

/// A connector. `has_https`: whether an address starts with `https://`. `ca`: a PEM file of
/// certificates to trust in place of the system's.
///
/// # Errors
/// TLS cannot be set up.
pub(super) fn connector(
    timeout: Duration,
    has_https: bool,
    ca: Option<&Path>,
) -> Result<Connector, RegistryError> {
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(timeout));
    http.set_nodelay(true);
    #[cfg(feature = "tls")]
    {
        tls::connector(http, has_https, ca).map_err(RegistryError::Setting)
    }
    #[cfg(not(feature = "tls"))]
    match has_https || ca.is_some() {
        true => Err(RegistryError::Setting("https:// needs the feature `tls`".to_owned())),
        false => Ok(http),
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use hyper_rustls::HttpsConnectorBuilder;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::{Connector, HttpConnector, Path};

    pub(super) fn connector(
        mut http: HttpConnector,
        has_https: bool,
        ca: Option<&Path>,
    ) -> Result<Connector, String> {
        http.enforce_http(false);
        let roots = match ca {
            Some(file) => roots_of(file)?,
            None if has_https => roots_of_system()?,
            None => RootCertStore::empty(),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http))
    }

    fn roots_of(file: &Path) -> Result<RootCertStore, String> {
        let shown = file.display();
        let cannot_read = |error| format!("the CA certificate file {shown} cannot be read: {error}");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(cannot_read)? {
            let certificate = certificate.map_err(cannot_read)?;
            roots
                .add(certificate)
                .map_err(|error| format!("the file {shown} has a certificate that is not valid: {error}"))?;
        }
        match roots.is_empty() {
            true => Err(format!("the file {shown} has no certificate in PEM format")),
            false => Ok(roots),
        }
    }

    fn roots_of_system() -> Result<RootCertStore, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            return Err(format!(
                "the system has no CA certificates: name a file of them ({})",
                errors.join("; ")
            ));
        }
        Ok(roots)
    }
}
