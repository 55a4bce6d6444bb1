//! [`MskIam`]: tokens for AWS MSK with IAM.

use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::Provider as TlsProvider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kmr_core::{BoxError, Token, TokenProvider, async_trait};

use crate::AuthError;

/// How long MSK accepts a token. It closes connections that are older.
const LIFE: Duration = Duration::from_secs(900);
/// MSK logs this.
const USER_AGENT: &str = concat!("kmr/", env!("CARGO_PKG_VERSION"));

/// Tokens for clusters of AWS MSK with IAM access control, port 9098. Each token is a signed URL.
/// No request is sent for it.
///
/// The credentials come from the environment, a profile, a web identity of Kubernetes (IRSA), or
/// the role of the container or instance, in the order of the AWS SDKs. Single sign-on and the
/// output of a process are not supported.
///
/// # Examples
/// ```
/// use kmr_auth::MskIam;
/// use kmr_core::ClientConfig;
///
/// let config = ClientConfig::new()
///     .set("bootstrap.servers", "b-1.demo.abc123.c2.kafka.eu-west-1.amazonaws.com:9098")
///     .set("security.protocol", "SASL_SSL")
///     .token_provider(MskIam::new("eu-west-1"));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct MskIam {
    region: String,
    credentials: Option<SharedCredentialsProvider>,
}

impl MskIam {
    /// For clusters in this region, with the credentials that the AWS SDK finds.
    pub fn new(region: impl Into<String>) -> Self {
        Self { region: region.into(), credentials: None }
    }

    /// The credentials to sign with, in place of those that the AWS SDK finds.
    pub fn credentials(mut self, credentials: impl ProvideCredentials + 'static) -> Self {
        self.credentials = Some(SharedCredentialsProvider::new(credentials));
        self
    }

    async fn found(&self) -> Result<Credentials, AuthError> {
        let found = match &self.credentials {
            Some(provider) => provider.provide_credentials().await,
            None => chain(&self.region).await.provide_credentials().await,
        };
        found.map_err(|error| AuthError::Aws(kmr_core::error_chain(&error)))
    }
}

/// The credentials of the AWS SDK, with the TLS that kmr has already.
async fn chain(region: &str) -> DefaultCredentialsChain {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(TlsProvider::Rustls(CryptoMode::Ring))
        .build_https();
    let region = aws_config::Region::new(region.to_owned());
    let config = ProviderConfig::without_region().with_http_client(http).with_region(Some(region.clone()));
    DefaultCredentialsChain::builder().configure(config).region(region).build().await
}

#[async_trait]
impl TokenProvider for MskIam {
    async fn token(&self) -> Result<Token, BoxError> {
        let credentials = self.found().await?;
        let principal = credentials.access_key_id().to_owned();
        // Temporary credentials may end before the token.
        let (now, ends) = (SystemTime::now(), credentials.expiry());
        let value = signed(&self.region, credentials, now)?;
        let expires = ends.map_or(now + LIFE, |ends| ends.min(now + LIFE));
        Ok(Token::new(value, expires).with_principal(principal))
    }
}

/// The token: a URL with a signature in its query, as Base64.
fn signed(region: &str, credentials: Credentials, now: SystemTime) -> Result<String, AuthError> {
    let failed = |error: &dyn std::fmt::Display| AuthError::Aws(format!("signing: {error}"));
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let host = format!("kafka.{region}.{domain}");
    let url = format!("https://{host}/?Action=kafka-cluster%3AConnect");
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(LIFE);
    settings.signature_location = SignatureLocation::QueryParams;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kafka-cluster")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?
        .into();
    let headers = std::iter::once(("host", host.as_str()));
    let request = SignableRequest::new("GET", &*url, headers, SignableBody::Bytes(&[]))
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign(request, &params).map_err(|error| failed(&error))?.into_parts();
    let mut query = form_urlencoded::Serializer::new(url);
    for (name, value) in instructions.params() {
        query.append_pair(name, value);
    }
    query.append_pair("User-Agent", USER_AGENT);
    Ok(URL_SAFE_NO_PAD.encode(query.finish()))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// 2026-01-02 03:04:05 UTC.
    const MOMENT: Duration = Duration::from_secs(1_767_323_045);

    fn query(session: Option<&str>) -> Vec<(String, String)> {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, session.map(str::to_owned), None, "test");
        let token = signed("eu-west-1", credentials, UNIX_EPOCH + MOMENT).unwrap();
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
        assert!(!url.contains(secret));
        let query = url.strip_prefix("https://kafka.eu-west-1.amazonaws.com/?").unwrap();
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    fn value<'q>(query: &'q [(String, String)], name: &str) -> &'q str {
        query.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// The signatures are those of AWS's own signer (aws-msk-iam-sasl-signer-python 1.0.2) for the
    /// same credentials and moment.
    #[test]
    fn the_signature_is_that_of_awss_own_signer() {
        let permanent = query(None);
        assert_eq!(
            value(&permanent, "X-Amz-Signature"),
            "7cc178453342e479def8e0e69cbff443ca929b5b0426af0f4b64554172c7195d"
        );
        assert_eq!(value(&permanent, "Action"), "kafka-cluster:Connect");
        assert_eq!(value(&permanent, "X-Amz-Expires"), "900");
        assert!(value(&permanent, "User-Agent").starts_with("kmr/"));
        let temporary = query(Some("session/token+1="));
        assert_eq!(value(&temporary, "X-Amz-Security-Token"), "session/token+1=");
        assert_eq!(
            value(&temporary, "X-Amz-Signature"),
            "7d88c84a54515076e7c637a468ff0469ff7e0fecf49b120a60c294dd576593c7"
        );
    }

    #[tokio::test]
    async fn a_token_ends_with_its_credentials() {
        let now = SystemTime::now();
        let token = |expiry| {
            let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, expiry, "test");
            let provider = MskIam::new("eu-west-1").credentials(credentials);
            async move { provider.token().await.unwrap() }
        };
        let soon = now + Duration::from_secs(60);
        assert_eq!(token(Some(soon)).await.expires_at(), soon);
        let life = token(None).await.expires_at().duration_since(now).unwrap();
        assert!((900..=930).contains(&life.as_secs()), "{life:?}");
    }
}
