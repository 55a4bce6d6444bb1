//! The Kafka client's settings: those that users set, and those that the client receives.

mod policies;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::policies::{ResetPolicy, StartAt, Until};
use crate::credentials::TokenProvider;
use crate::credentials::source::TokenSource;
use crate::error::Error;
use crate::member::RECORD_OVERHEAD;
use crate::telemetry;

/// Settings of the Kafka client, under librdkafka's names.
///
/// `bootstrap.servers` and `group.id` are required; without a group, only `bootstrap.servers`.
/// Other settings override kmr's defaults (`fetch.*`, `queued.*`, `check.crcs=true`,
/// `partition.assignment.strategy=cooperative-sticky`). With `check.crcs`, a record batch that was
/// damaged in storage or on its way stops the consumer, and its records are not delivered.
///
/// The delivery guarantee depends on four settings, which kmr always sets itself. For
/// `enable.auto.commit`, `enable.auto.offset.store` and `enable.partition.eof` it logs a warning if
/// they were set to another value. A value of `auto.offset.reset` becomes the reset policy.
///
/// Credentials can change while the consumer runs: see [`set_from_file`](Self::set_from_file) and
/// [`token_provider`](Self::token_provider). Files that settings name (`ssl.certificate.location`,
/// `ssl.key.location`, `ssl.ca.location`, `ssl.keystore.location`, `ssl.crl.location`) are watched,
/// too.
///
/// `Debug` hides the values of settings whose names look like secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientConfig {
    settings: BTreeMap<String, String>,
    /// Settings whose values are the contents of files.
    files: BTreeMap<String, PathBuf>,
    tokens: Option<TokenSource>,
}

