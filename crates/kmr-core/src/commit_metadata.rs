//! The commit metadata of exactly-once mode: the plan of the block that is being inserted, or an
//! idle marker. Pure: text in, text out.
//!
//! Invariants (see docs/design/exactly-once.md):
//! * E1: the text is versioned and below 4,096 bytes, the brokers' default limit. It ends with a
//!   checksum over all of it.
//! * E2: commit metadata is valid only for the log, by cluster and topic id, and for the offset
//!   that it names.

use std::sync::Arc;

use crate::error::Error;
use crate::log_id::LogId;
use crate::record::TopicPartition;
use crate::reducer::Fingerprint;

/// The first word of all commit metadata: name and version of the format.
const VERSION: &str = "kmr1";
/// `offset.metadata.max.bytes` of the brokers, by default.
const LIMIT: usize = 4096;

/// A block to insert: its records, and the fingerprint that a rebuilt block must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) log: LogId,
    pub(crate) epoch: i64,
    /// The offset that is committed while the plan is open.
    pub(crate) first: i64,
    /// The offset of the last record that has a row in the block.
    pub(crate) last: i64,
    pub(crate) rows: Fingerprint,
    /// Bytes of the memory budget that the block holds.
    pub(crate) budget: u64,
    /// The sink's deduplication token for the block. A rebuilt block uses this token and never
    /// computes a new one.
    pub(crate) token: Arc<str>,
    /// In milliseconds since the Unix epoch.
    pub(crate) created: i64,
}

/// The part of a log that a block is planned from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedRange {
    pub(crate) epoch: i64,
    /// See [`Plan::first`].
    pub(crate) first: i64,
    /// See [`Plan::last`].
    pub(crate) last: i64,
}

impl Plan {
    /// The token of a new plan. It contains the epoch, so that the sink does not drop rows as
    /// duplicates that an operator inserts again on purpose.
    pub(crate) fn new_token(
        log: &LogId,
        partition: &TopicPartition,
        range: PlannedRange,
        rows: Fingerprint,
    ) -> Arc<str> {
        let (number, PlannedRange { epoch, first, last }) = (partition.partition(), range);
        format!("kmr-{:032x}-{number}-{epoch}-{first}-{last}-{:032x}", log.topic, rows.hash).into()
    }

    pub(crate) fn text(&self) -> Arc<str> {
        let Self { log, epoch, first, last, rows, budget, token, created } = self;
        let Fingerprint { rows, bytes, hash } = rows;
        let cluster = escaped(&log.cluster);
        with_checksum(&format!(
            "{VERSION} plan {cluster} {:032x} {epoch} {first} {last} {rows} {bytes} {hash:032x} {budget} {created} {token}",
            log.topic
        ))
    }
}

/// No plan is open: everything below the offset is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdleMarker {
    pub(crate) log: LogId,
    pub(crate) epoch: i64,
    /// The offset that the marker is committed with.
    pub(crate) offset: i64,
}

impl IdleMarker {
    pub(crate) fn text(&self) -> Arc<str> {
        let Self { log, epoch, offset } = self;
        with_checksum(&format!(
            "{VERSION} idle {} {:032x} {epoch} {offset}",
            escaped(&log.cluster),
            log.topic
        ))
    }
}

/// Commit metadata that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommitMetadata {
    Idle(IdleMarker),
    Plan(Plan),
}

/// Why a text is not commit metadata of kmr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidMetadata {
    /// Another program or another version of the format wrote it.
    Foreign,
    /// It has the first word of kmr's metadata, but its form or its checksum is wrong.
    Damaged,
}

