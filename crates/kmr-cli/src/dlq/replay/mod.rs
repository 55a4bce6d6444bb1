//! `dlq replay`: sends the records of dead letters to their topics again.
//!
//! 1. Records and progress are committed in one transaction. So a record is replayed once, wherever
//!    a replay is killed.
//! 2. A replay ends where its topic ended at its start: what fails again meanwhile is for the next
//!    one.
//! 3. A dead letter is passed only if it was sent, filtered or rejected by name.
//!
//! `plan` decides, `sender` sends, `progress` is where it continues, `summary` reports.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use kmr_cli_support::numbers::counted;
use kmr_cli_support::output;
use kmr_core::__private::message_headers;
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use super::TopicArgs;
use super::filter::Filter;
use super::topic::DeadLetterTopic;
use crate::dead_letter::{self, DeadLetter};
use crate::topic_reader::{self, Next, REQUEST};
use crate::{kafka_client, terminal};

mod plan;
mod progress;
mod sender;
mod summary;

use plan::{Plan, Verdict};
use sender::{Batch, Outgoing, Sender};
use summary::Summary;

/// Limits of a transaction: an open one holds back the consumers of its targets.
const MOST_RECORDS: usize = 500;
const MOST_BYTES: usize = 4 << 20;
/// Dead letters that are passed without being sent, until their progress is committed.
const MOST_PASSED: u64 = 10_000;

/// Interval between reports of a long replay.
const REPORT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    topic: TopicArgs,
    #[command(flatten)]
    filter: Filter,
    /// Topic to send all records to, in place of the topic that each was read from.
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Name of the progress: a consumer group and a transactional id. A replay with a name
    /// continues where the last one with it stopped. Default: from the topic, the filters and --to.
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Reject dead letters whose record was replayed this often and failed each time.
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_replays: u32,
    /// Leave out this dead letter, by partition and offset as in 0/12; may be repeated.
    #[arg(long, value_name = "POSITION", value_delimiter = ',', value_parser = position)]
    skip: Vec<(i32, u64)>,
    /// Stop after this number of records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Most records in a second, as in 100/s.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    /// Show what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON on standard output in place of the summary.
    #[arg(long)]
    json: bool,
}

/// `0/12`
fn position(text: &str) -> Result<(i32, u64), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(partition, offset)| Some((partition.trim().parse().ok()?, offset.trim().parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is no position; write partition and offset, as in 0/12"))
}

/// `100/s`, or `100`.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim().parse::<f64>();
    let rate = number.ok().filter(|rate| rate.is_finite() && *rate >= 0.001 && *rate <= 1e9);
    rate.ok_or_else(|| format!("{text:?} is no rate; write records in a second, as in 100/s"))
}

/// Replays up to the current end of the topic. The first Ctrl-C ends it after the running
/// transaction, the second at once.
pub(super) async fn replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let (is_json, stop) = (args.json, Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let mut running = tokio::task::spawn_blocking(move || run(&args, &stopped));
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            _ = tokio::signal::ctrl_c() => {
                if stop.swap(true, Ordering::Relaxed) {
                    // As after a kill: the transaction is aborted by the next start or its timeout.
                    std::process::exit(130);
                }
                output::note("ending after the running transaction; Ctrl-C again ends at once");
            }
        }
    };
    let summary = ended.context("the thread that replays")??;
    output::result(&if is_json { terminal::json(&summary.json()) } else { summary.text() });
    Ok(summary.exit_code())
}