impl ClientConfig {
    /// No settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name` to `value`, replacing an earlier value.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.files.remove(&name);
        self.settings.insert(name, value.into());
        self
    }

    /// Sets `name` to the content of a file, without the line break at its end, for passwords that
    /// change: `sasl.password`, `sasl.username`, `ssl.key.password`, or certificates as text in
    /// `ssl.key.pem` and `ssl.certificate.pem`.
    ///
    /// kmr reads the file when it creates a client. A running consumer looks at it every ten
    /// seconds. When the content has changed, kmr creates a client with it, and if that finds its
    /// topics, drains and commits all partitions, leaves the group and joins with the new client.
    /// No record is lost or delivered twice by that. If the new client does not work, kmr logs a
    /// warning and keeps the old one.
    ///
    /// # Errors
    /// A file that cannot be read makes the start fail with [`Error::Config`].
    pub fn set_from_file(mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        let name = name.into();
        self.settings.remove(&name);
        self.files.insert(name, path.as_ref().to_owned());
        self
    }

    /// Sets the source of tokens for SASL/OAUTHBEARER: an identity provider, a cloud, a file. A
    /// closure is one, too. kmr sets `sasl.mechanism=OAUTHBEARER`, unless it is set, and ignores
    /// the settings `sasl.oauthbearer.*`. Needs the feature `ssl`, and
    /// `security.protocol=SASL_SSL`.
    ///
    /// The crate `kmr-auth` has providers for OpenID Connect and for AWS MSK.
    pub fn token_provider(mut self, provider: impl TokenProvider) -> Self {
        self.tokens = Some(TokenSource::new(provider));
        self
    }

    /// Uses the token provider of another configuration, so that both share its tokens.
    #[doc(hidden)]
    pub fn with_tokens_of(mut self, other: &Self) -> Self {
        self.tokens.clone_from(&other.tokens);
        self
    }

    /// Whether there is a [`token_provider`](Self::token_provider).
    pub fn has_token_provider(&self) -> bool {
        self.tokens.is_some()
    }

    pub(crate) fn token_source(&self) -> Option<&TokenSource> {
        self.tokens.as_ref()
    }

    /// The settings that are read from files.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.files.iter().map(|(name, path)| (name.as_str(), path.as_path()))
    }

    /// Reads the settings that are in files.
    ///
    /// # Errors
    /// A file cannot be read, or is not text.
    #[doc(hidden)]
    pub fn read_files(&self) -> Result<Self, Error> {
        let mut resolved = self.clone();
        for (name, path) in self.files() {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Error::Config(format!(
                    "Kafka setting {name}: the file {} cannot be read: {error}",
                    path.display()
                ))
            })?;
            resolved = resolved.set(name, text.trim_end_matches(['\r', '\n']));
        }
        Ok(resolved)
    }

    /// Reads the settings that are in files, and adds those of a token provider.
    ///
    /// # Errors
    /// As of [`read_files`](Self::read_files).
    #[doc(hidden)]
    pub fn resolved(&self) -> Result<Self, Error> {
        let mut resolved = self.read_files()?;
        if self.tokens.is_some() {
            // The provider has used them. librdkafka rejects `https.*` if it is built without curl.
            let is_of_provider =
                |name: &str| name.contains("sasl.oauthbearer.") || name.starts_with("https.");
            resolved.settings.retain(|name, _| !is_of_provider(name));
            if !MECHANISM.iter().any(|name| resolved.settings.contains_key(*name)) {
                resolved = resolved.set(MECHANISM[0], "OAUTHBEARER");
            }
        }
        Ok(resolved)
    }

    /// The value of a setting, if the user set it. `None` for one that is read from a file.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Removes the settings whose names start with `prefix`.
    pub(crate) fn without(mut self, prefix: &str) -> Self {
        self.settings.retain(|name, _| !name.starts_with(prefix));
        self.files.retain(|name, _| !name.starts_with(prefix));
        self
    }

    /// Settings that kmr does not use, or that weaken its guarantees. kmr logs the same warnings
    /// when it connects. Use this to check settings before a consumer is started.
    pub fn lint(&self) -> Vec<ConfigWarning> {
        let note = |name: &'static str, effect, why| {
            let value = self.get(name)?.to_owned();
            Some(ConfigWarning { name, value, effect, why })
        };
        let rejected = NOT_WITH_KIP_848.iter().filter(|_| self.is_next_generation());
        let rejected = rejected.filter_map(|name| note(name, WarningKind::Replaced, NOT_ALLOWED));
        // kmr uses the value of `auto.offset.reset`: it becomes the reset policy.
        let forced = FORCED
            .iter()
            .filter(|(name, value)| *name != "auto.offset.reset" && self.get(name) != Some(value));
        let forced = forced.filter_map(|(name, _)| note(name, WarningKind::Replaced, PROMISE));
        let statistics = note(STATISTICS, WarningKind::Replaced, NEEDS_STATISTICS);
        let statistics = statistics.filter(|_| self.has_rare_statistics());
        let risky = RISKY.iter().filter(|(name, value, _)| value.is_none() || self.get(name) == *value);
        let risky = risky.filter_map(|(name, _, why)| note(name, WarningKind::Risky, why));
        rejected.chain(forced).chain(statistics).chain(risky).collect()
    }

    /// Whether `statistics.interval.ms` is off, or too long for `client/fetch_limit`. It needs
    /// statistics each second unless the user has set both limits. `client/statistics` needs
    /// them each minute.
    fn has_rare_statistics(&self) -> bool {
        let millis = self.get(STATISTICS).and_then(|value| value.parse::<u64>().ok());
        let adapts = ["fetch.max.bytes", "queued.min.messages"].iter().any(|name| self.get(name).is_none());
        let longest = if adapts { 1000 } else { 60_000 };
        millis.is_some_and(|millis| millis == 0 || millis > longest)
    }

    /// Whether the group uses KIP-848.
    pub(crate) fn is_next_generation(&self) -> bool {
        self.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
    }

    /// The required setting `name`.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Error> {
        self.get(name).filter(|value| !value.trim().is_empty()).ok_or_else(|| {
            Error::Config(format!("{name} is not set; set it with ClientConfig::set({name:?}, …)"))
        })
    }

    /// Checks that there are tokens for OAUTHBEARER.
    pub(crate) fn check_tokens(&self) -> Result<(), Error> {
        let is = |name, values: &[&str]| {
            self.get(name).is_some_and(|value| values.iter().any(|known| value.eq_ignore_ascii_case(known)))
        };
        let needs_tokens = MECHANISM.iter().any(|name| is(name, &["OAUTHBEARER"]));
        let has_tokens =
            self.tokens.is_some() || is("enable.sasl.oauthbearer.unsecure.jwt", &["true", "t", "1"]);
        if !needs_tokens || has_tokens {
            return Ok(());
        }
        Err(Error::Config(
            "sasl.mechanism is OAUTHBEARER, and there is no source of tokens for it; set one with \
             ClientConfig::token_provider, such as those of the crate kmr-auth for OpenID Connect and AWS MSK"
                .to_owned(),
        ))
    }

    /// `max.poll.interval.ms`: how long the group waits for a member in a rebalance.
    pub(crate) fn max_poll_interval(&self) -> Result<Duration, Error> {
        let Some(value) = self.get("max.poll.interval.ms") else { return Ok(Duration::from_secs(300)) };
        let millis = value.parse();
        millis.map(Duration::from_millis).map_err(|_| {
            Error::Config(format!("max.poll.interval.ms is {value:?}; it has to be a number of milliseconds")) //
        })
    }

    /// Adds the defaults of exactly-once mode.
    pub(crate) fn for_exactly_once(mut self) -> Self {
        // librdkafka does not report that it has sent a commit again. A commit that takes longer
        // than this wait costs the member its membership, so librdkafka's 100 ms are too short
        // (E11).
        default(&mut self.settings, RETRY_BACKOFF, EXACTLY_ONCE_BACKOFF_MILLIS.to_string());
        default(&mut self.settings, RETRY_BACKOFF_MAX, EXACTLY_ONCE_BACKOFF_MILLIS.to_string());
        self
    }

    /// The shortest time after which librdkafka sends a request again: the backoff, less its jitter
    /// of 20 %.
    pub(crate) fn earliest_resend(&self) -> Duration {
        let millis = |name, default| self.get(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        let (backoff, max): (u64, u64) = (millis(RETRY_BACKOFF, 100), millis(RETRY_BACKOFF_MAX, 1000));
        Duration::from_millis((backoff.saturating_mul(4) / 5).min(max))
    }

    /// All settings for the client, including kmr's. `prefetch_bytes`: resident bytes that
    /// librdkafka may hold. `reports_ends`: whether librdkafka reports the ends of partitions.
    pub(crate) fn effective(&self, prefetch_bytes: usize, reports_ends: bool) -> BTreeMap<String, String> {
        for note in self.lint() {
            match note.effect {
                WarningKind::Replaced => telemetry::setting_overridden(note.name, &note.value, note.why),
                WarningKind::Risky => telemetry::setting_risky(note.name, &note.value, note.why),
            }
        }
        let mut settings = self.settings.clone();
        if self.has_rare_statistics() {
            settings.remove(STATISTICS);
        }
        if self.is_next_generation() {
            for name in NOT_WITH_KIP_848 {
                settings.remove(*name);
            }
        } else {
            default(&mut settings, "partition.assignment.strategy", "cooperative-sticky");
        }
        for (name, value) in FORCED {
            settings.insert((*name).to_owned(), (*value).to_owned());
        }
        // librdkafka's default is false: it would deliver damaged records.
        default(&mut settings, "check.crcs", "true");
        if reports_ends {
            settings.insert("enable.partition.eof".to_owned(), "true".to_owned());
        }
        Self::add_fetch_settings(&mut settings, prefetch_bytes);
        settings
    }

    /// All partitions share one fetch queue. So these settings bound the whole client, for any
    /// number of assigned partitions.
    fn add_fetch_settings(settings: &mut BTreeMap<String, String>, prefetch_bytes: usize) {
        // The count bounds small records, and the bytes bound large payloads. librdkafka counts no
        // other bytes, so `client/fetch_limit` lowers the count for large keys and headers.
        let records = most_records(prefetch_bytes);
        let kbytes = (prefetch_bytes / 1024 * 3 / 4).clamp(1, 2_097_151);
        default(settings, "queued.min.messages", records.to_string());
        default(settings, "queued.max.messages.kbytes", kbytes.to_string());
        // librdkafka checks a full queue again after this time. Its default of 1 s would starve the
        // map tasks.
        default(settings, "fetch.queue.backoff.ms", "5");
        // Each fetch wakes all threads in turn, so small fetches cost several times the CPU on a
        // live topic. At 50,000 records of 200 bytes a second, a million records cost 0.93 CPU-s
        // with 100,000 bytes and 0.70 with 400,000. Larger values save no more. The wait bounds the
        // latency that this adds. A broker that may return less of a partition than this minimum
        // would always wait.
        let per_partition = ["fetch.message.max.bytes", "max.partition.fetch.bytes"];
        if per_partition.iter().all(|name| !settings.contains_key(*name)) {
            default(settings, "max.partition.fetch.bytes", largest_fetch(prefetch_bytes).to_string());
        }
        let per_partition = per_partition.iter().filter_map(|name| settings.get(*name)?.parse().ok()).min();
        let least_fetch = per_partition.unwrap_or(FETCH_MIN_BYTES).min(FETCH_MIN_BYTES);
        default(settings, "fetch.min.bytes", least_fetch.to_string());
        default(settings, "fetch.wait.max.ms", "100");
        // One response may exceed the queue's limit, and its size is the compressed size on the
        // wire. `client/fetch_limit` adapts the limit to what responses unpack to, by the client's
        // statistics, and `client/statistics` reads them, too. When the client is created,
        // librdkafka requires at least message.max.bytes.
        default(settings, STATISTICS, "500");
        let least = settings
            .get("message.max.bytes")
            .and_then(|value| value.parse::<usize>().ok())
            .unwrap_or(1_000_000);
        let response = (prefetch_bytes / 16).min(50 << 20).max(least);
        default(settings, "fetch.max.bytes", response.to_string());
        let response = settings["fetch.max.bytes"].parse().unwrap_or(response);
        let receive = RECEIVE_MAX_BYTES.max(response.saturating_add(512));
        default(settings, "receive.message.max.bytes", receive.to_string());
    }
}

