//! Random faults from a seed on everything at once: consumers, broker, ClickHouse and the network
//! between them. In the end `kmr verify` finds each record.
//!
//! `cargo xtask chaos --minutes N` runs it for longer and prints the tables.

mod fault;
mod stage;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{log_line, test_name};
use serde_json::Value;

use self::fault::Fault;
use self::stage::Stage;
use crate::load::Load;
use crate::programs::kmr;
use crate::scene::{TABLE, alone};

/// Records a second. Low, because a fault is in the way most of the time.
const RATE: u64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AtLeastOnce,
    ExactlyOnce,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_loses_a_record() -> Result<()> {
    chaos(test_name!(), Mode::AtLeastOnce).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_loses_or_doubles_a_record_in_exactly_once_mode() -> Result<()> {
    chaos(test_name!(), Mode::ExactlyOnce).await
}

async fn chaos(name: &str, mode: Mode) -> Result<()> {
    let _alone = alone().await;
    let seed = number("KMR_CHAOS_SEED").unwrap_or(1);
    let time = Duration::from_secs(number("KMR_CHAOS_SECONDS").unwrap_or(60));
    log_line(format_args!("{name}: seed {seed}, {} s", time.as_secs()));
    let mut stage = Stage::new(name, mode, seed).await.with_context(|| format!("seed {seed}"))?;
    let load = Load::numbered(&stage.scene.topic, 0, RATE);
    let started = Instant::now();
    let mut happened = BTreeMap::<Fault, u32>::new();
    for fault in Plan::new(seed, mode) {
        if started.elapsed() >= time {
            break;
        }
        tokio::time::sleep(Duration::from_millis(stage.random.u64(200..2_000))).await;
        log_line(format_args!("{:>4} s: {fault}", started.elapsed().as_secs()));
        fault.happen(&mut stage).await.with_context(|| format!("seed {seed}"))?;
        *happened.entry(fault).or_default() += 1;
    }
    let produced = load.stop().await?;
    stage.settle().await.with_context(|| format!("seed {seed}"))?;
    stage.end().await?;

    let double = stage.scene.nothing_is_missing(&produced).await?;
    let report = table(mode, seed, &happened, produced.total(), double, &stage.ended);
    log_line(format_args!("{report}"));
    verify(&stage, mode, produced.total()).await.context(report)?;
    ensure!(mode == Mode::AtLeastOnce || double == 0, "seed {seed}: {double} rows are double");
    Ok(())
}

/// Each fault once in a random order, then again. The two modes begin at opposite ends, so that a
/// short run of both has all faults.
struct Plan {
    random: fastrand::Rng,
    mode: Mode,
    round: Vec<Fault>,
}

impl Plan {
    fn new(seed: u64, mode: Mode) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), mode, round: Vec::new() }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round = Fault::ALL.to_vec();
            self.random.shuffle(&mut self.round);
            if self.mode == Mode::ExactlyOnce {
                self.round.reverse();
            }
        }
        self.round.pop()
    }
}

/// Lets `kmr verify` compare the table with the topic.
async fn verify(stage: &Stage, mode: Mode, records: u64) -> Result<()> {
    let scene = &stage.scene;
    let source = ["verify", "--json", "--broker", stage.kafka.bootstrap(), "--topic", scene.topic.name()];
    let (url, database) = (stage.clickhouse.url(), scene.database.name());
    let table = ["--clickhouse", url, "--database", database, "--table", TABLE, "--group", &scene.group];
    let (code, output) = kmr(&[&source[..], &table[..]].concat()).await?;
    let json = output.find('{').map(|start| &output[start..]).unwrap_or_default();
    let report = serde_json::Deserializer::from_str(json).into_iter::<Value>().next();
    let report = report.context("kmr verify printed no JSON")?.with_context(|| output.clone())?;
    let count = |name: &str| report[name].as_u64().with_context(|| format!("no `{name}` in {report}"));
    ensure!(count("missing")? == 0 && count("records")? == records, "{report}");
    ensure!(mode == Mode::AtLeastOnce || (count("double_rows")? == 0 && code == Some(0)), "{report}");
    Ok(())
}

/// The report: faults, records, missing, double.
fn table(
    mode: Mode,
    seed: u64,
    happened: &BTreeMap<Fault, u32>,
    records: u64,
    double: u64,
    ended: &[String],
) -> String {
    let mut text = format!("{mode:?}, seed {seed}\n");
    // Writing to a String does not fail.
    for (fault, count) in happened {
        let _ = writeln!(text, "{count:>6}  {fault}");
    }
    let faults: u32 = happened.values().sum();
    let _ = writeln!(text, "{faults:>6}  faults");
    let _ = writeln!(text, "{records:>6}  records\n     0  missing\n{double:>6}  double");
    let _ = write!(text, "{:>6}  consumers ended with an error and were restarted", ended.len());
    for error in ended {
        let _ = write!(text, "\n        {error}");
    }
    text
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
