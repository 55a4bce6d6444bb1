//! The stages of a pipeline: filter and decoder, the sink, dead letters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use kmr_core::{
    BoxError, ClientConfig, DeadLetter, Mapped, OwnedRecord, Pipeline as Strategy, Record, RetryPolicy,
    processing_strategy,
};
use kmr_sinks::clickhouse::{ClickHouseError, JsonRow, JsonRows};
use kmr_sinks::{ClickHouseWriter, KafkaMessage, KafkaWriter, OsStreamWriter};

use super::client::producer_config;
use super::decoder::{DecodeMany, DecodeOne, Decoder};
use super::file::{Kafka, Objects, Pipeline, Sink, Tombstones};
use super::filter::Conditions;
use super::fold::{self, Plan};
use super::writer::writer;

/// A batch of dead letters is sent after this time at the latest.
const DEAD_LETTER_AGE: Duration = Duration::from_secs(1);

/// Where dead letters go.
enum Errors {
    Topic(KafkaWriter<DeadLetter>),
    Stream(OsStreamWriter<DeadLetter>),
}

/// The stages with either of the two destinations of dead letters.
macro_rules! stages {
    ($kind:ident => $map:expr, reduce => $sink:expr, $errors:expr) => {
        match $errors {
            Errors::Topic(errors) => {
                processing_strategy!({
                    map_retry => until_available(), $kind => $map, reduce => $sink, reduce_err => errors
                })
            }
            Errors::Stream(errors) => {
                processing_strategy!({
                    map_retry => until_available(), $kind => $map, reduce => $sink, reduce_err => errors
                })
            }
        }
    };
}

/// Records wait for a registry that is unavailable. They do not become dead letters.
fn until_available() -> RetryPolicy {
    RetryPolicy::default().with_give_up_after(None)
}

/// The stages of `pipeline`. `config`: the settings of its consumer.
///
/// # Errors
/// A condition of the filter is wrong, or a setting of the format.
pub(super) fn strategy(pipeline: &Pipeline, config: ClientConfig) -> anyhow::Result<Strategy> {
    let conditions = Conditions::new(&pipeline.filter).map_err(|problem| anyhow!(problem))?;
    let gate = Gate { conditions, tombstones: pipeline.source.tombstones };
    let errors = match &pipeline.dead_letters.topic {
        Some(topic) => {
            Errors::Topic(KafkaWriter::dead_letters(config.clone(), topic.as_str()).max_age(DEAD_LETTER_AGE))
        }
        None => Errors::Stream(OsStreamWriter::stderr().max_age(DEAD_LETTER_AGE)),
    };
    Ok(match pipeline.sink() {
        Sink::ClickHouse(table) => {
            let rows = writer(pipeline, table);
            let plan = pipeline.fold.as_ref().map(|fold| Plan::new(pipeline, fold)).transpose();
            let plan = plan.map_err(|problem| anyhow!(problem))?;
            match (Decoder::new(pipeline)?, pipeline.json.objects, plan) {
                (decoder, objects, Some(plan)) => folded(gate, plan, (decoder, objects), rows, errors),
                (Decoder::One(decode), ..) => {
                    stages!(filter_map => gate.decoded(decode), reduce => rows, errors)
                }
                (Decoder::Many(decode), ..) => {
                    stages!(flat_map => gate.lines(decode), reduce => rows, errors)
                }
                (Decoder::Json, Objects::One, None) => {
                    stages!(filter_map => gate.row(), reduce => rows, errors)
                }
                (Decoder::Json, Objects::Many, None) => {
                    stages!(flat_map => gate.rows(), reduce => rows, errors)
                }
            }
        }
        Sink::Kafka(kafka) => {
            let messages = messages(pipeline, kafka, config)?;
            stages!(filter_map => gate.message(), reduce => messages, errors)
        }
        Sink::Stdout => {
            let lines = lines(pipeline);
            stages!(filter_map => gate.record(), reduce => lines, errors)
        }
    })
}

