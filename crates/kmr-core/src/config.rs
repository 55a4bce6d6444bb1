//! The Kafka client's settings: those that users set, and those that the client receives.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::credentials::TokenProvider;
use crate::credentials::source::TokenSource;
use crate::error::Error;
use crate::member::{LogPoint, RECORD_OVERHEAD};
use crate::record::TopicPartition;
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
            resolved.settings.retain(|name, _| !name.contains("sasl.oauthbearer."));
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

/// The starting position of partitions without a committed offset, for a backfill: a point in time,
/// or offsets that another system knows.
///
/// The chosen offset is committed once, so a restart continues there and does not choose again. To
/// start a group again, use another `group.id` or delete its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the first record with this timestamp or a later one, in milliseconds since the Unix
    /// epoch. Without such a record, after the last record. Negative is 0. kmr requests the offsets
    /// of all partitions in one request per broker.
    Timestamp(i64),
    /// At these offsets. An offset that is neither in the log nor directly after its last record
    /// stops the consumer with [`Error::OffsetOutOfRange`], which names the offset and the bounds
    /// of the log. The [`ResetPolicy`] decides for partitions that are not named.
    Offsets(BTreeMap<TopicPartition, i64>),
}

impl StartAt {
    /// A point in time, in whole milliseconds.
    pub fn time(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// An offset for each partition.
    pub fn offsets(offsets: impl IntoIterator<Item = (TopicPartition, i64)>) -> Self {
        Self::Offsets(offsets.into_iter().collect())
    }
}

/// Where a bounded run ends: see [`ConsumerBuilder::until`](crate::ConsumerBuilder::until).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// At the end of each partition's log, which is determined when the partition is assigned for
    /// the first time.
    End,
    /// Before the first record with this timestamp or a later one, in milliseconds since the Unix
    /// epoch. Without such a record, at the end of the log.
    Timestamp(i64),
}

impl Until {
    /// A point in time, in whole milliseconds.
    pub fn time(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn point(self) -> LogPoint {
        match self {
            Self::End => LogPoint::End,
            Self::Timestamp(millis) => LogPoint::Time(millis),
        }
    }
}

/// Where a partition continues without a usable offset. Either the group has committed none
/// ([`ConsumerBuilder::offset_reset_policy`](crate::ConsumerBuilder::offset_reset_policy)), or the
/// committed offset is no longer in the log
/// ([`ConsumerBuilder::out_of_range_policy`](crate::ConsumerBuilder::out_of_range_policy)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetPolicy {
    /// At the lowest offset in the log: no existing record is skipped.
    #[default]
    Earliest,
    /// After the last record: all records that are in the log at that time are skipped. Partitions
    /// and topics that are added while the consumer runs start at their lowest offset all the same.
    /// Producers may find them first.
    Latest,
    /// The consumer stops with an error that names the partition and the bounds of its log.
    Fail,
}

