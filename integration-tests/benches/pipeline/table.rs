//! Prints the machine, the table of contenders, and the ratios with their targets.

use std::fmt;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::figures::{Figure, Figures, Spread};
use crate::options::Options;

/// With fewer rounds the interval of a median is too narrow: in 1 of 16 cases, all of 5 rounds are
/// on one side.
pub(crate) const MIN_ROUNDS: usize = 6;

/// The target of a ratio of medians.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "at most {limit}"),
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

/// The denominator of a ratio.
#[derive(Clone, Copy, Debug)]
enum Under {
    /// The sum of these contenders. [`CONSUME`] counts with the better of its fetch settings.
    Sum(&'static [&'static str]),
    /// This rival, with the allocator that is better in the figure.
    Rival(&'static str),
}

impl Under {
    /// The contenders, and their text in the title.
    fn names(self, figure: Figure, figures: &Figures) -> (Vec<String>, String) {
        match self {
            Self::Sum(names) => {
                let defaults = format!("{CONSUME}, librdkafka's settings");
                let is_better = figures.is_better(figure, &defaults, CONSUME);
                let names = names.iter().map(|name| {
                    if *name == CONSUME && is_better { defaults.clone() } else { (*name).to_owned() }
                });
                let names: Vec<String> = names.collect();
                let text = names.join(" + ");
                (names, text)
            }
            Self::Rival(name) => {
                let glibc = format!("{name} (glibc)");
                if figures.is_better(figure, &glibc, name) {
                    (vec![glibc], format!("{name}, glibc"))
                } else {
                    (vec![name.to_owned()], format!("{name}, jemalloc"))
                }
            }
        }
    }
}

/// The ceiling of consuming.
const CONSUME: &str = "ceiling: batch consume";

/// A figure of a contender, divided by that of others.
struct Ratio {
    figure: Figure,
    over: &'static str,
    under: Under,
    target: Option<Target>,
}

const fn ratio(figure: Figure, over: &'static str, under: Under, target: Option<Target>) -> Ratio {
    Ratio { figure, over, under, target }
}

const fn at_most(limit: f64) -> Option<Target> {
    Some(Target::AtMost(limit))
}

const fn at_least(limit: f64) -> Option<Target> {
    Some(Target::AtLeast(limit))
}

/// The target for the rate relative to Arroyo applies to Arroyo as it comes. With kmr's fetch
/// settings Arroyo does not wait, and that ratio has no target.
const RATIOS: [Ratio; 25] = [
    ratio(Figure::Cpu, "kmr W0 with metrics", Under::Sum(&["kmr W0"]), at_most(1.03)),
    ratio(Figure::Cpu, "kmr W0", Under::Sum(&[CONSUME]), at_most(1.1)),
    ratio(Figure::Cpu, "kmr W0 (glibc)", Under::Sum(&["ceiling: batch consume (glibc)"]), None),
    ratio(Figure::Cpu, "kmr W1", Under::Sum(&[CONSUME, "ceiling: insert W1"]), at_most(1.15)),
    ratio(
        Figure::Cpu,
        "kmr W2",
        Under::Sum(&[CONSUME, "ceiling: decode W2", "ceiling: insert W2"]),
        at_most(1.15),
    ),
    ratio(Figure::Rate, "kmr W1", Under::Sum(&["Arroyo W1, as it comes"]), at_least(6.0)),
    ratio(Figure::Rate, "kmr W2", Under::Sum(&["Arroyo W2, as it comes"]), at_least(5.0)),
    ratio(Figure::Rate, "kmr W1", Under::Rival("Arroyo W1"), None),
    ratio(Figure::Rate, "kmr W2", Under::Rival("Arroyo W2"), None),
    ratio(Figure::Cpu, "kmr W1", Under::Rival("Arroyo W1"), at_most(0.5)),
    ratio(Figure::Cpu, "kmr W2", Under::Rival("Arroyo W2"), at_most(0.5)),
    ratio(Figure::Cpu, "kmr W1", Under::Sum(&["Arroyo W1, as it comes"]), None),
    ratio(Figure::Cpu, "kmr W2", Under::Sum(&["Arroyo W2, as it comes"]), None),
    ratio(Figure::Rate, "kmr W1", Under::Sum(&["by hand W1, as it comes"]), None),
    ratio(Figure::Rate, "kmr W2", Under::Sum(&["by hand W2, as it comes"]), None),
    ratio(Figure::Rate, "kmr W1", Under::Rival("by hand W1"), at_least(1.0)),
    ratio(Figure::Rate, "kmr W2", Under::Rival("by hand W2"), at_least(1.0)),
    ratio(Figure::Cpu, "kmr W1", Under::Rival("by hand W1"), at_most(1.0)),
    ratio(Figure::Cpu, "kmr W2", Under::Rival("by hand W2"), at_most(0.8)),
    ratio(Figure::Sum, "kmr W1", Under::Rival("by hand W1"), None),
    ratio(Figure::Sum, "kmr W2", Under::Rival("by hand W2"), None),
    ratio(Figure::Sum, "kmr W1", Under::Rival("Arroyo W1"), None),
    ratio(Figure::Sum, "kmr W2", Under::Rival("Arroyo W2"), None),
    ratio(Figure::Peak, "kmr W1", Under::Sum(&[]), at_most(150.0)),
    ratio(Figure::Peak, "kmr W2", Under::Sum(&[]), at_most(150.0)),
];

