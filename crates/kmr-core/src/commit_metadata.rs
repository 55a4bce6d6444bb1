//! What exactly-once mode keeps in the group's own commit metadata: the plan of the block that is being inserted, or an idle mark.
//! Pure: text in, text out.
//!
//! Invariants (rules of ARCHITECTURE.md, "Exactly once"):
//! * E1: the text is versioned, below 4,096 bytes (the brokers' default limit), and ends with a checksum over all of it.
//! * E2: a mark is honoured only for the log, by cluster and topic id, and at the offset that it names.

use std::sync::Arc;

use crate::error::Error;
use crate::log_id::LogId;
use crate::record::TopicPartition;
use crate::reducer::Fingerprint;

/// The first word of every mark: name and version of the format.
const VERSION: &str = "kmr1";
/// `offset.metadata.max.bytes` of the brokers, by default.
const LIMIT: usize = 4096;

/// A block that is to be inserted: which records it is made of, and what it has to be when it is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) log: LogId,
    pub(crate) epoch: i64,
    /// The offset that is committed while the plan is open.
    pub(crate) first: i64,
    /// The offset of the last record that has a row in the block.
    pub(crate) last: i64,
    pub(crate) rows: Fingerprint,
    /// What the block holds of the byte budget, in bytes.
    pub(crate) budget: u64,
    /// Under which the sink knows the block. Read from here, never made again.
    pub(crate) token: Arc<str>,
    /// In milliseconds since the Unix epoch.
    pub(crate) created: i64,
}

impl Plan {
    /// The token of a new plan. The epoch is in it: what is inserted again on purpose is not dropped as a duplicate.
    pub(crate) fn token_of(
        log: &LogId,
        partition: &TopicPartition,
        (epoch, first, last): (i64, i64, i64),
        rows: Fingerprint,
    ) -> Arc<str> {
        let number = partition.partition();
        format!("kmr-{:032x}-{number}-{epoch}-{first}-{last}-{:032x}", log.topic, rows.hash).into()
    }

    pub(crate) fn text(&self) -> Arc<str> {
        let Self { log, epoch, first, last, rows, budget, token, created } = self;
        let Fingerprint { rows, bytes, hash } = rows;
        let cluster = escaped(&log.cluster);
        sealed(&format!(
            "{VERSION} plan {cluster} {:032x} {epoch} {first} {last} {rows} {bytes} {hash:032x} {budget} {created} {token}",
            log.topic
        ))
    }
}

/// No block is being inserted: everything below the offset is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) log: LogId,
    pub(crate) epoch: i64,
    /// The offset that it was committed with.
    pub(crate) offset: i64,
}

impl Idle {
    pub(crate) fn text(&self) -> Arc<str> {
        let Self { log, epoch, offset } = self;
        sealed(&format!("{VERSION} idle {} {:032x} {epoch} {offset}", escaped(&log.cluster), log.topic))
    }
}

/// A mark that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Idle(Idle),
    Plan(Plan),
}

/// Why a text is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoMark {
    /// Somebody else's, or none at all.
    Foreign,
    /// It starts like one, but its form or its checksum is not right.
    Damaged,
}

impl Mark {
    /// # Errors
    /// The text is not a mark of this version, whole and unchanged.
    pub(crate) fn parse(text: &str) -> Result<Self, NoMark> {
        if text.split(' ').next() != Some(VERSION) {
            return Err(NoMark::Foreign);
        }
        let (content, sum) = text.rsplit_once(' ').ok_or(NoMark::Damaged)?;
        if sum != checksum(content) {
            return Err(NoMark::Damaged);
        }
        let words: Vec<&str> = content.split(' ').collect();
        read(&words).ok_or(NoMark::Damaged)
    }

    /// Whether it was made for this log and this offset (E2); if not, what differs.
    pub(crate) fn problem(&self, log: &LogId, offset: Option<i64>) -> Option<String> {
        let (of, at) = match self {
            Mark::Idle(idle) => (&idle.log, idle.offset),
            Mark::Plan(plan) => (&plan.log, plan.first),
        };
        if of != log {
            return Some(format!("its metadata is of {of}, and this is {log}"));
        }
        let differs = offset != Some(at);
        differs.then(|| format!("its metadata is of offset {at}"))
    }
}

fn read(words: &[&str]) -> Option<Mark> {
    let log = LogId::new(&unescaped(words.get(2)?)?, hex(words.get(3)?)?)?;
    let number = |at: usize| words.get(at)?.parse::<i64>().ok();
    let count = |at: usize| words.get(at)?.parse::<u64>().ok();
    let epoch = number(4)?;
    match (words.get(1).copied()?, words.len()) {
        ("idle", 6) => Some(Mark::Idle(Idle { log, epoch, offset: number(5)? })),
        ("plan", 13) => {
            let rows = Fingerprint { rows: count(7)?, bytes: count(8)?, hash: hex(words.get(9)?)? };
            let (first, last) = (number(5)?, number(6)?);
            let (budget, created) = (count(10)?, number(11)?);
            let token = (*words.get(12)?).into();
            let plan = Plan { log, epoch, first, last, rows, budget, token, created };
            (plan.first <= plan.last && !plan.token.is_empty()).then_some(Mark::Plan(plan))
        }
        _ => None,
    }
}