/// Both names of the setting.
const MECHANISM: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];
const STATISTICS: &str = "statistics.interval.ms";
const RETRY_BACKOFF: &str = "retry.backoff.ms";
const RETRY_BACKOFF_MAX: &str = "retry.backoff.max.ms";
/// The default of both in exactly-once mode.
const EXACTLY_ONCE_BACKOFF_MILLIS: u64 = 2500;

/// The most records that a client may hold which may hold `prefetch_bytes`. A record takes its size
/// and [`RECORD_OVERHEAD`].
pub(crate) fn most_records(prefetch_bytes: usize) -> usize {
    (prefetch_bytes / (RECORD_OVERHEAD + 200)).clamp(1, 10_000_000)
}

/// The most that is fetched at once, compressed, for a client that may hold `prefetch_bytes`. If
/// records suddenly compress a thousand times better than those before, this bounds the one
/// response that is unpacked before `client/fetch_limit` adapts. Lower values cost processor time
/// on topics that are hardly compressed, and keep `fetch.min.bytes` low.
pub(crate) fn largest_fetch(prefetch_bytes: usize) -> usize {
    (prefetch_bytes / 32).clamp(32 << 10, 1 << 20)
}

/// The largest response, and the largest batch of zstd when it is unpacked. librdkafka unpacks zstd
/// into a buffer that it triples until the batch fits, so batches of a third of this always fit. A
/// broker that expects TLS answers a client without TLS with bytes that read as a size of
/// 352,518,912. A limit below that makes it an error at once.
const RECEIVE_MAX_BYTES: usize = 350_000_000;