fn run(args: &ReplayArgs, stop: &AtomicBool) -> anyhow::Result<Summary> {
    let topic_name = args.topic.dead_letter_topic.clone();
    if args.to.as_ref() == Some(&topic_name) {
        bail!("--to names the dead-letter topic {topic_name:?} itself");
    }
    let plan = Plan {
        filter: args.filter.clone(),
        dead_letter_topic: topic_name.clone(),
        prefix: args.topic.dead_letter_prefix.clone(),
        to: args.to.clone(),
        max_replays: args.max_replays,
        skip: args.skip.iter().copied().collect(),
    };
    let name = args.name.clone().unwrap_or_else(|| plan.default_name());
    let topic = DeadLetterTopic::open(&args.topic, &name)?;
    let sender = match args.dry_run {
        true => None,
        false => {
            let config = kafka_client::config(&args.topic.brokers, "kmr-dlq-replay")?;
            Some(Sender::start(config, &topic.consumer, &name, &topic_name, plan.fingerprint())?)
        }
    };
    // After the start of the sender: no other replay of this name commits from then on.
    let partitions = topic.ranges.keys().copied().filter(|partition| plan.filter.reads(*partition));
    let progress = progress::read(&topic.consumer, &topic_name, partitions, &name, &plan.fingerprint())?;
    let summary =
        Summary { dead_letter_topic: topic_name, name, dry_run: args.dry_run, ..Summary::default() };
    let mut replay = Replay {
        topic: &topic,
        broker: &args.topic.brokers.broker,
        plan,
        sender,
        pace: args.rate.map(Pace::new),
        limit: args.limit.unwrap_or(u64::MAX),
        taken: 0,
        passed: 0,
        batch: Batch::default(),
        counts: BTreeMap::new(),
        targets: BTreeMap::new(),
        summary,
        reported: Instant::now(),
        stop,
    };
    let ranges = replay.remaining(&progress);
    topic_reader::read(&topic.consumer, &topic.name, ranges.clone(), |message| replay.next(message))?;
    replay.finish(&ranges)
}

/// A running replay.
struct Replay<'r> {
    topic: &'r DeadLetterTopic,
    broker: &'r str,
    plan: Plan,
    /// `None`: nothing is sent.
    sender: Option<Sender>,
    pace: Option<Pace>,
    limit: u64,
    /// Records that were sent or are in the batch.
    taken: u64,
    /// Dead letters since the last commit that are not sent.
    passed: u64,
    batch: Batch,
    /// The records of the batch, by topic.
    counts: BTreeMap<String, u64>,
    /// The partitions of topics that records are sent to.
    targets: BTreeMap<String, BTreeSet<i32>>,
    summary: Summary,
    /// When the number of records was reported last.
    reported: Instant,
    stop: &'r AtomicBool,
}

