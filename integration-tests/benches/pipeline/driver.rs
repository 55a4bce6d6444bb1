//! Runs every contender once in each round, and then the other measurements.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{Topic, program, say};

use crate::contenders::Contender;
use crate::figures::{Figures, Sample};
use crate::measurements;
use crate::options::Options;
use crate::servers::Servers;
use crate::shared::job::Work;
use crate::table;

/// A line of the table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its name there; [`table`] refers to it in the ratios.
    name: &'static str,
    work: Work,
    program: Program,
}

/// Whose process it is.
#[derive(Clone, Copy, Debug)]
enum Program {
    Own(Contender),
    Arroyo,
}

const ENTRIES: [Entry; 11] = [
    entry("kmr W0", Work::W1, Program::Own(Contender::KmrDrop)),
    entry("ceiling: batch consume", Work::W1, Program::Own(Contender::Consume)),
    entry("kmr W1", Work::W1, Program::Own(Contender::Kmr)),
    entry("ceiling: insert W1", Work::W1, Program::Own(Contender::Insert)),
    entry("by hand W1", Work::W1, Program::Own(Contender::ByHand)),
    entry("Arroyo W1", Work::W1, Program::Arroyo),
    entry("kmr W2", Work::W2, Program::Own(Contender::Kmr)),
    entry("ceiling: decode W2", Work::W2, Program::Own(Contender::Decode)),
    entry("ceiling: insert W2", Work::W2, Program::Own(Contender::Insert)),
    entry("by hand W2", Work::W2, Program::Own(Contender::ByHand)),
    entry("Arroyo W2", Work::W2, Program::Arroyo),
];

const fn entry(name: &'static str, work: Work, program: Program) -> Entry {
    Entry { name, work, program }
}

/// The whole benchmark.
///
/// # Errors
///
/// Where there are no servers, when a contender fails, and when one has not done all its records.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let entries: Vec<Entry> = ENTRIES.into_iter().filter(|entry| options.wants(entry.name)).collect();
    let measurements = options.measurements();
    ensure!(!entries.is_empty() || !measurements.is_empty(), "--only leaves nothing to run");
    let arroyo = arroyo(&entries).await?;
    let servers = Servers::start().await?;
    println!("{}\n", table::machine());
    if !entries.is_empty() {
        pipeline(options, &entries, &servers, arroyo.as_deref()).await?;
    }
    for measurement in measurements {
        println!("\n{}", measurements::run(measurement, options, &servers).await?);
    }
    Ok(())
}

/// The program on `sentry_arroyo`, built, if one of the entries needs it.
async fn arroyo(entries: &[Entry]) -> Result<Option<PathBuf>> {
    if !entries.iter().any(|entry| matches!(entry.program, Program::Arroyo)) {
        return Ok(None);
    }
    say("building benches/arroyo");
    let build = ["--release", "--locked", "--manifest-path", "benches/arroyo/Cargo.toml"];
    let built = program("arroyo-pipeline", &build).await;
    let why = "sentry_arroyo needs cmake and libcurl's headers (Debian: libcurl4-openssl-dev)";
    built.context(why).map(Some)
}

/// The table of all contenders.
async fn pipeline(
    options: &Options,
    entries: &[Entry],
    servers: &Servers,
    arroyo: Option<&std::path::Path>,
) -> Result<()> {
    let topic = servers.topic("bench", options.partitions, options.records()).await?;
    let mut figures = Figures::default();
    for round in 1..=options.rounds() {
        for entry in entries {
            let sample = once(options, entry, servers, &topic, arroyo).await.context(entry.name)?;
            say(format_args!("round {round}: {:24} {sample}", entry.name));
            figures.add(entry.name, sample);
        }
    }
    table::print(options, &figures);
    topic.delete().await
}

/// One run of one contender, on empty tables and in a group of its own.
async fn once(
    options: &Options,
    entry: &Entry,
    servers: &Servers,
    topic: &Topic,
    arroyo: Option<&std::path::Path>,
) -> Result<Sample> {
    let records = options.records();
    let job = servers.job(entry.work, topic.name(), records, options.lz4());
    let (command, inserts) = match entry.program {
        Program::Own(contender) => (servers.command(contender, &job)?, contender.inserts()),
        Program::Arroyo => {
            let mut command = Command::new(arroyo.context("not built")?);
            command.arg(serde_json::to_string(&job)?);
            (command, true)
        }
    };
    let load = load_average()?;
    let measured = servers.run(command, entry.work, inserts.then_some(records)).await?;
    Ok(Sample { measured, load })
}

/// Tasks that want a processor, over the last minute.
pub(crate) fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().next().context("no load average")?.parse()?)
}