impl CommitMetadata {
    /// # Errors
    /// The text is not whole and unchanged commit metadata of this version.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidMetadata> {
        if text.split(' ').next() != Some(VERSION) {
            return Err(InvalidMetadata::Foreign);
        }
        let (content, sum) = text.rsplit_once(' ').ok_or(InvalidMetadata::Damaged)?;
        if sum != checksum(content) {
            return Err(InvalidMetadata::Damaged);
        }
        let words: Vec<&str> = content.split(' ').collect();
        parse_words(&words).ok_or(InvalidMetadata::Damaged)
    }

    /// What differs from this log and this offset (E2). `None`: the metadata is valid for both.
    pub(crate) fn mismatch(&self, log: &LogId, offset: Option<i64>) -> Option<String> {
        let (of, at) = match self {
            CommitMetadata::Idle(idle) => (&idle.log, idle.offset),
            CommitMetadata::Plan(plan) => (&plan.log, plan.first),
        };
        if of != log {
            return Some(format!("its metadata is for {of}, but this log has {log}"));
        }
        let differs = offset != Some(at);
        differs.then(|| format!("its metadata is for offset {at}"))
    }
}

fn parse_words(words: &[&str]) -> Option<CommitMetadata> {
    let log = LogId::new(&unescaped(words.get(2)?)?, hex(words.get(3)?)?)?;
    let number = |at: usize| words.get(at)?.parse::<i64>().ok();
    let count = |at: usize| words.get(at)?.parse::<u64>().ok();
    let epoch = number(4)?;
    match (words.get(1).copied()?, words.len()) {
        ("idle", 6) => Some(CommitMetadata::Idle(IdleMarker { log, epoch, offset: number(5)? })),
        ("plan", 13) => {
            let rows = Fingerprint { rows: count(7)?, bytes: count(8)?, hash: hex(words.get(9)?)? };
            let (first, last) = (number(5)?, number(6)?);
            let (budget, created) = (count(10)?, number(11)?);
            let token = (*words.get(12)?).into();
            let plan = Plan { log, epoch, first, last, rows, budget, token, created };
            (plan.first <= plan.last && !plan.token.is_empty()).then_some(CommitMetadata::Plan(plan))
        }
        _ => None,
    }
}

fn hex(word: &str) -> Option<u128> {
    (word.len() == 32).then(|| u128::from_str_radix(word, 16).ok())?
}

/// Adds the checksum. Every part has a bounded length, and so has the whole.
fn with_checksum(content: &str) -> Arc<str> {
    let text = format!("{content} {}", checksum(content));
    debug_assert!(text.len() < LIMIT, "{}", text.len());
    text.into()
}

/// FNV-1a of 64 bits. It detects text that was cut or retyped, not forgery.
fn checksum(content: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    format!("{:016x}", content.bytes().fold(0xCBF2_9CE4_8422_2325, fold))
}

/// Words contain no spaces: bytes of other than plain characters become hex.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