impl Replay<'_> {
    /// What the progress leaves of the topic.
    fn remaining(&mut self, progress: &BTreeMap<i32, u64>) -> BTreeMap<i32, Range<u64>> {
        let mut ranges = self.topic.ranges.clone();
        ranges.retain(|partition, range| {
            if let Some(next) = progress.get(partition) {
                self.summary.deleted += range.start.saturating_sub(*next);
                range.start = range.start.max(*next);
            }
            self.plan.filter.reads(*partition) && range.start < range.end
        });
        ranges
    }

    fn next(&mut self, message: &BorrowedMessage<'_>) -> anyhow::Result<Next> {
        if self.stop.load(Ordering::Relaxed) {
            self.summary.interrupted = true;
            return Ok(Next::Nothing);
        }
        let (partition, offset) = (message.partition(), message.offset().unsigned_abs());
        match dead_letter::read(message, &self.plan.prefix) {
            Err(why) => {
                self.summary
                    .reject(format!("{partition}/{offset}"), format!("it is no dead letter of kmr: {why}"));
                self.passed += 1;
            }
            Ok(dead_letter) => match self.plan.verdict(&dead_letter) {
                Verdict::TooLate => return Ok(Next::OtherPartitions),
                Verdict::Filtered => {
                    self.summary.filtered += 1;
                    self.passed += 1;
                }
                Verdict::Rejected(why) => {
                    self.summary.reject(dead_letter.position(), why);
                    self.passed += 1;
                }
                Verdict::Replay => {
                    let record = self.outgoing(&dead_letter, message)?;
                    self.batch.bytes += record.bytes();
                    *self.counts.entry(record.topic.clone()).or_default() += 1;
                    self.batch.records.push(record);
                    self.taken += 1;
                }
            },
        }
        self.batch.next.insert(partition, offset + 1);
        let most = self.pace.as_ref().map_or(MOST_RECORDS, Pace::most_records);
        let is_full =
            self.batch.records.len() >= most || self.batch.bytes >= MOST_BYTES || self.passed >= MOST_PASSED;
        if is_full {
            self.flush()?;
        }
        Ok(if self.taken >= self.limit { Next::Nothing } else { Next::Record })
    }

    fn outgoing(
        &mut self,
        dead_letter: &DeadLetter,
        message: &BorrowedMessage<'_>,
    ) -> anyhow::Result<Outgoing> {
        let topic = self.plan.target(dead_letter).to_owned();
        if !self.targets.contains_key(&topic) {
            let found = kafka_client::partitions(&self.topic.consumer, self.broker, &topic, REQUEST);
            let found =
                found.with_context(|| format!("the target of dead letter {}", dead_letter.position()))?;
            self.targets.insert(topic.clone(), found.into_iter().collect());
        }
        // The same partition keeps the order of a key's records, whatever chose the partition.
        let has_partition = self
            .targets
            .get(&topic)
            .is_some_and(|partitions| partitions.contains(&dead_letter.source.partition));
        Ok(Outgoing {
            position: dead_letter.position(),
            partition: has_partition.then_some(dead_letter.source.partition),
            millis: dead_letter.source_millis,
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: self.plan.headers(dead_letter, &message_headers(message)),
            topic,
        })
    }

    /// Sends the batch and commits the progress.
    fn flush(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if let (Some(sender), false) = (&self.sender, batch.next.is_empty()) {
            sender.send(&batch)?;
        }
        for (topic, count) in std::mem::take(&mut self.counts) {
            *self.summary.replayed.entry(topic).or_default() += count;
        }
        self.passed = 0;
        if self.reported.elapsed() >= REPORT {
            output::note(&format!("{} so far", counted(self.summary.total(), "record")));
            self.reported = Instant::now();
        }
        if let (Some(pace), Some(_)) = (&mut self.pace, &self.sender) {
            pace.wait_after(batch.records.len(), self.stop);
        }
        Ok(())
    }

    /// Sends what is left. What a finished partition has after its last dead letter, such as a
    /// transaction marker, is passed too.
    fn finish(mut self, ranges: &BTreeMap<i32, Range<u64>>) -> anyhow::Result<Summary> {
        let is_whole =
            !self.summary.interrupted && self.taken < self.limit && self.plan.filter.until.is_none();
        if is_whole {
            self.batch.next.extend(ranges.iter().map(|(partition, range)| (*partition, range.end)));
        }
        // An interrupted replay sends what it has counted as taken.
        self.flush()?;
        Ok(self.summary)
    }
}

/// Keeps a rate.
struct Pace {
    rate: f64,
    started: Instant,
    sent: f64,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self { rate, started: Instant::now(), sent: 0.0 }
    }

    /// Two transactions in a second, so that a high rate is even and a low one has no open
    /// transaction that waits.
    fn most_records(&self) -> usize {
        ((self.rate / 2.0) as usize).clamp(1, MOST_RECORDS)
    }

    /// Waits until these records too have the rate, or until `stop`.
    fn wait_after(&mut self, records: usize, stop: &AtomicBool) {
        self.sent += records as f64;
        let due = Duration::from_secs_f64(self.sent / self.rate);
        while let Some(left) = due.checked_sub(self.started.elapsed())
            && !stop.load(Ordering::Relaxed)
        {
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_rates_are_read() {
        assert_eq!(position("0/12"), Ok((0, 12)));
        assert!(position("12").is_err() && position("0/x").is_err());
        assert_eq!((rate("100/s"), rate("0.5")), (Ok(100.0), Ok(0.5)));
        for wrong in ["", "0", "-1/s", "100/m", "inf", "NaN"] {
            assert!(rate(wrong).is_err_and(|text| text.contains("100/s")), "{wrong}");
        }
    }

    #[test]
    fn a_pace_spreads_records_over_time() {
        assert_eq!([0.5, 10.0, 1e6].map(|rate| Pace::new(rate).most_records()), [1, 5, MOST_RECORDS]);
        let mut pace = Pace::new(100.0);
        let stop = AtomicBool::new(false);
        (0..4).for_each(|_| pace.wait_after(5, &stop));
        assert!(pace.started.elapsed() >= Duration::from_millis(200));
        // A stop request is not kept waiting.
        stop.store(true, Ordering::Relaxed);
        pace.wait_after(1_000_000, &stop);
        assert!(pace.started.elapsed() < Duration::from_secs(100));
    }
}
