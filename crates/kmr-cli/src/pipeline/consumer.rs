//! The consumer of a pipeline. It does not connect before it runs.

use std::convert::Infallible;
use std::iter::Flatten;

use kmr_core::{
    ClientConfig, Consumer, Pipeline as Strategy, Record, ResetPolicy, Watchdog, processing_strategy,
};
use kmr_sinks::clickhouse::{self as sink, ClickHouseError, JsonOptions, JsonRow, JsonRows};
use kmr_sinks::{ClickHouseWriter, KafkaWriter, OsStreamWriter};

use super::file::{
    ClickHouse, Compression, Duplicates, EpochUnit, ExcessDigits, Json, LocalTimes, Missing, Nulls, Objects,
    OutOfRange, Pipeline, Protocol, Source, Start, Strictness, Tombstones, Unknown,
};
use super::value::Text;

/// A batch of dead letters is sent after this time at the latest.
const DEAD_LETTER_AGE: std::time::Duration = std::time::Duration::from_secs(1);

/// The consumer of `pipeline`.
///
/// # Errors
/// A setting that the consumer rejects.
pub(super) fn consumer(name: &str, pipeline: &Pipeline) -> anyhow::Result<Consumer> {
    let config = client_config(name, &pipeline.source);
    let mut builder = Consumer::builder()
        .topics(pipeline.source.topics.0.iter().map(Text::as_str))
        .config(config.clone())
        .offset_reset_policy(match pipeline.source.start {
            Start::Earliest => ResetPolicy::Earliest,
            Start::Latest => ResetPolicy::Latest,
            Start::Fail => ResetPolicy::Fail,
        })
        .watchdog(Watchdog::default().with_exit_when_stuck(true));
    if pipeline.exactly_once {
        builder = builder.exactly_once();
    }
    if let Some(size) = pipeline.memory_budget {
        builder = builder.memory_budget(size.0);
    }
    if let Some(time) = pipeline.commit_interval {
        builder = builder.commit_interval(time.0);
    }
    if let Some(time) = pipeline.drain_timeout {
        builder = builder.drain_timeout(time.0);
    }
    if let Some(time) = pipeline.start_timeout {
        builder = builder.connect_timeout(time.0);
    }
    Ok(builder.strategy(strategy(pipeline, config)).build()?)
}

/// The client's settings: those of the keys, then `source.settings`.
fn client_config(name: &str, source: &Source) -> ClientConfig {
    let brokers: Vec<&str> = source.brokers.0.iter().map(Text::as_str).collect();
    let config = ClientConfig::new()
        .set("bootstrap.servers", brokers.join(","))
        .set("group.id", source.group.as_str())
        .set("client.id", format!("kmr-{name}"));
    let mut config = match source.protocol {
        Protocol::Eager => config.set("partition.assignment.strategy", "range"),
        Protocol::Cooperative => config.set("partition.assignment.strategy", "cooperative-sticky"),
        Protocol::Consumer => config.set("group.protocol", "consumer"),
    };
    if let Some(user) = &source.user {
        config = config.set("sasl.username", user.as_str());
    }
    if let Some(password) = &source.password {
        config = config.set("sasl.password", password.reveal());
    }
    source.settings.iter().fold(config, |config, (name, value)| config.set(name, value.as_str()))
}