fn unescaped(word: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// A consumer in at-least-once mode must not read records of an open plan: the sink may store them
/// already.
pub(crate) fn ensure_no_open_plan(partition: &TopicPartition, metadata: Option<&str>) -> Result<(), Error> {
    match metadata.map(CommitMetadata::parse) {
        Some(Ok(CommitMetadata::Plan(plan))) => {
            Err(Error::OpenPlan { partition: partition.clone(), first: plan.first, last: plan.last })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log_id::MAX_CLUSTER;

    fn log() -> impl Strategy<Value = LogId> {
        (".{1,40}", 1..u128::MAX).prop_map(|(cluster, topic)| LogId::new(&cluster, topic).unwrap())
    }

    prop_compose! {
        fn plan()(
            log in log(),
            epoch in any::<i64>(),
            first in 0..i64::MAX / 2,
            length in 0..i64::MAX / 2,
            (rows, bytes, hash) in any::<(u64, u64, u128)>(),
            (budget, created, number) in any::<(u64, i64, i32)>(),
        ) -> Plan {
            let (rows, last) = (Fingerprint { rows, bytes, hash }, first + length);
            let partition = TopicPartition::new("t", number);
            let token = Plan::new_token(&log, &partition, PlannedRange { epoch, first, last }, rows);
            Plan { log, epoch, first, last, rows, budget, token, created }
        }
    }

    proptest! {
        #[test]
        fn plan_text_parses_back_and_is_below_the_limit(plan in plan()) {
            let text = plan.text();
            prop_assert!(text.len() < LIMIT);
            prop_assert!(!text.contains(|c: char| c.is_control() || !c.is_ascii()));
            prop_assert_eq!(CommitMetadata::parse(&text), Ok(CommitMetadata::Plan(plan)));
        }

        #[test]
        fn idle_marker_text_parses_back(log in log(), epoch in any::<i64>(), offset in 0..i64::MAX) {
            let idle = IdleMarker { log, epoch, offset };
            prop_assert_eq!(CommitMetadata::parse(&idle.text()), Ok(CommitMetadata::Idle(idle)));
        }

        /// One character less, more or other never parses as a different plan.
        #[test]
        fn changed_text_does_not_parse(plan in plan(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let text = plan.text();
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len());
            let before = std::mem::replace(&mut bytes[at], with % 128);
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(CommitMetadata::parse(&changed).is_ok(), before == with % 128);
            prop_assert!(CommitMetadata::parse(&text[..at]).is_err(), "shorter text does not parse");
            prop_assert!(CommitMetadata::parse(&format!("{text} ")).is_err(), "longer text does not parse");
        }

        #[test]
        fn other_text_does_not_parse(text in ".{0,200}") {
            prop_assert!(CommitMetadata::parse(&text).is_err());
        }
    }

    #[test]
    fn plan_with_the_longest_cluster_id_is_below_the_limit() {
        let log = LogId::new(&"ü".repeat(MAX_CLUSTER / 2), u128::MAX).unwrap();
        let rows = Fingerprint { rows: u64::MAX, bytes: u64::MAX, hash: u128::MAX };
        let (first, last) = (i64::MAX - 1, i64::MAX);
        let partition = TopicPartition::new("t", i32::MAX);
        let range = PlannedRange { epoch: i64::MIN, first, last };
        let token = Plan::new_token(&log, &partition, range, rows);
        let plan =
            Plan { log, epoch: i64::MIN, first, last, rows, budget: u64::MAX, token, created: i64::MIN };
        assert!(plan.text().len() < LIMIT, "{}", plan.text().len());
        assert!(LogId::new(&"u".repeat(MAX_CLUSTER + 1), 1).is_none());
        assert!(LogId::new("", 1).is_none() && LogId::new("c", 0).is_none());
    }

    #[test]
    fn mismatch_names_the_other_log_and_the_other_offset() {
        let (one, other) = (LogId::new("c", 1).unwrap(), LogId::new("c", 2).unwrap());
        let metadata = CommitMetadata::Idle(IdleMarker { log: one.clone(), epoch: 3, offset: 17 });
        assert_eq!(metadata.mismatch(&one, Some(17)), None);
        assert!(metadata.mismatch(&other, Some(17)).is_some_and(|text| text.contains("topic id")));
        assert!(metadata.mismatch(&one, Some(16)).is_some_and(|text| text.contains("offset 17")));
        assert!(metadata.mismatch(&one, None).is_some());
        assert_eq!(CommitMetadata::parse("plan of orders/0"), Err(InvalidMetadata::Foreign));
        assert_eq!(CommitMetadata::parse("kmr1 plan"), Err(InvalidMetadata::Damaged));
        assert_eq!(CommitMetadata::parse("kmr2 idle c 0 0 0 0"), Err(InvalidMetadata::Foreign));
    }

    #[test]
    fn tokens_differ_by_epoch_range_partition_and_content() {
        let log = LogId::new("c", 1).unwrap();
        let rows = Fingerprint { rows: 1, bytes: 2, hash: 3 };
        let token = |number, (epoch, first, last), hash| {
            let (partition, range) = (TopicPartition::new("t", number), PlannedRange { epoch, first, last });
            Plan::new_token(&log, &partition, range, Fingerprint { hash, ..rows })
        };
        let tokens = [
            token(0, (1, 2, 3), 4),
            token(1, (1, 2, 3), 4),
            token(0, (2, 2, 3), 4),
            token(0, (1, 1, 3), 4),
            token(0, (1, 2, 4), 4),
            token(0, (1, 2, 3), 5),
        ];
        for (at, token) in tokens.iter().enumerate() {
            assert!(!tokens[at + 1..].contains(token), "token {at} is not unique: {tokens:?}");
        }
    }
}
