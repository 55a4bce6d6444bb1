//! What is promised beside the table of all contenders, each as a table of its own.

mod exactly_once;
mod growth;
mod idle;
mod scale_out;
mod stalled;
mod tail;

use anyhow::{Context as _, Result};
use comfy_table::Table;

pub(crate) use crate::figures::median;
use crate::options::Options;
use crate::servers::Servers;
use crate::table::table;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measurement {
    Tail,
    Stalled,
    Growth,
    Idle,
    ExactlyOnce,
    ScaleOut,
}

impl Measurement {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tail, Self::Stalled, Self::Growth, Self::Idle, Self::ExactlyOnce, Self::ScaleOut];

    /// As on the command line.
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
            Self::ScaleOut => "scale-out",
        }
    }
}

/// Measures and returns the table.
pub(crate) async fn run(measurement: Measurement, options: &Options, servers: &Servers) -> Result<Table> {
    let lines = match measurement {
        Measurement::Tail => tail::run(options, servers).await,
        Measurement::Stalled => stalled::run(options, servers).await,
        Measurement::Growth => growth::run(options, servers).await,
        Measurement::Idle => idle::run(options, servers).await,
        Measurement::ExactlyOnce => exactly_once::run(options, servers).await,
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
    value: f64,
    unit: &'static str,
    at_most: Option<f64>,
}

impl Line {
    fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, at_most: None }
    }

    fn at_most(mut self, limit: f64) -> Self {
        self.at_most = Some(limit);
        self
    }

    fn cells(&self, smoke: bool) -> [String; 4] {
        let Self { what, value, unit, at_most } = self;
        let digits = if value.abs() >= 100.0 { 0 } else { 3 };
        let verdict = match at_most {
            None => "",
            Some(_) if smoke => "too small a run to say",
            Some(limit) if value <= limit => "met",
            Some(_) => "missed",
        };
        let target = at_most.map(|limit| format!("at most {limit}")).unwrap_or_default();
        [what.clone(), format!("{value:.digits$} {unit}").trim_end().to_owned(), target, verdict.to_owned()]
    }
}
