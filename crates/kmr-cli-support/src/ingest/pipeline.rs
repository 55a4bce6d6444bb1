//! The pipeline: one of two map stages, three sinks and four dead-letter destinations.

use std::time::Duration;

use kmr_core::{BatchOptions, DeadLetter, Pipeline, RetryPolicy, processing_strategy};
use kmr_sinks::{ClickHouseWriter, KafkaWriter, OsStreamWriter};

use super::args::{Errors, Mode, RunArgs, Sink, Tombstones, Tuning};
use super::probe::{Behaviour, Probe};
use super::row::{self, IngestRow, Map};
use crate::clickhouse::{password, url, user};

/// Maximum age of a batch of dead letters.
const DEAD_LETTER_AGE: Duration = Duration::from_secs(1);

/// The pipeline that `args` describe.
pub(super) fn pipeline(args: &RunArgs) -> anyhow::Result<Pipeline> {
    let map: Map = match (args.mode, args.tombstones) {
        (Mode::Json, Tombstones::Fail) => row::json,
        (Mode::Json, Tombstones::Skip) => row::json_or_skip,
        (Mode::Raw, Tombstones::Fail) => row::raw,
        (Mode::Raw, Tombstones::Skip) => row::raw_or_skip,
    };
    Ok(match (sink_stage(args), error_stage(args)?) {
        (SinkStage::ClickHouse(sink), ErrorStage::Stream(errors)) => {
            processing_strategy!({ filter_map => map, reduce => *sink, reduce_err => errors })
        }
        (SinkStage::ClickHouse(sink), ErrorStage::Probe(errors)) => {
            processing_strategy!({ filter_map => map, reduce => *sink, reduce_err => errors })
        }
        (SinkStage::Probe(sink), ErrorStage::Stream(errors)) => {
            processing_strategy!({ filter_map => map, reduce => sink, reduce_err => errors })
        }
        (SinkStage::Probe(sink), ErrorStage::Probe(errors)) => {
            processing_strategy!({ filter_map => map, reduce => sink, reduce_err => errors })
        }
        (SinkStage::ClickHouse(sink), ErrorStage::Topic(errors)) => {
            processing_strategy!({ filter_map => map, reduce => *sink, reduce_err => errors })
        }
        (SinkStage::Probe(sink), ErrorStage::Topic(errors)) => {
            processing_strategy!({ filter_map => map, reduce => sink, reduce_err => errors })
        }
    })
}

enum SinkStage {
    ClickHouse(Box<ClickHouseWriter<IngestRow>>),
    Probe(Probe<IngestRow>),
}

enum ErrorStage {
    Stream(OsStreamWriter<DeadLetter>),
    Probe(Probe<DeadLetter>),
    Topic(KafkaWriter<DeadLetter>),
}

fn sink_stage(args: &RunArgs) -> SinkStage {
    let tuning = &args.tuning;
    let behaviour = match args.sink {
        Sink::Clickhouse => return SinkStage::ClickHouse(Box::new(clickhouse_writer(args))),
        Sink::Drop => Behaviour::Discard,
        Sink::Stalled => Behaviour::Stall,
    };
    let options =
        batch_options(tuning, behaviour).with_max_rows(tuning.max_rows).with_max_age(tuning.max_age);
    SinkStage::Probe(Probe::new(behaviour, options))
}

pub(super) fn clickhouse_writer(args: &RunArgs) -> ClickHouseWriter<IngestRow> {
    let tuning = &args.tuning;
    let mut writer = ClickHouseWriter::new(url(&args.clickhouse), &args.clickhouse.table)
        .database(&args.clickhouse.database)
        .max_rows(tuning.max_rows)
        .max_age(tuning.max_age)
        .attempt_timeout(tuning.attempt_timeout)
        .start_timeout(tuning.connect_timeout);
    if let Some(user) = user() {
        writer = writer.user(user);
    }
    if let Some(password) = password() {
        writer = writer.password(password);
    }
    writer
}

fn error_stage(args: &RunArgs) -> anyhow::Result<ErrorStage> {
    if let Some(topic) = &args.dead_letter_topic {
        let writer = KafkaWriter::dead_letters(super::client_config(args)?, topic.as_str())
            .max_age(DEAD_LETTER_AGE)
            .attempt_timeout(args.tuning.attempt_timeout)
            .start_timeout(args.tuning.connect_timeout);
        return Ok(ErrorStage::Topic(writer));
    }
    let behaviour = match args.errors {
        Errors::Stderr => {
            let stream = OsStreamWriter::stderr().max_age(DEAD_LETTER_AGE);
            return Ok(ErrorStage::Stream(stream.attempt_timeout(args.tuning.attempt_timeout)));
        }
        Errors::Drop => Behaviour::Discard,
        Errors::Stalled => Behaviour::Stall,
    };
    let options = batch_options(&args.tuning, behaviour).with_max_age(DEAD_LETTER_AGE);
    Ok(ErrorStage::Probe(Probe::new(behaviour, options)))
}

fn batch_options(tuning: &Tuning, behaviour: Behaviour) -> BatchOptions {
    let options = BatchOptions::default().with_attempt_timeout(tuning.attempt_timeout);
    match behaviour {
        Behaviour::Discard => options,
        // A stalled sink is retried without limit, to show back-pressure and not a failure.
        Behaviour::Stall => options.with_retry(RetryPolicy::default().with_give_up_after(None)),
    }
}