type One = fn(&Record<'_>) -> Result<Option<JsonRow>, Infallible>;
type Many = fn(&Record<'_>) -> Result<Flatten<std::option::IntoIter<JsonRows>>, ClickHouseError>;

fn one(record: &Record<'_>) -> Result<Option<JsonRow>, Infallible> {
    JsonRow::from_record(record).map(Some)
}

fn one_or_skip(record: &Record<'_>) -> Result<Option<JsonRow>, Infallible> {
    record.payload().map(|_| JsonRow::from_record(record)).transpose()
}

fn many(record: &Record<'_>) -> Result<Flatten<std::option::IntoIter<JsonRows>>, ClickHouseError> {
    Ok(Some(JsonRow::each(record)?).into_iter().flatten())
}

fn many_or_skip(record: &Record<'_>) -> Result<Flatten<std::option::IntoIter<JsonRows>>, ClickHouseError> {
    Ok(record.payload().map(|_| JsonRow::each(record)).transpose()?.into_iter().flatten())
}

fn strategy(pipeline: &Pipeline, config: ClientConfig) -> Strategy {
    let rows = writer(pipeline);
    let skips = pipeline.source.tombstones == Tombstones::Skip;
    let (one, many) =
        if skips { (one_or_skip as One, many_or_skip as Many) } else { (one as One, many as Many) };
    let topic = pipeline
        .dead_letters
        .topic
        .as_ref()
        .map(|topic| KafkaWriter::dead_letters(config, topic.as_str()).max_age(DEAD_LETTER_AGE));
    match (pipeline.json.objects, topic) {
        (Objects::One, None) => processing_strategy!({
            filter_map => one,
            reduce => rows,
            reduce_err => OsStreamWriter::stderr().max_age(DEAD_LETTER_AGE),
        }),
        (Objects::Many, None) => processing_strategy!({
            flat_map => many,
            reduce => rows,
            reduce_err => OsStreamWriter::stderr().max_age(DEAD_LETTER_AGE),
        }),
        (Objects::One, Some(topic)) => {
            processing_strategy!({ filter_map => one, reduce => rows, reduce_err => topic })
        }
        (Objects::Many, Some(topic)) => {
            processing_strategy!({ flat_map => many, reduce => rows, reduce_err => topic })
        }
    }
}

/// The writer of the pipeline's table.
pub(super) fn writer(pipeline: &Pipeline) -> ClickHouseWriter<JsonRow> {
    let Pipeline { clickhouse, batch, .. } = pipeline;
    let mut urls = clickhouse.urls.0.iter().map(Text::as_str);
    let writer = ClickHouseWriter::new(urls.next().unwrap_or_default(), clickhouse.table.as_str());
    let mut writer = urls.fold(writer, |writer, url| writer.fallback_host(url));
    writer = with_access(writer, clickhouse)
        .json(json_options(pipeline))
        .record_columns(record_columns(pipeline))
        .async_insert(clickhouse.async_insert)
        .out_of_range_policy(match pipeline.json.out_of_range {
            OutOfRange::Reject => sink::OutOfRange::Reject,
            OutOfRange::Saturate => sink::OutOfRange::Saturate,
        })
        .compression(match clickhouse.compression {
            Compression::Lz4 => sink::Compression::Lz4,
            Compression::None => sink::Compression::None,
        });
    if let Some(replicas) = clickhouse.insert_quorum {
        writer = writer.insert_quorum(replicas);
    }
    if let Some(rows) = batch.max_rows {
        writer = writer.max_rows(rows);
    }
    if let Some(size) = batch.max_bytes {
        writer = writer.max_bytes(size.0);
    }
    if let Some(age) = batch.max_age {
        writer = writer.max_age(age.0);
    }
    if let Some(timeout) = batch.attempt_timeout {
        writer = writer.attempt_timeout(timeout.0);
    }
    if let Some(timeout) = pipeline.start_timeout {
        writer = writer.start_timeout(timeout.0);
    }
    writer
}

/// Sets what identifies the user, and the settings of the server.
fn with_access(mut writer: ClickHouseWriter<JsonRow>, clickhouse: &ClickHouse) -> ClickHouseWriter<JsonRow> {
    if let Some(database) = &clickhouse.database {
        writer = writer.database(database.as_str());
    }
    if let Some(user) = &clickhouse.user {
        writer = writer.user(user.as_str());
    }
    if let Some(password) = &clickhouse.password {
        writer = writer.password(password.reveal());
    }
    if let Some(token) = &clickhouse.bearer_token {
        writer = writer.bearer_token(token.reveal());
    }
    #[cfg(feature = "tls")]
    if let Some(file) = &clickhouse.ca_certificate {
        writer = writer.ca_certificate(file.as_str());
    }
    clickhouse.settings.iter().fold(writer, |writer, (name, value)| writer.setting(name, value.as_str()))
}

fn record_columns(pipeline: &Pipeline) -> sink::RecordColumns {
    let named = &pipeline.record_columns;
    let mut columns = sink::RecordColumns::new();
    if let Some(name) = &named.topic {
        columns = columns.topic(name.as_str());
    }
    if let Some(name) = &named.partition {
        columns = columns.partition(name.as_str());
    }
    if let Some(name) = &named.offset {
        columns = columns.offset(name.as_str());
    }
    if let Some(name) = &named.timestamp {
        columns = columns.timestamp(name.as_str());
    }
    if let Some(name) = &named.key {
        columns = columns.key(name.as_str());
    }
    if let Some(name) = &named.headers {
        columns = columns.headers(name.as_str());
    }
    columns
}

fn json_options(pipeline: &Pipeline) -> JsonOptions {
    let options = policies(&pipeline.json);
    pipeline.columns.iter().fold(options, |mut options, (name, column)| {
        if let Some(path) = &column.path {
            options = options.path(name, path.0.iter().map(Text::as_str));
        }
        if let Some(policy) = column.missing {
            options = options.missing_field(name, missing(policy));
        }
        if let Some(unit) = column.epoch_unit {
            options = options.column_epoch_unit(name, epoch_unit(unit));
        }
        if column.leave_out { options.leave_out(name) } else { options }
    })
}

fn policies(json: &Json) -> JsonOptions {
    let column = json.unknown_column.as_ref().map_or("", Text::as_str);
    JsonOptions::new()
        .missing_fields(missing(json.missing))
        .unknown_fields(match json.unknown {
            Unknown::Ignore => sink::UnknownFields::Ignore,
            Unknown::Collect => sink::UnknownFields::Collect(column.to_owned()),
            Unknown::Reject => sink::UnknownFields::Reject,
        })
        .nulls(match json.nulls {
            Nulls::Reject => sink::Nulls::Reject,
            Nulls::Default => sink::Nulls::Default,
        })
        .duplicates(match json.duplicates {
            Duplicates::Reject => sink::Duplicates::Reject,
            Duplicates::First => sink::Duplicates::First,
            Duplicates::Last => sink::Duplicates::Last,
        })
        .numbers_as_text(match json.numbers_as_text {
            Strictness::Accept => sink::NumbersAsText::Accept,
            Strictness::Reject => sink::NumbersAsText::Reject,
        })
        .excess_digits(match json.excess_digits {
            ExcessDigits::Reject => sink::ExcessDigits::Reject,
            ExcessDigits::Truncate => sink::ExcessDigits::Truncate,
        })
        .local_times(match json.local_times {
            LocalTimes::OfColumn => sink::LocalTimes::OfColumn,
            LocalTimes::Utc => sink::LocalTimes::Utc,
        })
        .epoch_unit(epoch_unit(json.epoch_unit))
}

fn missing(policy: Missing) -> sink::Missing {
    match policy {
        Missing::Default => sink::Missing::Default,
        Missing::Null => sink::Missing::Null,
        Missing::Reject => sink::Missing::Reject,
    }
}

fn epoch_unit(unit: EpochUnit) -> sink::EpochUnit {
    match unit {
        EpochUnit::Seconds => sink::EpochUnit::Seconds,
        EpochUnit::Milliseconds => sink::EpochUnit::Milliseconds,
        EpochUnit::Microseconds => sink::EpochUnit::Microseconds,
        EpochUnit::Nanoseconds => sink::EpochUnit::Nanoseconds,
    }
}
