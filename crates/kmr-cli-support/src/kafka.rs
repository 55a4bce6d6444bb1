//! Settings of Kafka clients, and the error texts that all commands share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, bail};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::connection::{BrokerArgs, SETTINGS, environment};

/// Credentials come from the environment alone: every user of the machine can read arguments.
const USER: &str = "KMR_KAFKA_USER";
const PASSWORD: &str = "KMR_KAFKA_PASSWORD";

/// Settings that hold a secret.
const SECRETS: &[&str] = &[
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.config",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// The settings of `--set` and the credentials.
///
/// # Errors
///
/// When `--set` holds a secret. It may be in the environment.
pub fn extra_settings(args: &BrokerArgs) -> anyhow::Result<Vec<(String, String)>> {
    let mut settings = args.settings();
    let secret = settings.iter().find(|(name, _)| SECRETS.contains(&name.as_str()));
    if let Some((name, _)) = secret.filter(|_| !args.is_from_environment()) {
        let variable = if name == "sasl.password" { PASSWORD } else { SETTINGS };
        bail!("every user of this machine can read {name} as an argument; set {variable} instead");
    }
    for (name, variable) in [("sasl.username", USER), ("sasl.password", PASSWORD)] {
        if let Some(value) = environment(variable) {
            settings.push((name.to_owned(), value));
        }
    }
    Ok(settings)
}

/// The last cause that a client reported through its error callback.
#[derive(Debug, Default)]
pub struct ClientFailure(Mutex<Option<String>>);

impl ClientFailure {
    /// Keeps an error of the callback.
    pub fn record(&self, error: &KafkaError, reason: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows the error that names the cause.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) || kept.is_none() {
            *kept = Some(reason.to_owned());
        }
    }

    /// The cause, as librdkafka reported it.
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The error of a client that got no metadata within `timeout`.
pub fn unreachable(broker: &str, timeout: Duration, reason: &str) -> anyhow::Error {
    anyhow!("no broker reachable at {broker} within {timeout:?}: {reason}; check --broker and the network")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Settings;

    #[test]
    fn a_password_as_an_argument_is_rejected_and_not_repeated() {
        for (name, variable) in [("sasl.password", PASSWORD), ("ssl.key.password", SETTINGS)] {
            let settings = vec![Settings(vec![(name.to_owned(), "hunter2".to_owned())])];
            let args = BrokerArgs { broker: "b:9092".to_owned(), settings };
            let error = extra_settings(&args).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains(variable) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_cause_outlives_the_news_that_all_brokers_are_down() {
        let failure = ClientFailure::default();
        failure.record(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "connection reset");
        failure.record(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(failure.reason().as_deref(), Some("connection reset"));
    }
}
