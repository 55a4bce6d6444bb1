//! Runs every contender once in each round, and then the other measurements.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{Topic, log_line};

use crate::contenders::Contender;
use crate::figures::{Figures, Sample, order_by_kind};
use crate::measurements;
use crate::options::Options;
use crate::programs::Program;
use crate::servers::Servers;
use crate::shared::job::{Job, Work};
use crate::table::{self, MIN_ROUNDS};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its name in the table. [`table`] refers to it in the ratios.
    name: &'static str,
    work: Work,
    program: Program,
    /// The contender, if the program has several.
    contender: Option<Contender>,
    /// Whether a rival has kmr's fetch settings.
    tuned: bool,
    /// Number of rounds, from the first on, in which it runs.
    max_rounds: usize,
    /// Whether it is one of those that `--quick` runs.
    quick: bool,
}

impl Entry {
    /// The same contender with glibc's malloc.
    const fn glibc(self) -> Self {
        Self { program: self.program.glibc(), max_rounds: MIN_ROUNDS, quick: false, ..self }
    }

    /// Allocator and fetch settings. The table compares entries of one kind with each other.
    fn kind(&self) -> (bool, bool) {
        (self.program == self.program.glibc(), self.tuned)
    }

    /// The same contender with librdkafka's default fetch settings. It waits for most of its time,
    /// so a run is long.
    const fn as_it_comes(self) -> Self {
        Self { tuned: false, max_rounds: MIN_ROUNDS, quick: false, ..self }
    }

    /// The same ceiling with librdkafka's default fetch settings.
    const fn with_defaults(self) -> Self {
        Self { tuned: false, ..self }
    }

    /// The same contender, which `--quick` leaves out.
    const fn not_quick(self) -> Self {
        Self { quick: false, ..self }
    }
}

const ENTRIES: [Entry; 25] = [
    own("kmr W0", Work::W1, Contender::KmrDrop),
    own("kmr W0 with metrics", Work::W1, Contender::KmrMetrics).not_quick(),
    own("ceiling: batch consume", Work::W1, Contender::Consume),
    own("ceiling: batch consume, librdkafka's settings", Work::W1, Contender::Consume).with_defaults(),
    own("kmr W1", Work::W1, Contender::Kmr),
    own("ceiling: insert W1", Work::W1, Contender::Insert),
    own("by hand W1", Work::W1, Contender::ByHand),
    arroyo("Arroyo W1", Work::W1),
    own("kmr W2", Work::W2, Contender::Kmr),
    own("ceiling: decode W2", Work::W2, Contender::Decode),
    own("ceiling: insert W2", Work::W2, Contender::Insert),
    own("by hand W2", Work::W2, Contender::ByHand),
    arroyo("Arroyo W2", Work::W2),
    own("kmr W0 (glibc)", Work::W1, Contender::KmrDrop).glibc(),
    own("ceiling: batch consume (glibc)", Work::W1, Contender::Consume).glibc(),
    own("kmr W1 (glibc)", Work::W1, Contender::Kmr).glibc(),
    own("by hand W1 (glibc)", Work::W1, Contender::ByHand).glibc(),
    arroyo("Arroyo W1 (glibc)", Work::W1).glibc(),
    own("kmr W2 (glibc)", Work::W2, Contender::Kmr).glibc(),
    own("by hand W2 (glibc)", Work::W2, Contender::ByHand).glibc(),
    arroyo("Arroyo W2 (glibc)", Work::W2).glibc(),
    own("by hand W1, as it comes", Work::W1, Contender::ByHand).as_it_comes(),
    arroyo("Arroyo W1, as it comes", Work::W1).as_it_comes(),
    own("by hand W2, as it comes", Work::W2, Contender::ByHand).as_it_comes(),
    arroyo("Arroyo W2, as it comes", Work::W2).as_it_comes(),
];

const fn own(name: &'static str, work: Work, contender: Contender) -> Entry {
    let contender = Some(contender);
    let program = Program::Own;
    Entry { name, work, program, contender, tuned: true, max_rounds: usize::MAX, quick: true }
}

const fn arroyo(name: &'static str, work: Work) -> Entry {
    let program = Program::Arroyo;
    Entry { name, work, program, contender: None, tuned: true, max_rounds: usize::MAX, quick: true }
}

/// Runs the whole benchmark.
///
/// # Errors
///
/// When no servers are available, a contender fails, or a contender does not process all records.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let entries: Vec<Entry> =
        ENTRIES.into_iter().filter(|entry| options.wants(entry.name, entry.quick)).collect();
    let measurements = options.measurements();
    ensure!(!entries.is_empty() || !measurements.is_empty(), "--only matches no contender or measurement");
    let programs = programs(&entries).await?;
    let servers = Servers::start().await?;
    println!("{}\n", table::machine());
    if !entries.is_empty() {
        pipeline(options, &entries, &servers, &programs).await?;
    }
    for measurement in measurements {
        println!("\n{}", measurements::run(measurement, options, &servers).await?);
    }
    Ok(())
}

/// Builds the programs of the entries, and returns their paths.
async fn programs(entries: &[Entry]) -> Result<BTreeMap<Program, PathBuf>> {
    let mut programs = BTreeMap::new();
    for Entry { program, .. } in entries {
        if !programs.contains_key(program) {
            programs.insert(*program, program.build().await?);
        }
    }
    Ok(programs)
}

/// Measures all contenders and prints their table.
async fn pipeline(
    options: &Options,
    entries: &[Entry],
    servers: &Servers,
    programs: &BTreeMap<Program, PathBuf>,
) -> Result<()> {
    let topic = servers.topic("bench", options.partitions, options.records()).await?;
    let kinds: Vec<_> = entries.iter().map(Entry::kind).collect();
    let mut figures = Figures::new(entries.iter().map(|entry| entry.name));
    for round in 1..=options.rounds() {
        for at in order_by_kind(round, &kinds) {
            let Some(entry) = entries.get(at).filter(|entry| round <= entry.max_rounds) else { continue };
            let program = programs.get(&entry.program).context("the contender's program was not built")?;
            let sample = once(options, entry, servers, &topic, program).await.context(entry.name)?;
            log_line(format_args!("round {round}: {:30} {sample}", entry.name));
            figures.add(entry.name, sample);
        }
    }
    table::print(options, &figures);
    Ok(topic.delete().await?)
}

/// Runs a contender once, on empty tables and in a group of its own.
async fn once(
    options: &Options,
    entry: &Entry,
    servers: &Servers,
    topic: &Topic,
    program: &Path,
) -> Result<Sample> {
    let records = options.records();
    let job = servers.job(entry.work, topic.name(), records, options.lz4());
    let job = Job { tuned: entry.tuned, ..job };
    let (command, inserts) = match entry.contender {
        Some(contender) => (contender.command(program, &job)?, contender.inserts()),
        None => {
            let mut command = Command::new(program);
            command.arg(serde_json::to_string(&job)?);
            (command, true)
        }
    };
    let load = load_average()?;
    let (measured, bill) = servers.run_billed(command, &job, inserts.then_some(records)).await?;
    Ok(Sample { measured, bill, load })
}

/// The machine's load average over the last minute.
pub(crate) fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().next().context("no load average")?.parse()?)
}