/// Prints everything.
pub(crate) fn print(options: &Options, figures: &Figures) {
    println!(
        "{} records, {} partitions, rounds: {} (of glibc and as it comes at most {MIN_ROUNDS}), batches sent {}; median, \
         [95 % interval of the median], least\n",
        options.records(),
        options.partitions,
        options.rounds(),
        if options.lz4() { "as LZ4" } else { "uncompressed" },
    );
    println!("{}\n", contenders(figures));
    println!("CPU-seconds per million records, and bytes per record to and from each server:\n");
    println!("{}\n", bills(figures));
    println!("{}", ratios(figures));
}

fn contenders(figures: &Figures) -> Table {
    let mut table =
        table(&["contender", "1,000 records/s", "CPU-s per million", "peak resident MB", "load average"]);
    for name in figures.names() {
        let cell = |figure: Figure, digits, unit: f64| {
            let least = figures.least(name, figure) / unit;
            format!("{}, {least:.digits$}", spread(figures.spread(name, figure), digits, unit))
        };
        let load = figures.spread(name, Figure::Load).median;
        table.add_row([
            (*name).to_owned(),
            cell(Figure::Rate, 0, 1e3),
            cell(Figure::Cpu, 3, 1.0),
            cell(Figure::Peak, 0, 1.0),
            format!("{load:.1}"),
        ]);
    }
    table
}

/// What each contender costs all that take part.
fn bills(figures: &Figures) -> Table {
    let mut table =
        table(&["contender", "consumer", "broker", "ClickHouse", "all", "bytes, Kafka", "bytes, ClickHouse"]);
    for name in figures.names() {
        let cell = |figure, digits| spread(figures.spread(name, figure), digits, 1.0);
        table.add_row([
            (*name).to_owned(),
            cell(Figure::Cpu, 3),
            cell(Figure::Broker, 3),
            cell(Figure::Server, 3),
            cell(Figure::Sum, 3),
            cell(Figure::KafkaBytes, 1),
            cell(Figure::ClickHouseBytes, 1),
        ]);
    }
    table
}

fn ratios(figures: &Figures) -> Table {
    let mut table = table(&["ratio of medians", "value", "target", ""]);
    for ratio in &RATIOS {
        let (names, under) = ratio.under.names(ratio.figure, figures);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Some(value) = figures.ratio(ratio.figure, &[ratio.over], &names) else { continue };
        let what = match ratio.figure {
            Figure::Rate => "records/s",
            Figure::Cpu => "CPU",
            Figure::Broker => "broker's CPU",
            Figure::Server => "ClickHouse's CPU",
            Figure::Sum => "CPU of all",
            Figure::KafkaBytes => "bytes, Kafka",
            Figure::ClickHouseBytes => "bytes, ClickHouse",
            Figure::Peak => "peak MB",
            Figure::Load => "load",
        };
        let under = if under.is_empty() { String::new() } else { format!(" / ({under})") };
        let title = format!("{what}: {}{under}", ratio.over);
        let (target, verdict) = ratio.target.map(|target| evaluate(target, value)).unwrap_or_default();
        table.add_row([title, spread(value, 2, 1.0), target, verdict.to_owned()]);
    }
    table
}

/// The text of a target, and its verdict: a target is missed only if the whole interval misses it.
pub(crate) fn evaluate(target: Target, value: Spread) -> (String, &'static str) {
    let verdict = if value.rounds < MIN_ROUNDS {
        "too few rounds"
    } else if target.is_met(value.median) {
        "met"
    } else if target.is_met(value.low) || target.is_met(value.high) {
        "within the interval"
    } else {
        "missed"
    };
    (target.to_string(), verdict)
}

pub(crate) fn spread(spread: Spread, digits: usize, unit: f64) -> String {
    let [median, low, high] = [spread.median, spread.low, spread.high].map(|value| value / unit);
    format!("{median:.digits$} [{low:.digits$}, {high:.digits$}]")
}

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Processors and memory of the machine.
pub(crate) fn machine() -> String {
    let field = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let (model, memory) = (field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"));
    format!(
        "{processors} processors ({model}), {memory} of memory, shared by all: broker, ClickHouse, contender"
    )
}
