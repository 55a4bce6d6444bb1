//! The writer of a pipeline's table.

use kmr_sinks::ClickHouseWriter;
use kmr_sinks::clickhouse::{self as sink, JsonOptions, JsonRow};

use super::file::{
    ClickHouse, Compression, Duplicates, EpochUnit, ExcessDigits, Json, LocalTimes, Missing, Nulls,
    OutOfRange, Pipeline, Strictness, Unknown,
};
use super::fold::Plan;
use super::value::Text;

/// The writer of the pipeline's table. With a fold, it receives an object of the folded columns.
pub(super) fn writer(pipeline: &Pipeline, clickhouse: &ClickHouse) -> ClickHouseWriter<JsonRow> {
    let batch = &pipeline.batch;
    let mut urls = clickhouse.urls.iter();
    let writer = ClickHouseWriter::new(urls.next().unwrap_or_default(), clickhouse.table.as_str());
    let mut writer = urls.fold(writer, |writer, url| writer.fallback_host(url));
    writer = with_access(writer, clickhouse)
        .json(json_options(pipeline))
        .record_columns(record_columns(pipeline))
        .async_insert(clickhouse.async_insert)
        .max_rows(batch.max_rows)
        .max_bytes(batch.max_bytes.0)
        .max_age(batch.max_age.0)
        .attempt_timeout(batch.attempt_timeout.0)
        .start_timeout(clickhouse.start_timeout.0)
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
    if let Some(file) = &clickhouse.password_file {
        writer = writer.password_file(file.as_str());
    }
    if let Some(token) = &clickhouse.bearer_token {
        writer = writer.bearer_token(token.reveal());
    }
    if let Some(file) = &clickhouse.bearer_token_file {
        writer = writer.bearer_token_file(file.as_str());
    }
    #[cfg(feature = "tls")]
    if let Some(file) = &clickhouse.ca_certificate {
        writer = writer.ca_certificate(file.as_str());
    }
    #[cfg(feature = "tls")]
    if let (Some(certificate), Some(key)) = (&clickhouse.client_certificate, &clickhouse.client_key) {
        writer = writer.client_certificate(certificate.as_str(), key.as_str());
    }
    clickhouse.settings.iter().fold(writer, |writer, (name, value)| writer.setting(name, value))
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
    let mut options = policies(&pipeline.json);
    // A file whose fold is wrong is not loaded.
    let fold = pipeline.fold.as_ref().and_then(|fold| Plan::new(pipeline, fold).ok());
    for column in fold.iter().flat_map(Plan::columns) {
        options = options.path(column, [column]);
    }
    pipeline.columns.iter().fold(options, |mut options, (name, column)| {
        if let Some(path) = &column.path {
            options = options.path(name, path.iter());
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

/// The unit of times, as the sink names it.
pub(super) fn epoch_unit(unit: EpochUnit) -> sink::EpochUnit {
    match unit {
        EpochUnit::Seconds => sink::EpochUnit::Seconds,
        EpochUnit::Milliseconds => sink::EpochUnit::Milliseconds,
        EpochUnit::Microseconds => sink::EpochUnit::Microseconds,
        EpochUnit::Nanoseconds => sink::EpochUnit::Nanoseconds,
    }
}
