//! TLS to the servers: the trusted certificates, the client's own, and the handshake.
//!
//! The files are read again before a request, at most once every few seconds, and at once after a
//! handshake has failed because of a certificate. Certificates of the system are read at the start.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, Error, InconsistentKeys, RootCertStore, crypto::ring,
};

use crate::clickhouse::http::rotation::{Patience, Rereading, read_file};
use crate::clickhouse::http::telemetry;

/// The files of the certificates.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    /// Trusted CAs. `None`: those of the system.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) client: Option<ClientFiles>,
}

/// The files of the client's certificate.
#[derive(Clone, Debug)]
pub(crate) struct ClientFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The certificates of all connections of a writer.
pub(crate) struct Certificates {
    files: TlsFiles,
    system: Option<RootCertStore>,
    state: Mutex<Loaded>,
    pub(crate) patience: Patience,
}

struct Loaded {
    in_use: InUse,
    /// Contents of the files in use.
    contents: Vec<Vec<u8>>,
    rereading: Rereading,
}

/// The certificates of a new connection, and their number, which grows with each rotation.
#[derive(Clone)]
pub(crate) struct InUse {
    pub(crate) number: u64,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files, or the system's certificates.
    pub(crate) fn new(files: TlsFiles) -> Result<Self, String> {
        let system = if files.ca.is_none() { Some(roots_of_system()?) } else { None };
        let contents = files.read()?;
        let config = files.config(system.as_ref(), &contents)?;
        let mut rereading = Rereading::default();
        rereading.is_due(true);
        let loaded = Loaded { in_use: InUse { number: 1, config }, contents, rereading };
        Ok(Self { files, system, state: Mutex::new(loaded), patience: Patience::default() })
    }

    /// The certificates of the next request. `now` reads the files again in any case.
    pub(crate) fn current(&self, now: bool) -> InUse {
        let mut state = self.lock();
        if !self.files.is_empty() && state.rereading.is_due(now) {
            self.read_again(&mut state);
        }
        state.in_use.clone()
    }

    fn read_again(&self, state: &mut Loaded) {
        let read = self.files.read().and_then(|contents| match contents == state.contents {
            true => Ok(None),
            false => {
                self.files.config(self.system.as_ref(), &contents).map(|config| Some((config, contents)))
            }
        });
        match read {
            Ok(changed) => {
                state.rereading.is_new(None);
                if let Some((config, contents)) = changed {
                    state.in_use = InUse { number: state.in_use.number + 1, config };
                    state.contents = contents;
                    telemetry::certificates_rotated(&self.files.shown());
                }
            }
            Err(problem) => {
                if state.rereading.is_new(Some(&problem)) {
                    telemetry::rotation_incomplete(&problem);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let client = self.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        self.ca.iter().chain(client).map(PathBuf::as_path)
    }

    fn is_empty(&self) -> bool {
        self.paths().next().is_none()
    }

    fn shown(&self) -> String {
        self.paths().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    fn read(&self) -> Result<Vec<Vec<u8>>, String> {
        self.paths().map(read_file).collect()
    }

    /// `contents` are those of [`paths`](Self::paths).
    fn config(
        &self,
        system: Option<&RootCertStore>,
        contents: &[Vec<u8>],
    ) -> Result<Arc<ClientConfig>, String> {
        let mut contents = contents.iter().map(Vec::as_slice);
        let roots = match (&self.ca, system) {
            (Some(file), _) => roots_of(file, contents.next().unwrap_or_default())?,
            (None, Some(system)) => system.clone(),
            (None, None) => roots_of_system()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots);
        let Some(client) = &self.client else { return Ok(Arc::new(builder.with_no_client_auth())) };
        let chain = chain_of(&client.certificate, contents.next().unwrap_or_default())?;
        let key = key_of(&client.key, contents.next().unwrap_or_default())?;
        let (certificate, shown) = (client.certificate.display(), client.key.display());
        let config = builder.with_client_auth_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("the key of {shown} does not fit the certificate of {certificate}")
            }
            error => {
                format!("the certificate of {certificate} with the key of {shown} cannot be used: {error}")
            }
        })?;
        Ok(Arc::new(config))
    }
}

/// TLS to one server.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) certificates: Arc<Certificates>,
    name: ServerName<'static>,
}

impl Tls {
    /// Expects a certificate for `host`.
    pub(crate) fn new(host: &str, certificates: Arc<Certificates>) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host} is not a name that a certificate can have"))?;
        Ok(Self { certificates, name })
    }

    /// Performs the handshake over an open connection.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn connect(
        &self,
        in_use: &InUse,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&in_use.config)).connect(self.name.clone(), stream).await
    }
}

/// Whether a handshake failed because of the server's certificate, which a retry does not change.
pub(crate) fn is_certificate_error(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented))
}

/// Whether the server ended the connection because of the client's certificate. In TLS 1.3 the
/// client learns it after its handshake.
pub(crate) fn is_rejected_client(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<Error>());
        if let Some(Error::AlertReceived(alert)) = inner.or_else(|| error.downcast_ref::<Error>()) {
            use AlertDescription as Alert;
            return matches!(
                alert,
                Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::CertificateRequired
                    | Alert::UnknownCA
                    | Alert::AccessDenied
            );
        }
        next = error.source();
    }
    false
}

fn roots_of(file: &Path, content: &[u8]) -> Result<RootCertStore, String> {
    let shown = file.display();
    let problem = |error| format!("the CA certificates of {shown} cannot be read: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(content) {
        let added = roots.add(certificate.map_err(problem)?);
        added.map_err(|error| format!("a CA certificate of {shown} cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err(format!("{shown} holds no CA certificate in PEM")) } else { Ok(roots) }
}

fn chain_of(file: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(format!("{shown} holds no certificate in PEM")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("the certificate of {shown} cannot be read: {error}")),
    }
}

fn key_of(file: &Path, content: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let shown = file.display();
    if content.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        return Err(format!("the key of {shown} is encrypted: store it decrypted, readable by kmr alone"));
    }
    // The error of the parser could quote the key.
    PrivateKeyDer::from_pem_slice(content).map_err(|_| format!("{shown} holds no private key in PEM"))
}

/// In the header of an encrypted key, in PKCS #8 and in the older form.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn roots_of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry unusable certificates; they are skipped.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(format!("this system has no CA certificates{why}: install them, or use .ca_certificate()"))
}
