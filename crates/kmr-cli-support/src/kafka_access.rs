//! [`create_client`]: clients of the commands, with a token if their settings need one.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, anyhow};
use kmr_core::__private::Credentials;
use kmr_core::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig as NativeConfig, ClientContext};
use tokio::runtime::{Builder, Runtime};

/// How long a command waits for a token.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of librdkafka inside of its type.
pub trait HasClient<C: ClientContext> {
    /// The client.
    fn native(&self) -> &Client<C>;
}

impl<C: ConsumerContext> HasClient<C> for BaseConsumer<C> {
    fn native(&self) -> &Client<C> {
        self.client()
    }
}

impl<C: ProducerContext> HasClient<C> for BaseProducer<C> {
    fn native(&self) -> &Client<C> {
        self.client()
    }
}

impl<C: ProducerContext + 'static> HasClient<C> for ThreadedProducer<C> {
    fn native(&self) -> &Client<C> {
        self.client()
    }
}

impl<C: ClientContext> HasClient<C> for AdminClient<C> {
    fn native(&self) -> &Client<C> {
        self.inner()
    }
}

/// Creates a client. With `sasl.oauthbearer.method`, it has a token: the one of the moment, for as
/// long as it is valid. May block for 30 s.
///
/// # Errors
/// A setting is wrong, or there is no token.
pub fn create_client<T, C>(config: &NativeConfig, context: C) -> anyhow::Result<T>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C> + HasClient<C>,
{
    if config.get("sasl.oauthbearer.method").is_none() {
        return config.create_with_context(context).context("Kafka settings");
    }
    let config = with_tokens(config)?;
    let credentials = started(&config)?;
    let mut native = NativeConfig::new();
    for (name, value) in config.resolved()?.iter() {
        native.set(name, value);
    }
    let client: T = native.create_with_context(context).context("Kafka settings")?;
    credentials.apply_first(client.native())?;
    Ok(client)
}

/// The settings with their token provider. Clients with the same settings share it.
fn with_tokens(config: &NativeConfig) -> anyhow::Result<ClientConfig> {
    static KNOWN: Mutex<Option<HashMap<String, ClientConfig>>> = Mutex::new(None);
    // The values of this map are hidden where they are secrets.
    let names = config.config_map();
    let set = names.keys().filter_map(|name| Some((*name, config.get(name)?)));
    let config = set.fold(ClientConfig::new(), |config, (name, value)| config.set(name, value));
    let is_identity = |name: &str| name.contains("oauthbearer") || name == "bootstrap.servers";
    let identity = config.iter().filter(|(name, _)| is_identity(name));
    let identity = identity.map(|(name, value)| format!("{name}={value}\n")).collect::<String>();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if !known.contains_key(&identity) {
        known.insert(identity.clone(), kmr_auth::with_token_provider(config.clone())?);
    }
    let source = known.get(&identity).cloned().unwrap_or_default();
    Ok(config.with_tokens_of(&source))
}

/// Waits for the token on a runtime of its own: commands create clients on threads that block and
/// in tasks.
fn started(config: &ClientConfig) -> anyhow::Result<Credentials> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let new = || Builder::new_multi_thread().worker_threads(1).enable_all().build().ok();
    let runtime = RUNTIME.get_or_init(new).as_ref().ok_or_else(|| anyhow!("no thread for tokens"))?;
    let (sender, receiver) = mpsc::channel();
    let config = config.clone();
    runtime.spawn(async move { drop(sender.send(Credentials::start(&config, PATIENCE).await)) });
    Ok(receiver.recv().context("the task that gets a token has ended")??)
}
