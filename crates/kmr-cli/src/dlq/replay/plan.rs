//! What a replay does with each dead letter. Pure.

use std::collections::BTreeSet;

use kmr_cli_support::numbers::counted;

use crate::dead_letter::{DeadLetter, HeaderRef, header};
use crate::dlq::filter::Filter;

/// The version of kmr whose dead letters this program knows.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Limit of Kafka for the name of a group, which a name of a topic has too.
const LONGEST_NAME: usize = 249;

/// Which dead letters to send, where to, and which to reject.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) filter: Filter,
    /// The dead-letter topic.
    pub(super) dead_letter_topic: String,
    pub(super) prefix: String,
    /// The target of all, in place of each record's own topic.
    pub(super) to: Option<String>,
    pub(super) max_replays: u32,
    /// Positions that the operator leaves out.
    pub(super) skip: BTreeSet<(i32, u64)>,
}

/// What becomes of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Replay,
    /// The filter does not select it.
    Filtered,
    /// It is later than `--until`: the replay of its partition ends before it.
    TooLate,
    Rejected(String),
}

impl Plan {
    pub(super) fn verdict(&self, dead_letter: &DeadLetter) -> Verdict {
        if self
            .filter
            .until
            .as_ref()
            .is_some_and(|until| dead_letter.millis.is_some_and(|at| at >= until.millis))
        {
            return Verdict::TooLate;
        }
        if !self.filter.selects(dead_letter) {
            return Verdict::Filtered;
        }
        self.rejection(dead_letter).map_or(Verdict::Replay, Verdict::Rejected)
    }

    fn rejection(&self, dead_letter: &DeadLetter) -> Option<String> {
        let source = &dead_letter.source;
        if self.skip.contains(&(dead_letter.partition, dead_letter.offset)) {
            return Some("--skip names it".to_owned());
        }
        if source.offset != source.last_offset {
            return Some(format!(
                "it stands for the records {}/{} offsets {}, not for one",
                source.topic,
                source.partition,
                source.offsets()
            ));
        }
        if let Some(why) = &dead_letter.missing {
            return Some(format!("it lacks content of its record: {why}"));
        }
        if dead_letter.replays >= self.max_replays {
            return Some(format!(
                "its record was replayed {} and failed again (--max-replays {})",
                counted(dead_letter.replays.into(), "time"),
                self.max_replays
            ));
        }
        if is_newer(&dead_letter.version, VERSION) {
            return Some(format!("kmr {} wrote it, and this is {VERSION}", dead_letter.version));
        }
        (self.target(dead_letter) == self.dead_letter_topic)
            .then(|| "it would go back into the dead-letter topic; name another one with --to".to_owned())
    }

    /// The topic that it is sent to.
    pub(super) fn target<'p>(&'p self, dead_letter: &'p DeadLetter) -> &'p str {
        self.to.as_deref().unwrap_or(&dead_letter.source.topic)
    }