fn hex(word: &str) -> Option<u128> {
    (word.len() == 32).then(|| u128::from_str_radix(word, 16).ok())?
}

/// Adds the checksum. The parts are bounded, so that the whole is.
fn sealed(content: &str) -> Arc<str> {
    let text = format!("{content} {}", checksum(content));
    debug_assert!(text.len() < LIMIT, "{}", text.len());
    text.into()
}

/// FNV-1a of 64 bits: the text may be cut or retyped, not forged.
fn checksum(content: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    format!("{:016x}", content.bytes().fold(0xCBF2_9CE4_8422_2325, fold))
}

/// Words hold no blanks: what is not a plain character becomes its bytes in hex.
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

/// A consumer that does not deliver exactly once must not touch records of an open plan: they may be in the sink already.
pub(crate) fn refuse_open_plan(partition: &TopicPartition, metadata: Option<&str>) -> Result<(), Error> {
    match metadata.map(Mark::parse) {
        Some(Ok(Mark::Plan(plan))) => {
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
            let token = Plan::token_of(&log, &partition, (epoch, first, last), rows);
            Plan { log, epoch, first, last, rows, budget, token, created }
        }
    }

    proptest! {
        #[test]
        fn plans_are_read_back_and_fit_into_the_metadata(plan in plan()) {
            let text = plan.text();
            prop_assert!(text.len() < LIMIT);
            prop_assert!(!text.contains(|c: char| c.is_control() || !c.is_ascii()));
            prop_assert_eq!(Mark::parse(&text), Ok(Mark::Plan(plan)));
        }

        #[test]
        fn idle_marks_are_read_back(log in log(), epoch in any::<i64>(), offset in 0..i64::MAX) {
            let idle = Idle { log, epoch, offset };
            prop_assert_eq!(Mark::parse(&idle.text()), Ok(Mark::Idle(idle)));
        }

        /// One character less, more or other: never a plan that differs from the one that was written.
        #[test]
        fn what_was_changed_is_not_honoured(plan in plan(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let text = plan.text();
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len());
            let before = std::mem::replace(&mut bytes[at], with % 128);
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(Mark::parse(&changed).is_ok(), before == with % 128);
            prop_assert!(Mark::parse(&text[..at]).is_err(), "cut");
            prop_assert!(Mark::parse(&format!("{text} ")).is_err(), "longer");
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            prop_assert!(Mark::parse(&text).is_err());
        }
    }

    #[test]
    fn the_longest_cluster_id_fits() {
        let log = LogId::new(&"ü".repeat(MAX_CLUSTER / 2), u128::MAX).unwrap();
        let rows = Fingerprint { rows: u64::MAX, bytes: u64::MAX, hash: u128::MAX };
        let (first, last) = (i64::MAX - 1, i64::MAX);
        let partition = TopicPartition::new("t", i32::MAX);
        let token = Plan::token_of(&log, &partition, (i64::MIN, first, last), rows);
        let plan =
            Plan { log, epoch: i64::MIN, first, last, rows, budget: u64::MAX, token, created: i64::MIN };
        assert!(plan.text().len() < LIMIT, "{}", plan.text().len());
        assert!(LogId::new(&"u".repeat(MAX_CLUSTER + 1), 1).is_none());
        assert!(LogId::new("", 1).is_none() && LogId::new("c", 0).is_none());
    }

    #[test]
    fn other_logs_and_other_offsets_are_named() {
        let (one, other) = (LogId::new("c", 1).unwrap(), LogId::new("c", 2).unwrap());
        let mark = Mark::Idle(Idle { log: one.clone(), epoch: 3, offset: 17 });
        assert_eq!(mark.problem(&one, Some(17)), None);
        assert!(mark.problem(&other, Some(17)).is_some_and(|text| text.contains("topic id")));
        assert!(mark.problem(&one, Some(16)).is_some_and(|text| text.contains("offset 17")));
        assert!(mark.problem(&one, None).is_some());
        assert_eq!(Mark::parse("plan of orders/0"), Err(NoMark::Foreign));
        assert_eq!(Mark::parse("kmr1 plan"), Err(NoMark::Damaged));
        assert_eq!(Mark::parse("kmr2 idle c 0 0 0 0"), Err(NoMark::Foreign));
    }

    #[test]
    fn tokens_differ_by_epoch_range_partition_and_content() {
        let log = LogId::new("c", 1).unwrap();
        let rows = Fingerprint { rows: 1, bytes: 2, hash: 3 };
        let token = |number, place, hash| {
            Plan::token_of(&log, &TopicPartition::new("t", number), place, Fingerprint { hash, ..rows })
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
            assert!(!tokens[at + 1..].contains(token), "{tokens:?}");
        }
    }
}