/// The stages of a pipeline with a fold.
fn folded(
    gate: Gate,
    plan: Plan,
    (decoder, objects): (Decoder, Objects),
    rows: ClickHouseWriter<JsonRow>,
    errors: Errors,
) -> Strategy {
    let plan = Arc::new(plan);
    let finish = {
        let plan = Arc::clone(&plan);
        move |row: fold::Row| plan.finish(&row)
    };
    let rows = fold::by_key().finish_into(finish, rows);
    match (decoder, objects) {
        (Decoder::One(decode), _) => {
            stages!(filter_map => gate.decoded_folded(decode, plan), reduce => rows, errors)
        }
        (Decoder::Many(decode), _) => {
            stages!(flat_map => gate.lines_folded(decode, plan), reduce => rows, errors)
        }
        (Decoder::Json, Objects::One) => stages!(filter_map => gate.folded(plan), reduce => rows, errors),
        (Decoder::Json, Objects::Many) => stages!(flat_map => gate.each_folded(plan), reduce => rows, errors),
    }
}

fn messages(
    pipeline: &Pipeline,
    kafka: &Kafka,
    config: ClientConfig,
) -> anyhow::Result<KafkaWriter<KafkaMessage>> {
    Ok(KafkaWriter::new(producer_config(config, kafka)?, kafka.topic.as_str())
        .max_rows(pipeline.batch.max_rows)
        .max_bytes(pipeline.batch.max_bytes.0)
        .max_age(pipeline.batch.max_age.0)
        .attempt_timeout(pipeline.batch.attempt_timeout.0)
        .start_timeout(pipeline.start_timeout.0))
}

fn lines(pipeline: &Pipeline) -> OsStreamWriter<OwnedRecord> {
    OsStreamWriter::stdout()
        .max_rows(pipeline.batch.max_rows)
        .max_bytes(pipeline.batch.max_bytes.0)
        .max_age(pipeline.batch.max_age.0)
        .attempt_timeout(pipeline.batch.attempt_timeout.0)
}

/// Decides whether a record is processed.
#[derive(Clone, Debug)]
struct Gate {
    conditions: Conditions,
    tombstones: Tombstones,
}

impl Gate {
    /// The row of a record, or none for a record that is skipped.
    fn row(self) -> impl Fn(&Record<'_>) -> Result<Option<JsonRow>, ClickHouseError> + Send + Sync + 'static {
        move |record: &Record<'_>| {
            if self.skips(record) {
                return Ok(None);
            }
            let Ok(row) = JsonRow::from_record(record);
            Ok(self.conditions.accept(record, &row)?.then_some(row))
        }
    }

    /// The rows of a record that has any number of objects.
    fn rows(self) -> impl Fn(&Record<'_>) -> Result<Rows, ClickHouseError> + Send + Sync + 'static {
        move |record: &Record<'_>| {
            if self.skips(record) {
                return Ok(Rows::Some(Vec::new().into_iter()));
            }
            let rows = JsonRow::each(record)?;
            if self.conditions.is_empty() {
                return Ok(Rows::All(rows));
            }
            let mut accepted = Vec::new();
            for row in rows {
                if self.conditions.accept(record, &row)? {
                    accepted.push(row);
                }
            }
            Ok(Rows::Some(accepted.into_iter()))
        }
    }

