//! What is printed: the machine, the contenders, and the ratios with their targets.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::figures::{Figure, Figures, Spread};
use crate::options::Options;

/// With fewer the interval of a median is narrower than the truth: of 5 rounds all are on one side in 1 of 16 cases.
const FEWEST_ROUNDS: usize = 6;

/// What a ratio of medians should be.
#[derive(Clone, Copy, Debug)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// A figure of some contenders, summed, over that of others.
struct Ratio {
    figure: Figure,
    over: &'static [&'static str],
    under: &'static [&'static str],
    target: Target,
}

const fn ratio(
    figure: Figure,
    over: &'static [&'static str],
    under: &'static [&'static str],
    target: Target,
) -> Ratio {
    Ratio { figure, over, under, target }
}

const RATIOS: [Ratio; 13] = [
    ratio(Figure::Cpu, &["kmr W0"], &["ceiling: batch consume"], Target::AtMost(1.15)),
    ratio(Figure::Cpu, &["kmr W1"], &["ceiling: batch consume", "ceiling: insert W1"], Target::AtMost(1.2)),
    ratio(
        Figure::Cpu,
        &["kmr W2"],
        &["ceiling: batch consume", "ceiling: decode W2", "ceiling: insert W2"],
        Target::AtMost(1.2),
    ),
    ratio(Figure::Rate, &["kmr W1"], &["Arroyo W1"], Target::AtLeast(6.0)),
    ratio(Figure::Rate, &["kmr W2"], &["Arroyo W2"], Target::AtLeast(5.0)),
    ratio(Figure::Cpu, &["kmr W1"], &["Arroyo W1"], Target::AtMost(0.5)),
    ratio(Figure::Cpu, &["kmr W2"], &["Arroyo W2"], Target::AtMost(0.5)),
    ratio(Figure::Rate, &["kmr W1"], &["by hand W1"], Target::AtLeast(1.0)),
    ratio(Figure::Rate, &["kmr W2"], &["by hand W2"], Target::AtLeast(1.0)),
    ratio(Figure::Cpu, &["kmr W1"], &["by hand W1"], Target::AtMost(1.0)),
    ratio(Figure::Cpu, &["kmr W2"], &["by hand W2"], Target::AtMost(1.0)),
    ratio(Figure::Peak, &["kmr W1"], &[], Target::AtMost(150.0)),
    ratio(Figure::Peak, &["kmr W2"], &[], Target::AtMost(150.0)),
];

/// Prints everything.
pub(crate) fn print(options: &Options, figures: &Figures) {
    println!(
        "{} records, {} partitions, rounds: {}, batches sent {}; median, [95 % interval of the median], least\n",
        options.records(),
        options.partitions,
        options.rounds(),
        if options.lz4() { "as LZ4" } else { "uncompressed" },
    );
    println!("{}\n", contenders(figures));
    println!("{}", ratios(figures, options.rounds()));
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

fn ratios(figures: &Figures, rounds: usize) -> Table {
    let mut table = table(&["ratio of medians", "value", "target", ""]);
    for ratio in &RATIOS {
        let Some(value) = figures.ratio(ratio.figure, ratio.over, ratio.under) else { continue };
        let (target, verdict) = match ratio.target {
            Target::AtMost(limit) => {
                (format!("at most {limit}"), verdict(value.median <= limit, value.low > limit))
            }
            Target::AtLeast(limit) => {
                (format!("at least {limit}"), verdict(value.median >= limit, value.high < limit))
            }
        };
        let under =
            if ratio.under.is_empty() { String::new() } else { format!(" / ({})", ratio.under.join(" + ")) };
        let what = match ratio.figure {
            Figure::Rate => "records/s",
            Figure::Cpu => "CPU",
            Figure::Peak => "peak MB",
            Figure::Load => "load",
        };
        let title = format!("{what}: {}{under}", ratio.over.join(" + "));
        let verdict = if rounds < FEWEST_ROUNDS { "too few rounds to say" } else { verdict };
        table.add_row([title, spread(value, 2, 1.0), target, verdict.to_owned()]);
    }
    table
}

/// A target is missed only where the whole interval misses it.
fn verdict(met: bool, missed: bool) -> &'static str {
    match (met, missed) {
        (true, _) => "met",
        (false, true) => "missed",
        (false, false) => "within the interval",
    }
}

fn spread(spread: Spread, digits: usize, unit: f64) -> String {
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

/// Processor, how many of them, memory.
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