impl ResetPolicy {
    /// The policy for a value of `auto.offset.reset`.
    pub(crate) fn from_setting(value: &str) -> Result<Self, Error> {
        match value {
            "earliest" | "smallest" | "beginning" => Ok(Self::Earliest), // words: quoted
            "latest" | "largest" | "end" => Ok(Self::Latest),
            "error" | "none" => Ok(Self::Fail),
            other => Err(Error::Config(format!(
                "auto.offset.reset is {other:?}; it has to be earliest, latest or error"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_secrets() {
        let config = ClientConfig::new().set("sasl.password", "hunter2").set("group.id", "g");
        let text = format!("{config:?}");
        assert!(!text.contains("hunter2") && text.contains("(hidden)") && text.contains("\"g\""), "{text}");
    }

    #[test]
    fn settings_that_the_delivery_guarantee_depends_on_cannot_be_changed() {
        let config = ClientConfig::new().set("enable.auto.commit", "true").set("fetch.min.bytes", "1");
        let notes = config.lint();
        assert_eq!(
            (notes.len(), notes[0].name, notes[0].effect),
            (1, "enable.auto.commit", WarningKind::Replaced)
        );
        let effective = config.effective(16 << 20, false);
        assert_eq!(effective["enable.auto.commit"], "false");
        assert_eq!(effective["auto.offset.reset"], "error");
        assert_eq!(effective["fetch.min.bytes"], "1", "the user's value overrides the default");
        assert_eq!(effective["partition.assignment.strategy"], "cooperative-sticky");
    }

    #[test]
    fn settings_that_kip_848_rejects_are_removed() {
        let config = ClientConfig::new().set("group.protocol", "consumer");
        let config = NOT_WITH_KIP_848.iter().fold(config, |config, name| config.set(*name, "1"));
        let effective = config.effective(16 << 20, false);
        assert!(NOT_WITH_KIP_848.iter().all(|name| !effective.contains_key(*name)), "{effective:?}");
    }

    #[test]
    fn settings_that_are_not_used_or_weaken_a_guarantee_are_reported() {
        let names = |config: ClientConfig| config.lint().iter().map(|note| note.name).collect::<Vec<_>>();
        let harmless =
            ["enable.auto.commit=false", "auto.offset.reset=latest", "isolation.level=read_committed"];
        let set = |settings: &[&str]| {
            settings
                .iter()
                .filter_map(|s| s.split_once('='))
                .fold(ClientConfig::new(), |c, (n, v)| c.set(n, v))
        };
        assert_eq!(names(set(&harmless)), [""; 0]);
        let risky =
            set(&["isolation.level=read_uncommitted", "queued.min.messages=1", "session.timeout.ms=6000"]);
        assert_eq!(names(risky.clone()), ["queued.min.messages", "isolation.level"]);
        assert_eq!(names(risky.set("group.protocol", "consumer"))[0], "session.timeout.ms");
    }

    #[test]
    fn oauthbearer_needs_a_source_of_tokens() {
        for name in ["sasl.mechanism", "sasl.mechanisms"] {
            let config = ClientConfig::new().set(name, "OAUTHBEARER");
            let error = config.check_tokens().unwrap_err().to_string();
            assert!(error.contains("no source of tokens"), "{error}");
            assert!(
                config.clone().set("enable.sasl.oauthbearer.unsecure.jwt", "false").check_tokens().is_err()
            );
            assert!(
                config.clone().set("enable.sasl.oauthbearer.unsecure.jwt", "true").check_tokens().is_ok()
            );
            let provider = async || Err("no identity".into());
            assert!(config.set("sasl.oauthbearer.method", "oidc").check_tokens().is_err());
            let config =
                ClientConfig::new().set("sasl.oauthbearer.client.id", "kmr").token_provider(provider);
            assert!(config.check_tokens().is_ok());
            let resolved = config.resolved().unwrap();
            let settings: Vec<(&str, &str)> = resolved.iter().collect();
            assert_eq!(settings, [("sasl.mechanism", "OAUTHBEARER")]);
        }
        assert!(ClientConfig::new().set("sasl.mechanism", "SCRAM-SHA-512").check_tokens().is_ok());
    }

    #[test]
    fn ends_are_reported_only_when_requested() {
        let config = ClientConfig::new().set("enable.partition.eof", "true");
        assert_eq!(config.effective(16 << 20, false)["enable.partition.eof"], "false");
        assert_eq!(config.effective(16 << 20, true)["enable.partition.eof"], "true");
    }

    #[test]
    fn times_are_milliseconds_since_1970() {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(StartAt::time(time), StartAt::Timestamp(1_700_000_000_000));
        assert_eq!(StartAt::time(std::time::UNIX_EPOCH - Duration::from_secs(5)), StartAt::Timestamp(0));
    }

    #[test]
    fn earliest_resend_follows_the_backoff_and_its_limit() {
        let resend = |config: ClientConfig| config.for_exactly_once().earliest_resend().as_millis();
        assert_eq!(resend(ClientConfig::new()), 2000);
        assert_eq!(resend(ClientConfig::new().set("retry.backoff.ms", "100")), 80);
        let limited = ClientConfig::new().set("retry.backoff.max.ms", "1000");
        assert_eq!(resend(limited), 1000, "librdkafka cuts the backoff after its jitter");
    }

    #[test]
    fn missing_settings_are_named() {
        let error = ClientConfig::new().required("group.id").unwrap_err().to_string();
        assert!(error.contains("group.id is not set"), "{error}");
    }

    #[test]
    fn fetch_limits_of_the_user_are_kept_and_noted() {
        let config = ClientConfig::new().set("fetch.max.bytes", "5000000");
        assert_eq!(config.lint()[0].effect, WarningKind::Risky);
        let effective = config.effective(16 << 20, false);
        assert_eq!(effective["fetch.max.bytes"], "5000000");
        assert_eq!(effective["statistics.interval.ms"], "500", "no limit is adapted, and positions are read");
        let config = ClientConfig::new().set("fetch.message.max.bytes", "70000");
        assert!(!config.effective(16 << 20, false).contains_key("max.partition.fetch.bytes"));
        let default = ClientConfig::new().effective(16 << 20, false);
        assert_eq!(default["max.partition.fetch.bytes"], "524288");
        assert_eq!(default["statistics.interval.ms"], "500");
    }

    #[test]
    fn statistics_that_kmr_needs_cannot_be_switched_off() {
        let set = |value: &str| ClientConfig::new().set("statistics.interval.ms", value);
        let effective = |config: &ClientConfig| config.effective(16 << 20, false)[STATISTICS].clone();
        for rare in ["0", "60000", "300000"] {
            let lint = set(rare).lint();
            assert_eq!((lint[0].name, lint[0].effect), (STATISTICS, WarningKind::Replaced));
            assert_eq!(effective(&set(rare)), "500");
            let fixed = set(rare).set("fetch.max.bytes", "5000000");
            assert_eq!(effective(&fixed), "500", "the other limit is adapted");
            let fixed = fixed.set("queued.min.messages", "1000");
            let expected = if rare == "60000" { rare } else { "500" };
            assert_eq!(effective(&fixed), expected, "no limit is adapted, and positions are read");
        }
        assert_eq!((set("700").lint(), effective(&set("700"))), (Vec::new(), "700".to_owned()));
    }

    #[test]
    fn checksums_are_verified_unless_the_user_decides_otherwise() {
        assert_eq!(ClientConfig::new().effective(16 << 20, false)["check.crcs"], "true");
        let unchecked = ClientConfig::new().set("check.crcs", "false");
        assert_eq!(unchecked.effective(16 << 20, false)["check.crcs"], "false");
        assert_eq!(unchecked.lint()[0].effect, WarningKind::Risky);
    }

    #[test]
    fn fetch_minimum_is_at_most_the_limit_per_partition() {
        let least = |config: ClientConfig| config.effective(16 << 20, false)["fetch.min.bytes"].clone();
        assert_eq!(least(ClientConfig::new()), "400000");
        let large = ClientConfig::new().set("max.partition.fetch.bytes", "1048576");
        assert_eq!(least(large), "400000");
        assert_eq!(least(ClientConfig::new().set("max.partition.fetch.bytes", "65536")), "65536");
        assert_eq!(least(ClientConfig::new().set("fetch.message.max.bytes", "5000000")), "400000");
    }

    #[test]
    fn prefetch_is_bounded_by_count_and_bytes() {
        let effective = ClientConfig::new().effective(16 << 20, false);
        let count: usize = effective["queued.min.messages"].parse().unwrap();
        assert!(count * (200 + RECORD_OVERHEAD) <= 16 << 20);
        assert_eq!(effective["queued.max.messages.kbytes"], "12288");
        let large = ClientConfig::new().set("message.max.bytes", "104857600").effective(16 << 20, false);
        assert_eq!(large["fetch.max.bytes"], "104857600", "librdkafka rejects less");
        assert_eq!(large["receive.message.max.bytes"], "350000000");
        let larger = ClientConfig::new().set("fetch.max.bytes", "400000000").effective(16 << 20, false);
        assert_eq!(larger["receive.message.max.bytes"], "400000512", "librdkafka rejects less");
    }
}