    /// The row of a record for a fold, or none for a record that is skipped.
    fn folded(
        self,
        plan: Arc<Plan>,
    ) -> impl Fn(&Record<'_>) -> Result<Option<fold::Row>, BoxError> + Send + Sync + 'static {
        let row = self.row();
        move |record: &Record<'_>| row(record)?.map(|object| plan.row(record, &object)).transpose()
    }

    /// The rows of the objects of a record for a fold.
    fn each_folded(
        self,
        plan: Arc<Plan>,
    ) -> impl Fn(&Record<'_>) -> Result<Vec<fold::Row>, BoxError> + Send + Sync + 'static {
        let rows = self.rows();
        move |record: &Record<'_>| rows(record)?.map(|object| plan.row(record, &object)).collect()
    }

    /// The decoded row of a record, or none for a record that is skipped.
    fn decoded(
        self,
        decode: DecodeOne,
    ) -> impl Fn(&Record<'_>) -> Mapped<Option<JsonRow>> + Send + Sync + 'static {
        move |record: &Record<'_>| {
            if self.skips(record) || !self.conditions.accept_undecoded(record) {
                return Mapped::Ready(Ok(None));
            }
            match decode(record) {
                Mapped::Ready(row) => {
                    Mapped::Ready(row.and_then(|row| accepted(&self.conditions, record, row)))
                }
                Mapped::Pending(row) => {
                    let (conditions, record) = (self.conditions.clone(), record.to_owned());
                    Mapped::Pending(Box::pin(async move {
                        let row = row.await?;
                        accepted(&conditions, &record.as_record(), row)
                    }))
                }
            }
        }
    }

    /// The decoded rows of a record.
    fn lines(
        self,
        decode: DecodeMany,
    ) -> impl Fn(&Record<'_>) -> Result<Vec<JsonRow>, BoxError> + Send + Sync + 'static {
        move |record: &Record<'_>| {
            if self.skips(record) || !self.conditions.accept_undecoded(record) {
                return Ok(Vec::new());
            }
            let rows = decode(record)?.into_iter();
            rows.filter_map(|row| accepted(&self.conditions, record, row).transpose()).collect()
        }
    }

    /// The decoded row of a record for a fold.
    fn decoded_folded(
        self,
        decode: DecodeOne,
        plan: Arc<Plan>,
    ) -> impl Fn(&Record<'_>) -> Mapped<Option<fold::Row>> + Send + Sync + 'static {
        let decoded = self.decoded(decode);
        move |record: &Record<'_>| match decoded(record) {
            Mapped::Ready(row) => {
                Mapped::Ready(row.and_then(|row| row.map(|object| plan.row(record, &object)).transpose()))
            }
            Mapped::Pending(row) => {
                let (plan, record) = (Arc::clone(&plan), record.to_owned());
                Mapped::Pending(Box::pin(async move {
                    row.await?.map(|object| plan.row(&record.as_record(), &object)).transpose()
                }))
            }
        }
    }

    /// The decoded rows of a record for a fold.
    fn lines_folded(
        self,
        decode: DecodeMany,
        plan: Arc<Plan>,
    ) -> impl Fn(&Record<'_>) -> Result<Vec<fold::Row>, BoxError> + Send + Sync + 'static {
        let lines = self.lines(decode);
        move |record: &Record<'_>| lines(record)?.iter().map(|object| plan.row(record, object)).collect()
    }

    /// The record as a message.
    fn message(
        self,
    ) -> impl Fn(&Record<'_>) -> Result<Option<KafkaMessage>, BoxError> + Send + Sync + 'static {
        move |record: &Record<'_>| Ok(self.passes(record)?.then(|| KafkaMessage::from(record)))
    }

    /// The record itself.
    fn record(self) -> impl Fn(&Record<'_>) -> Result<Option<OwnedRecord>, BoxError> + Send + Sync + 'static {
        move |record: &Record<'_>| Ok(self.passes(record)?.then(|| record.to_owned()))
    }

    fn passes(&self, record: &Record<'_>) -> Result<bool, BoxError> {
        if self.skips(record) {
            return Ok(false);
        }
        let Ok(row) = JsonRow::from_record(record);
        let accepted = self.conditions.accept(record, &row)?;
        if accepted && record.payload().is_none() && self.tombstones == Tombstones::Fail {
            return Err(Tombstone.into());
        }
        Ok(accepted)
    }

    fn skips(&self, record: &Record<'_>) -> bool {
        record.payload().is_none() && self.tombstones == Tombstones::Skip
    }
}

/// The row, if it meets the conditions.
fn accepted(conditions: &Conditions, record: &Record<'_>, row: JsonRow) -> Result<Option<JsonRow>, BoxError> {
    Ok(conditions.accept(record, &row)?.then_some(row))
}

/// The rows of a record.
enum Rows {
    All(JsonRows),
    Some(std::vec::IntoIter<JsonRow>),
}

impl Iterator for Rows {
    type Item = JsonRow;

    fn next(&mut self) -> Option<JsonRow> {
        match self {
            Self::All(rows) => rows.next(),
            Self::Some(rows) => rows.next(),
        }
    }
}

/// The error of a record without a payload.
#[derive(Debug)]
struct Tombstone;

impl fmt::Display for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the record has no payload (a tombstone): source.tombstones = \"keep\" or \"skip\" accepts it",
        )
    }
}

impl std::error::Error for Tombstone {}
