//! The measurements besides the table of contenders, each with a table of its own.

mod exactly_once;
mod fold;
mod growth;
mod idle;
mod json;
mod scale_out;
mod stalled;
mod tail;

use anyhow::{Context as _, Result};
use comfy_table::Table;

use crate::figures::{self, Spread};
use crate::options::Options;
use crate::servers::Servers;
use crate::table::{self, Target, table};

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measurement {
    Tail,
    Stalled,
    Growth,
    Idle,
    ExactlyOnce,
    Fold,
    Json,
    ScaleOut,
}

impl Measurement {
    pub(crate) const ALL: [Self; 8] = [
        Self::Tail,
        Self::Stalled,
        Self::Growth,
        Self::Idle,
        Self::ExactlyOnce,
        Self::Fold,
        Self::Json,
        Self::ScaleOut,
    ];

    /// The measurement with this name on the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measurement| measurement.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tail => "tail",
            Self::Stalled => "stalled",
            Self::Growth => "growth",
            Self::Idle => "idle",
            Self::ExactlyOnce => "exactly-once",
            Self::Fold => "fold",
            Self::Json => "json",
            Self::ScaleOut => "scale-out",
        }
    }
}

/// Runs a measurement and returns its table.
pub(crate) async fn run(measurement: Measurement, options: &Options, servers: &Servers) -> Result<Table> {
    let lines = match measurement {
        Measurement::Tail => tail::run(options, servers).await,
        Measurement::Stalled => stalled::run(options, servers).await,
        Measurement::Growth => growth::run(options, servers).await,
        Measurement::Idle => idle::run(options, servers).await,
        Measurement::ExactlyOnce => exactly_once::run(options, servers).await,
        Measurement::Fold => fold::run(options, servers).await,
        Measurement::Json => json::run(options, servers).await,
        Measurement::ScaleOut => scale_out::run(options, servers).await,
    };
    let mut table = table(&[measurement.name(), "value", "target", ""]);
    for line in lines.context(measurement.name())? {
        table.add_row(line.cells(options.smoke));
    }
    Ok(table)
}

/// One figure of a measurement.
pub(crate) struct Line {
    what: String,
    value: Value,
    unit: &'static str,
    target: Option<Target>,
}

enum Value {
    /// Measured once.
    Once(f64),
    /// Measured in several rounds.
    Rounds(Spread),
}

impl Line {
    fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value: Value::Once(value), unit, target: None }
    }

    /// The median of a figure of all rounds.
    fn median(what: impl Into<String>, rounds: &[f64], unit: &'static str) -> Self {
        Self::spread(what, figures::ratio(&[rounds.to_vec()], &[]), unit)
    }

    /// The ratio of two medians.
    fn ratio(what: impl Into<String>, over: &[f64], under: &[f64]) -> Self {
        Self::spread(what, figures::ratio(&[over.to_vec()], &[under.to_vec()]), "")
    }

    fn spread(what: impl Into<String>, spread: Option<Spread>, unit: &'static str) -> Self {
        let value = spread.map_or(Value::Once(f64::NAN), Value::Rounds);
        Self { what: what.into(), value, unit, target: None }
    }

    fn at_most(self, limit: f64) -> Self {
        Self { target: Some(Target::AtMost(limit)), ..self }
    }

    fn at_least(self, limit: f64) -> Self {
        Self { target: Some(Target::AtLeast(limit)), ..self }
    }

    fn cells(&self, smoke: bool) -> [String; 4] {
        let Self { what, value, unit, target } = self;
        let digits = |value: &f64| if value.abs() >= 100.0 { 0 } else { 3 };
        let text = match value {
            Value::Once(value) => format!("{value:.*} {unit}", digits(value)),
            Value::Rounds(spread) => {
                format!("{} {unit}", table::spread(*spread, digits(&spread.median), 1.0))
            }
        };
        let (target, verdict) = match (*target, value) {
            (None, _) => (String::new(), ""),
            (Some(target), Value::Rounds(spread)) => table::evaluate(target, *spread),
            (Some(target), Value::Once(value)) => {
                (target.to_string(), if target.is_met(*value) { "met" } else { "missed" })
            }
        };
        let verdict = if smoke && !verdict.is_empty() { "too small a run" } else { verdict };
        [what.clone(), text.trim_end().to_owned(), target, verdict.to_owned()]
    }
}
