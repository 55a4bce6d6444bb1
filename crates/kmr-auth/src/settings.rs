//! A token provider from the settings that librdkafka and its users know.

use kmr_core::ClientConfig;

use crate::AuthError;

const METHOD: &str = "sasl.oauthbearer.method";

/// Adds the token provider that the settings `sasl.oauthbearer.*` describe, if they describe one.
///
/// | `sasl.oauthbearer.method` | provider | its settings |
/// |---|---|---|
/// | `oidc` | `Oidc` | `sasl.oauthbearer.token.endpoint.url`, `.client.id`, `.client.secret`, `.scope`, `.extensions` (as in librdkafka), `https.ca.location` |
/// | `aws_msk_iam` (kmr's own) | `MskIam` | `sasl.oauthbearer.aws.region`; default: the region in the names of the brokers |
/// | `default`, none | none | |
///
/// # Errors
/// A required setting is missing, or the provider is a feature that this build does not have. The
/// text names both.
pub fn with_token_provider(config: ClientConfig) -> Result<ClientConfig, AuthError> {
    match config.get(METHOD).map(str::to_ascii_lowercase).as_deref() {
        None | Some("default") => Ok(config),
        Some("oidc") => oidc(config),
        Some("aws_msk_iam") => msk_iam(config),
        Some(other) => Err(AuthError::Setting(format!(
            "{METHOD} is {other:?}; it has to be oidc, aws_msk_iam or default"
        ))),
    }
}

#[cfg(feature = "oidc")]
fn oidc(config: ClientConfig) -> Result<ClientConfig, AuthError> {
    // The second name is that of librdkafka from 2.11 on.
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| config.get(name)).map(str::to_owned);
    let required = |names: [&str; 2]| {
        let missing = || AuthError::Setting(format!("{METHOD}=oidc needs the setting {}", names[0]));
        first(names).filter(|value| !value.is_empty()).ok_or_else(missing)
    };
    let url = required(["sasl.oauthbearer.token.endpoint.url"; 2])?;
    let id = required(["sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"])?;
    let secret =
        required(["sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"])?;
    let mut provider = crate::Oidc::new(url, id).client_secret(secret);
    if let Some(scope) = first(["sasl.oauthbearer.scope"; 2]) {
        provider = provider.scope(scope);
    }
    if let Some(file) = first(["https.ca.location"; 2]) {
        provider = provider.ca_certificate(file);
    }
    for extension in first(["sasl.oauthbearer.extensions"; 2]).iter().flat_map(|text| text.split(',')) {
        let (name, value) = extension.split_once('=').ok_or_else(|| {
            AuthError::Setting(
                "sasl.oauthbearer.extensions has to be a list NAME=VALUE,NAME=VALUE".to_owned(),
            )
        })?;
        provider = provider.extension(name.trim(), value.trim());
    }
    provider.check()?;
    Ok(config.token_provider(provider))
}

#[cfg(not(feature = "oidc"))]
fn oidc(_: ClientConfig) -> Result<ClientConfig, AuthError> {
    Err(AuthError::Setting(format!("{METHOD}=oidc needs a build with the feature `oidc` of kmr-auth")))
}

#[cfg(feature = "msk-iam")]
fn msk_iam(config: ClientConfig) -> Result<ClientConfig, AuthError> {
    let region = config.get("sasl.oauthbearer.aws.region").map(str::to_owned);
    let servers = config.get("bootstrap.servers").unwrap_or_default();
    let region = region.or_else(|| region_of(servers)).ok_or_else(|| {
        AuthError::Setting(format!(
            "{METHOD}=aws_msk_iam: the names of the brokers have no AWS region; set sasl.oauthbearer.aws.region"
        ))
    })?;
    Ok(config.token_provider(crate::MskIam::new(region)))
}

#[cfg(not(feature = "msk-iam"))]
fn msk_iam(_: ClientConfig) -> Result<ClientConfig, AuthError> {
    Err(AuthError::Setting(format!(
        "{METHOD}=aws_msk_iam needs a build with the feature `msk-iam` (of kmr-auth, kmr-cli)"
    )))
}