/// The smallest fetch that is worth its cost, in bytes.
const FETCH_MIN_BYTES: usize = 400_000;

/// A warning about a setting: see [`ClientConfig::lint`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigWarning {
    /// The setting's name in librdkafka.
    pub name: &'static str,
    /// The value that the user set.
    pub value: String,
    /// Whether kmr replaces the setting or uses it.
    pub effect: WarningKind,
    /// The reason.
    pub why: &'static str,
}

/// Whether kmr replaces a setting or uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// kmr replaces it with its own value, or removes it.
    Replaced,
    /// kmr uses it, although it weakens a guarantee.
    Risky,
}

const PROMISE: &str = "the delivery promise depends on it";
const NEEDS_STATISTICS: &str = "kmr needs statistics to find partitions that are not read, and at least each second to adapt \
                                fetch.max.bytes and queued.min.messages to memory_budget";
const NOT_ALLOWED: &str = "not allowed with group.protocol=consumer (KIP-848)";

/// Settings that are used, with their risk. Some are risky only with one value.
const RISKY: &[(&str, Option<&str>, &str)] = &[
    ("queued.max.messages.kbytes", None, "memory may exceed memory_budget"),
    ("queued.min.messages", None, "memory may exceed memory_budget"),
    (
        "fetch.max.bytes",
        None,
        "kmr does not adapt it, so memory may exceed memory_budget: a response is unpacked at once",
    ),
    ("check.crcs", Some("false"), "damaged records are delivered"),
    ("isolation.level", Some("read_uncommitted"), "records of aborted transactions are delivered"),
];

/// Settings that users cannot change.
const FORCED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "false"),
    // kmr resolves missing commits itself. An offset that is out of range must never be skipped
    // silently.
    ("auto.offset.reset", "error"),
];

/// Settings that librdkafka rejects with `group.protocol=consumer` when a client is created
/// (`rd_kafka_conf_finalize` of librdkafka 2.12.1). The broker decides them.
const NOT_WITH_KIP_848: &[&str] =
    &["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"];

fn default(settings: &mut BTreeMap<String, String>, name: &str, value: impl Into<String>) {
    settings.entry(name.to_owned()).or_insert_with(|| value.into());
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", "token", "key.pem", "oauthbearer.config", "jaas"]
        .iter()
        .any(|part| name.contains(part))
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.iter().map(|(name, value)| {
            let value = if is_secret(name) { "(hidden)" } else { value };
            (name, value.to_owned())
        });
        let files = self.files().map(|(name, path)| (name, format!("(the file {})", path.display())));
        let tokens = self.tokens.iter().map(|_| ("token provider", "(set)".to_owned()));
        f.debug_map().entries(settings.chain(files).chain(tokens)).finish()
    }
}

#[cfg(test)]
mod tests;