    /// The headers of the record that is sent: its own ones, and those that count its failures.
    pub(super) fn headers(
        &self,
        dead_letter: &DeadLetter,
        headers: &[HeaderRef<'_>],
    ) -> Vec<(String, Option<Vec<u8>>)> {
        let is_own = |name: &str| {
            let known = name.strip_prefix(self.prefix.as_str());
            !known.is_some_and(|name| header::ALL.contains(&name))
        };
        let own = headers.iter().filter(|(name, _)| is_own(name));
        let mut kept: Vec<_> =
            own.map(|(name, value)| (name.clone().into_owned(), value.map(<[u8]>::to_vec))).collect();
        let mut add = |name: &str, value: String| {
            kept.push((format!("{}{name}", self.prefix), Some(value.into_bytes())));
        };
        let source = &dead_letter.source;
        add(header::REPLAYS, dead_letter.replays.saturating_add(1).to_string());
        add(header::REPLAY_OF, format!("{}/{}/{}", source.topic, source.partition, source.offset));
        // The next dead letter of the record counts on from these.
        add(header::ATTEMPT, dead_letter.attempt.to_string());
        if let Some(millis) = dead_letter.first_seen {
            add(header::FIRST_SEEN, millis.to_string());
        }
        kept
    }

    /// Identifies what the progress of a replay depends on: dead letters that it has passed without
    /// sending them. `--until`, `--limit`, `--skip` and `--max-replays` may change between runs.
    pub(super) fn fingerprint(&self) -> String {
        let Filter { stage, code, reason, partition, since, until: _ } = &self.filter;
        let since = since.as_ref().map(|since| &since.text);
        let text = format!("{:?}", (&self.prefix, &self.to, stage, code, reason, partition, since));
        // FNV-1a: the same in each version of each program.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    /// The name of a replay that the operator has not named. The same flags have the same name.
    pub(super) fn default_name(&self) -> String {
        let unfiltered = Self { filter: Filter::default(), to: None, ..self.clone() };
        let suffix = match self.fingerprint() {
            same if same == unfiltered.fingerprint() => String::new(),
            other => format!("-{}", &other[..8]),
        };
        let mut topic = self.dead_letter_topic.clone();
        topic.truncate(LONGEST_NAME - "kmr-replay-".len() - suffix.len());
        format!("kmr-replay-{topic}{suffix}")
    }
}

/// Whether a version has another format, by the rules of semantic versions, and is newer.
fn is_newer(version: &str, than: &str) -> bool {
    let format = |version: &str| {
        let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u64>().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some((major, if major == 0 { minor } else { 0 }))
    };
    match (format(version), format(than)) {
        (Some(version), Some(than)) => version > than,
        // Versions before the header have no other format.
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dead_letter::Source;
    use crate::dlq::filter::tests::{dead_letter, filter};

    pub(crate) fn plan(flags: &[&str]) -> Plan {
        Plan {
            filter: filter(flags),
            dead_letter_topic: "orders-dead".to_owned(),
            prefix: "kmr.".to_owned(),
            to: None,
            max_replays: 3,
            skip: [(1, 7)].into(),
        }
    }

    #[test]
    fn what_cannot_be_replayed_is_rejected_by_name() {
        let rejected = |dead_letter: DeadLetter| match plan(&[]).verdict(&dead_letter) {
            Verdict::Rejected(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(plan(&[]).verdict(&dead_letter()), Verdict::Replay);
        assert!(rejected(DeadLetter { offset: 7, ..dead_letter() }).contains("--skip"));
        let range = Source { last_offset: 45, ..dead_letter().source };
        assert!(rejected(DeadLetter { source: range, ..dead_letter() }).contains("orders/3 offsets 42–45"));
        let missing = Some("too large without the payload".to_owned());
        assert!(rejected(DeadLetter { missing, ..dead_letter() }).contains("lacks content"));
        assert_eq!(plan(&[]).verdict(&DeadLetter { replays: 2, ..dead_letter() }), Verdict::Replay);
        assert!(rejected(DeadLetter { replays: 3, ..dead_letter() }).contains("replayed 3 times"));
        assert!(
            rejected(DeadLetter { version: "999.0.0".to_owned(), ..dead_letter() }).contains("kmr 999.0.0")
        );
        let own = Source { topic: "orders-dead".to_owned(), ..dead_letter().source };
        assert!(rejected(DeadLetter { source: own.clone(), ..dead_letter() }).contains("--to"));
        let elsewhere = Plan { to: Some("retries".to_owned()), ..plan(&[]) };
        assert_eq!(elsewhere.verdict(&DeadLetter { source: own, ..dead_letter() }), Verdict::Replay);
    }

    #[test]
    fn what_the_filter_leaves_out_is_not_rejected() {
        let unselected = DeadLetter { replays: 9, ..dead_letter() };
        assert_eq!(plan(&["--stage", "map 2"]).verdict(&unselected), Verdict::Filtered);
        assert_eq!(plan(&["--until", "1970-01-01T00:00:05Z"]).verdict(&dead_letter()), Verdict::TooLate);
        assert_eq!(plan(&["--until", "1970-01-01T00:00:06Z"]).verdict(&dead_letter()), Verdict::Replay);
    }

    #[test]
    fn a_replayed_record_has_its_own_headers_and_counts() {
        let value = |text: &'static str| Some(text.as_bytes());
        let headers = [
            ("a", value("1")),
            ("a", None),
            ("kmr.tenant", value("7")),
            ("kmr.replays", value("1")),
            ("kmr.replay_of", value("orders/3/5")),
            ("kmr.topic", value("orders")),
            ("kmr.error", value("no number")),
            ("kmr.missing", None),
        ]
        .map(|(name, value)| (name.into(), value));
        let dead_letter = DeadLetter { replays: 1, attempt: 2, ..dead_letter() };
        let kept = plan(&[]).headers(&dead_letter, &headers);
        let kept: Vec<_> = kept
            .iter()
            .map(|(name, value)| {
                (name.as_str(), value.as_deref().map(|value| std::str::from_utf8(value).unwrap()))
            })
            .collect();
        let expected = [
            ("a", Some("1")),
            ("a", None),
            ("kmr.tenant", Some("7")),
            ("kmr.replays", Some("2")),
            ("kmr.replay_of", Some("orders/3/42")),
            ("kmr.attempt", Some("2")),
            ("kmr.first_seen", Some("4000")),
        ];
        assert_eq!(kept, expected);
    }

    #[test]
    fn the_same_flags_have_the_same_name_and_other_filters_another() {
        assert_eq!(plan(&[]).default_name(), "kmr-replay-orders-dead");
        let filtered = plan(&["--stage", "map 1"]).default_name();
        assert!(filtered.starts_with("kmr-replay-orders-dead-") && filtered.len() == 31, "{filtered}");
        assert_eq!(filtered, plan(&["--stage", "map 1", "--until", "2h"]).default_name());
        let hour = plan(&["--since", "1h"]);
        assert_eq!(hour.fingerprint(), plan(&["--since", "1h"]).fingerprint());
        let others = [
            plan(&["--code", "map 1"]),
            plan(&["--since", "2h"]),
            plan(&["--stage", "map 1", "--partition", "1"]),
            Plan { to: Some("retries".to_owned()), ..plan(&[]) },
        ];
        let names: BTreeSet<_> = others.iter().map(Plan::default_name).chain([filtered]).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        let long = Plan { dead_letter_topic: "t".repeat(LONGEST_NAME), ..plan(&["--code", "1"]) };
        assert_eq!(long.default_name().len(), LONGEST_NAME);
    }

    #[test]
    fn versions_with_the_same_format_are_known() {
        for (version, than, newer) in [
            ("0.1.0", "0.1.9", false),
            ("0.1.9", "0.1.0", false),
            ("0.2.0", "0.1.9", true),
            ("0.1.0", "0.2.0", false),
            ("1.5.0", "1.0.0", false),
            ("2.0.0-rc.1", "1.9.9", true),
            ("unknown", "0.1.0", false),
        ] {
            assert_eq!(is_newer(version, than), newer, "{version} {than}");
        }
    }
}
