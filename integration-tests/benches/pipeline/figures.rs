//! Collects the measurements of all rounds and computes their statistics.

use std::collections::BTreeMap;
use std::fmt;

use crate::bill::Bill;
use crate::shared::meter::Measured;

/// Number of bootstrap resamples, enough for the second digit of an interval.
const RESAMPLES: usize = 4_000;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) measured: Measured,
    /// What it has cost the servers.
    pub(crate) bill: Bill,
    /// The machine's load average at its start, from other work and earlier runs.
    pub(crate) load: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rate, cpu, sum, peak] =
            [Figure::Rate, Figure::Cpu, Figure::Sum, Figure::Peak].map(|figure| figure.of(self));
        let (rate, load) = (rate / 1e3, self.load);
        write!(f, "{rate:5.0} k/s, {cpu:.3} CPU-s/M, all {sum:.3}, {peak:.0} MB, load {load:.1}")
    }
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Records per second.
    Rate,
    /// CPU-seconds per million records, of the contender.
    Cpu,
    /// The same of the broker.
    Broker,
    /// The same of ClickHouse.
    Server,
    /// The same of all three.
    Sum,
    /// Bytes per record between contender and broker.
    KafkaBytes,
    /// Bytes per record between contender and ClickHouse.
    ClickHouseBytes,
    /// Peak resident memory, in millions of bytes.
    Peak,
    /// Load average.
    Load,
}

impl Figure {
    fn of(self, sample: &Sample) -> f64 {
        let Sample { measured, bill, load } = sample;
        match self {
            Self::Rate => measured.rate,
            Self::Cpu => measured.cpu_per_million,
            Self::Broker => bill.broker,
            Self::Server => bill.server,
            Self::Sum => measured.cpu_per_million + bill.broker + bill.server,
            Self::KafkaBytes => bill.kafka_bytes,
            Self::ClickHouseBytes => bill.clickhouse_bytes,
            Self::Peak => measured.peak_bytes as f64 / 1e6,
            Self::Load => *load,
        }
    }
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// The 95 % interval of the median.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Number of rounds.
    pub(crate) rounds: usize,
}

/// All runs by contender, in the order of rounds.
#[derive(Debug)]
pub(crate) struct Figures {
    order: Vec<&'static str>,
    samples: BTreeMap<&'static str, Vec<Sample>>,
}

impl Figures {
    /// Without runs. `order` has the contenders in the order of the table.
    pub(crate) fn new(order: impl Iterator<Item = &'static str>) -> Self {
        Self { order: order.collect(), samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, name: &'static str, sample: Sample) {
        self.samples.entry(name).or_default().push(sample);
    }

    /// The contenders, in the order of the table.
    pub(crate) fn names(&self) -> &[&'static str] {
        &self.order
    }

    /// The minimum of a figure.
    pub(crate) fn least(&self, name: &str, figure: Figure) -> f64 {
        self.values(name, figure).into_iter().fold(f64::INFINITY, f64::min)
    }

    /// A figure of one contender.
    pub(crate) fn spread(&self, name: &str, figure: Figure) -> Spread {
        let none = Spread { median: f64::NAN, low: f64::NAN, high: f64::NAN, rounds: 0 };
        self.ratio(figure, &[name], &[]).unwrap_or(none)
    }

    /// Whether `this` is better than `that`, or only `this` ran.
    pub(crate) fn is_better(&self, figure: Figure, this: &str, that: &str) -> bool {
        match self.ratio(figure, &[this], &[that]) {
            Some(ratio) if figure == Figure::Rate => ratio.median > 1.0,
            Some(ratio) => ratio.median < 1.0,
            None => self.values(that, figure).is_empty(),
        }
    }

    /// Divides the sum of the medians of `over` by that of `under`, or by 1 if `under` is empty.
    /// Only rounds in which all of them ran count. `None` when one of them did not run.
    pub(crate) fn ratio(&self, figure: Figure, over: &[&str], under: &[&str]) -> Option<Spread> {
        let columns = |names: &[&str]| -> Option<Vec<Vec<f64>>> {
            let column = |name: &&str| Some(self.values(name, figure)).filter(|values| !values.is_empty());
            names.iter().map(column).collect()
        };
        ratio(&columns(over)?, &columns(under)?)
    }

    fn values(&self, name: &str, figure: Figure) -> Vec<f64> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples.map(|sample| figure.of(sample)).collect()
    }
}

/// The order in which `count` contenders run in a round, as indices. It is shuffled in each round,
/// so that the state of servers and caches after a run does not always affect the same contender.
/// It is the same in every benchmark.
pub(crate) fn order(round: usize, count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(round as u64).shuffle(&mut indices);
    indices
}

/// As [`order`], with contenders of one kind next to each other, so that compared runs are close in
/// time.
pub(crate) fn order_by_kind<K: PartialEq>(round: usize, kinds: &[K]) -> Vec<usize> {
    let shuffled = order(round, kinds.len());
    let mut indices = shuffled.clone();
    indices.sort_by_key(|at| shuffled.iter().position(|first| kinds.get(*first) == kinds.get(*at)));
    indices
}

/// Divides the sum of the medians of the columns `over` by that of `under`, or by 1 if `under` is
/// empty. A column has a figure of all rounds. Only rounds that all columns have count. `None`
/// without such a round.
pub(crate) fn ratio(over: &[Vec<f64>], under: &[Vec<f64>]) -> Option<Spread> {
    let rounds = over.iter().chain(under).map(Vec::len).min().filter(|rounds| *rounds > 0)?;
    let value = |picked: &[usize]| {
        let column =
            |column: &Vec<f64>| median(picked.iter().filter_map(|at| column.get(*at)).copied().collect());
        let sum = |columns: &[Vec<f64>]| -> f64 { columns.iter().map(column).sum() };
        if under.is_empty() { sum(over) } else { sum(over) / sum(under) }
    };
    Some(bootstrap(rounds, value))
}

/// The value over all rounds, and its percentile interval over resampled rounds. Rounds are
/// resampled as a whole, so that a disturbance of a round affects both sides of a ratio. The same
/// rounds give the same interval.
fn bootstrap(rounds: usize, value: impl Fn(&[usize]) -> f64) -> Spread {
    let mut random = fastrand::Rng::with_seed(6);
    let mut picked: Vec<usize> = (0..rounds).collect();
    let median = value(&picked);
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            picked.fill_with(|| random.usize(..rounds));
            value(&picked)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |ratio: f64| values.get((ratio * (RESAMPLES - 1) as f64).round() as usize).copied();
    Spread { median, low: at(0.025).unwrap_or(median), high: at(0.975).unwrap_or(median), rounds }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(value)) => *value,
        _ => f64::NAN,
    }
}