/// The region in the name of a broker: `b-1.demo.abc123.c2.kafka.eu-west-1.amazonaws.com:9098`, and
/// `boot-abc.c2.kafka-serverless.eu-west-1.amazonaws.com:9098`.
#[cfg(feature = "msk-iam")]
fn region_of(servers: &str) -> Option<String> {
    servers.split(',').find_map(|server| {
        let host = server.trim().rsplit_once(':').map_or(server.trim(), |(host, _)| host);
        let host = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
        let (rest, region) = host.rsplit_once('.')?;
        let service = rest.rsplit('.').next()?;
        service.starts_with("kafka").then(|| region.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(method: &str) -> ClientConfig {
        ClientConfig::new().set("bootstrap.servers", "b:9092").set(METHOD, method)
    }

    #[test]
    fn without_a_method_nothing_is_added() {
        for config in [ClientConfig::new(), config("default")] {
            assert!(!with_token_provider(config).unwrap().has_token_provider());
        }
        let error = with_token_provider(config("odic")).unwrap_err().to_string();
        assert!(error.contains("odic") && error.contains("oidc"), "{error}");
    }

    #[cfg(feature = "oidc")]
    #[test]
    fn oidc_is_described_by_librdkafkas_settings() {
        let missing = with_token_provider(config("OIDC")).unwrap_err().to_string();
        assert!(missing.contains("sasl.oauthbearer.token.endpoint.url"), "{missing}");
        let complete = config("oidc")
            .set("sasl.oauthbearer.token.endpoint.url", "https://id.example/token")
            .set("sasl.oauthbearer.client.id", "kmr")
            .set("sasl.oauthbearer.client.secret", "hunter2")
            .set("sasl.oauthbearer.extensions", "logicalCluster=lkc-1,identityPoolId=pool-2");
        let added = with_token_provider(complete.clone()).unwrap();
        assert!(added.has_token_provider() && !format!("{added:?}").contains("hunter2"));
        let error =
            with_token_provider(complete.clone().set("sasl.oauthbearer.extensions", "lkc-1")).unwrap_err();
        assert!(error.to_string().contains("NAME=VALUE"), "{error}");
        let error = with_token_provider(complete.set("sasl.oauthbearer.token.endpoint.url", "id.example"))
            .unwrap_err();
        assert!(error.to_string().contains("https://"), "{error}");
    }

    #[cfg(feature = "msk-iam")]
    #[test]
    fn the_region_is_in_the_names_of_the_brokers() {
        let region = |servers| region_of(servers);
        let broker = "b-1.demo.abc123.c2.kafka.eu-west-1.amazonaws.com:9098";
        assert_eq!(region(broker).as_deref(), Some("eu-west-1"));
        let serverless = "boot-abc.c2.kafka-serverless.us-east-2.amazonaws.com:9098";
        let both = format!("10.0.0.1:9098,{serverless}");
        assert_eq!(region(&both).as_deref(), Some("us-east-2"));
        assert_eq!(
            region("b-1.demo.x.kafka.cn-north-1.amazonaws.com.cn:9098").as_deref(),
            Some("cn-north-1")
        );
        assert_eq!(region("b:9092"), None);
        let error = with_token_provider(config("aws_msk_iam")).unwrap_err().to_string();
        assert!(error.contains("sasl.oauthbearer.aws.region"), "{error}");
        let named = config("aws_msk_iam").set("sasl.oauthbearer.aws.region", "eu-west-1");
        assert!(with_token_provider(named).unwrap().has_token_provider());
    }

    #[cfg(not(feature = "msk-iam"))]
    #[test]
    fn a_build_without_a_provider_names_its_feature() {
        let error = with_token_provider(config("aws_msk_iam")).unwrap_err().to_string();
        assert!(error.contains("`msk-iam`"), "{error}");
    }
}
