//! Which dead letters a command takes. Pure.

use clap::Args;
use kmr_cli_support::time;

use crate::dead_letter::DeadLetter;

/// A filter of dead letters. All conditions have to hold.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only failures of this stage, as in "map 1"; may be repeated.
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Vec<String>,
    /// Only failures with this code; may be repeated. '' selects those without a code.
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Vec<String>,
    /// Only failures whose error contains this text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only this partition of the dead-letter topic; may be repeated.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(crate) partition: Vec<i32>,
    /// Only dead letters sent at this time or later: RFC 3339, or 2h for two hours ago.
    #[arg(long, value_name = "TIME", value_parser = point)]
    pub(crate) since: Option<Point>,
    /// Only dead letters sent before this time.
    #[arg(long, value_name = "TIME", value_parser = point)]
    pub(crate) until: Option<Point>,
}

/// A point in time of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// As it was written.
    pub(crate) text: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) millis: i64,
}

fn point(text: &str) -> Result<Point, String> {
    let millis = time::point(text, time::now_millis())?;
    Ok(Point { text: text.to_owned(), millis })
}

impl Filter {
    /// Whether it selects a dead letter. One without a time is neither before nor after any.
    pub(crate) fn selects(&self, dead_letter: &DeadLetter) -> bool {
        let millis = dead_letter.millis.unwrap_or(i64::MIN);
        let code = dead_letter.code.as_deref().unwrap_or_default();
        self.reads(dead_letter.partition)
            && (self.stage.is_empty() || self.stage.contains(&dead_letter.stage))
            && (self.code.is_empty() || self.code.iter().any(|wanted| wanted == code))
            && self.reason.as_ref().is_none_or(|text| dead_letter.error.contains(text))
            && self.since.as_ref().is_none_or(|since| millis >= since.millis)
            && self.until.as_ref().is_none_or(|until| millis < until.millis)
    }

    /// Whether it selects dead letters of a partition.
    pub(crate) fn reads(&self, partition: i32) -> bool {
        self.partition.is_empty() || self.partition.contains(&partition)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;
    use crate::dead_letter::Source;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        filter: Filter,
    }

    pub(crate) fn filter(flags: &[&str]) -> Filter {
        Flags::try_parse_from(["kmr"].iter().chain(flags)).unwrap().filter
    }

    /// A dead letter of partition 1, offset 9, sent at second 5.
    pub(crate) fn dead_letter() -> DeadLetter {
        DeadLetter {
            partition: 1,
            offset: 9,
            millis: Some(5_000),
            source: Source { topic: "orders".to_owned(), partition: 3, offset: 42, last_offset: 42 },
            source_millis: Some(77),
            stage: "map 1".to_owned(),
            error: "no number: digit 17 of row 4".to_owned(),
            code: Some("27".to_owned()),
            attempt: 1,
            first_seen: Some(4_000),
            replays: 0,
            version: "0.1.0".to_owned(),
            missing: None,
        }
    }

    #[test]
    fn every_condition_has_to_hold() {
        let selects = |flags: &[&str]| filter(flags).selects(&dead_letter());
        for flags in [
            &[][..],
            &["--stage", "map 2", "--stage", "map 1"],
            &["--code", "27"],
            &["--reason", "digit 17"],
            &["--partition", "0,1"],
            &["--since", "1970-01-01T00:00:05Z"],
            &["--until", "1970-01-01T00:00:05.001Z"],
        ] {
            assert!(selects(flags), "{flags:?}");
        }
        for flags in [
            &["--stage", "map"][..],
            &["--code", "2"],
            &["--code", ""],
            &["--reason", "Digit"],
            &["--partition", "0"],
            &["--since", "1970-01-01T00:00:05.001Z"],
            &["--until", "1970-01-01T00:00:05Z"],
            &["--since", "2h"],
            &["--code", "27", "--stage", "map 2"],
        ] {
            assert!(!selects(flags), "{flags:?}");
        }
        assert!(filter(&["--code", ""]).selects(&DeadLetter { code: None, ..dead_letter() }));
        assert!(Flags::try_parse_from(["kmr", "--since", "soon"]).is_err());
    }
}
