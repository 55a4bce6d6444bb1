//! The memory budget holds for topics of any compression ratio, and for each codec.
//!
//! With `KMR_SOAK=1`, `table_of_compression_ratios` measures every cell of the table in
//! docs/sizing.md and prints it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{Event, RowKind, SinkKind};
use integration_tests::{
    Deadline, Message, Process, ProducerSettings, Signal, log_line, soaking, test_name, wait_until,
};

use crate::scene::{Scene, TABLE, alive, alone, cases, in_turn, start_with_jemalloc};

/// kmr's default, by `Settings::new`.
const BUDGET: u64 = 64 << 20;
const ALLOWED: u64 = BUDGET + 100_000_000;
/// The consumer is full when it holds at least this much: see `memory.rs`.
const GRAPH: u64 = BUDGET / 8 * 3;

/// The codecs of Kafka, with large batches.
const CODECS: [ProducerSettings; 4] = [
    &[("compression.type", "zstd"), ("linger.ms", "200")],
    &[("compression.type", "gzip"), ("linger.ms", "200")],
    &[("compression.type", "snappy"), ("linger.ms", "200")],
    &[("compression.type", "lz4"), ("linger.ms", "200")],
];
const ZSTD: ProducerSettings = CODECS[0];

/// The part of a record that is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Large {
    Payload,
    /// The payload is empty.
    Key,
    /// The payload has 100 B.
    Header,
}

/// Records of one size, of which one byte in `ratio` is random and the others are equal.
#[derive(Clone, Copy)]
struct Cell {
    settings: ProducerSettings,
    large: Large,
    record_bytes: usize,
    ratio: usize,
    partitions: i32,
}

impl Cell {
    /// Several times the budget.
    fn messages(self) -> impl Iterator<Item = Message> + Send + 'static {
        let Self { large, record_bytes, ratio, partitions, .. } = self;
        let weight = record_bytes + 340;
        let count = (8 * usize::try_from(BUDGET).unwrap_or(0)).div_ceil(weight);
        let random = if record_bytes < ratio { 0 } else { record_bytes / ratio };
        (0..count).map(move |n| {
            let mut bytes = vec![b'0'; record_bytes];
            bytes[..random].fill_with(|| fastrand::u8(..));
            let partition = i32::try_from(n).unwrap_or(0) % partitions;
            let message = match large {
                Large::Payload => Message::new(bytes),
                Large::Key => Message::new("").key(bytes),
                Large::Header => Message::of_size(100).header("trace", bytes),
            };
            message.partition(partition)
        })
    }

    fn name(self) -> String {
        let Self { settings, large, record_bytes, ratio, partitions } = self;
        format!("{}, {large:?} of {record_bytes} B, ratio {ratio}, {partitions} partitions", settings[0].1)
    }

    /// The peak of a consumer whose sink stores nothing.
    async fn stalled(self, name: &str) -> Result<u64> {
        let scene = Scene::new(name, self.partitions, RowKind::Payload).await?;
        scene.topic.produce_with(self.settings, self.messages()).await?;
        let mut settings = scene.settings();
        settings.sink = SinkKind::Stalled;
        if self.large != Large::Payload {
            // Rows have the payload alone, so the budget is not full because of the batches.
            settings.max_rows = 100;
        }
        let mut consumer = start_with_jemalloc(&settings)?;
        let peak = full(&consumer).await.with_context(|| self.name())?;
        consumer.end(Signal::Kill, Deadline::seconds(10)).await?;
        log_line(format_args!("memory, {}: {} MB", self.name(), peak / 1_000_000));
        scene.topic.delete().await?;
        Ok(peak)
    }
}

/// Waits until the consumer accepts no more records, and returns its peak.
async fn full(consumer: &Process) -> Result<u64> {
    let mut last = (0, Instant::now());
    wait_until(Deadline::seconds(60), "the consumer is full", async || {
        alive(consumer)?;
        let Some(Event::Progress { records, bytes_held, .. }) = Event::last(consumer) else {
            return Ok(false);
        };
        if records != last.0 {
            last = (records, Instant::now());
        }
        Ok(bytes_held >= GRAPH && last.1.elapsed() >= Duration::from_secs(3))
    })
    .await
    .map_err(|error| error.context(format!("the consumer's standard error:\n{}", consumer.stderr())))?;
    consumer.peak_resident_bytes()
}

fn check(peak: u64, what: &str) -> Result<()> {
    ensure!(peak <= ALLOWED, "{what}: peak memory of {peak} bytes is above the limit of {ALLOWED}");
    Ok(())
}

#[tokio::test]
async fn the_budget_holds_for_records_that_compress_well() -> Result<()> {
    in_turn(cases![
        records_that_compress_seven_thousand_times_stay_within_the_budget,
        small_records_of_each_codec_stay_within_the_budget,
        responses_of_64_partitions_stay_within_the_budget,
        large_headers_and_keys_stay_within_the_budget,
        one_batch_of_95_megabytes_is_read,
        a_rejected_row_among_records_that_compress_well_is_read_again_within_the_budget,
        one_partition_of_64_that_compresses_well_stays_within_the_budget,
    ])
    .await
}

async fn records_that_compress_seven_thousand_times_stay_within_the_budget() -> Result<()> {
    let cell = Cell {
        settings: ZSTD,
        large: Large::Payload,
        record_bytes: 999_000,
        ratio: 1_000_000,
        partitions: 1,
    };
    check(cell.stalled(test_name!()).await?, &cell.name())
}

async fn small_records_of_each_codec_stay_within_the_budget() -> Result<()> {
    for settings in CODECS {
        let cell = Cell { settings, large: Large::Payload, record_bytes: 20, ratio: 30, partitions: 1 };
        check(cell.stalled(test_name!()).await?, &cell.name())?;
    }
    Ok(())
}

async fn responses_of_64_partitions_stay_within_the_budget() -> Result<()> {
    let cell =
        Cell { settings: ZSTD, large: Large::Payload, record_bytes: 1_000, ratio: 300, partitions: 64 };
    check(cell.stalled(test_name!()).await?, &cell.name())
}

async fn large_headers_and_keys_stay_within_the_budget() -> Result<()> {
    for (large, record_bytes) in [(Large::Header, 4_000), (Large::Key, 100_000)] {
        for ratio in [1, 300] {
            let cell = Cell { settings: ZSTD, large, record_bytes, ratio, partitions: 1 };
            check(cell.stalled(test_name!()).await?, &cell.name())?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn table_of_compression_ratios() -> Result<()> {
    if !soaking() {
        return Ok(());
    }
    let _alone = alone().await;
    let mut table = String::from("| codec | record | partitions | 1 | 3 | 30 | 300 | 3,000 |\n");
    for settings in CODECS {
        for record_bytes in [20, 1_000, 1_000_000] {
            for partitions in [1, 64] {
                let _ = write!(table, "| {} | {record_bytes} | {partitions} |", settings[0].1);
                for ratio in [1, 3, 30, 300, 3_000] {
                    let cell = Cell { settings, large: Large::Payload, record_bytes, ratio, partitions };
                    let peak = cell.stalled(test_name!()).await?;
                    let _ = write!(table, " {} |", peak / 1_000_000);
                    check(peak, &cell.name())?;
                }
                table.push('\n');
            }
        }
    }
    log_line(format_args!("peak resident memory in MB:\n{table}"));
    Ok(())
}

/// 4,224 bytes on the wire, and 95 MB unpacked. librdkafka unpacks it into a buffer of 166 MB.
async fn one_batch_of_95_megabytes_is_read() -> Result<()> {
    const BATCH: ProducerSettings = &[
        ("compression.type", "zstd"),
        ("batch.size", "100000000"),
        ("message.max.bytes", "200000000"),
        ("linger.ms", "3000"),
    ];
    let scene = Scene::new(test_name!(), 1, RowKind::Payload).await?;
    let record = Message::new(vec![b'0'; 1_000_000]).partition(0);
    let produced = scene.topic.produce_with(BATCH, std::iter::repeat_n(record, 95)).await?;
    let mut consumer = start_with_jemalloc(&scene.settings())?;
    scene.all_committed(&consumer, Deadline::seconds(60)).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    scene.nothing_is_missing(&produced).await?;
    Ok(())
}

/// The client that reads rejected records again has the same limit.
async fn a_rejected_row_among_records_that_compress_well_is_read_again_within_the_budget() -> Result<()> {
    let scene = Scene::new(test_name!(), 1, RowKind::Payload).await?;
    let constraint = format!("ALTER TABLE {TABLE} ADD CONSTRAINT reject CHECK offset != 7");
    scene.database.exec(&constraint).await?;
    let record = Message::new(vec![b'0'; 999_000]).partition(0);
    scene.topic.produce_with(ZSTD, std::iter::repeat_n(record, 600)).await?;
    let mut consumer = start_with_jemalloc(&scene.settings())?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    let peak = consumer.peak_resident_bytes()?;
    consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    ensure!(scene.rows().await? == 599, "one row is rejected");
    log_line(format_args!("memory, a rejected row of 999,000 B in zstd: {} MB", peak / 1_000_000));
    check(peak, "a rejected row")
}

/// The other 63 partitions come in batches of a megabyte of random bytes, so the limit of a
/// response would grow before the one that compresses well is received.
async fn one_partition_of_64_that_compresses_well_stays_within_the_budget() -> Result<()> {
    let scene = Scene::new(test_name!(), 64, RowKind::Payload).await?;
    let light = (0..63 * 2_000).map(|n| {
        let mut bytes = vec![0; 1_000];
        bytes.fill_with(|| fastrand::u8(b'a'..=b'z'));
        Message::new(bytes).partition(n % 63)
    });
    let heavy = std::iter::repeat_n(Message::new(vec![b'0'; 999_000]).partition(63), 300);
    scene.topic.produce_with(ZSTD, light.chain(heavy)).await?;
    let mut consumer = start_with_jemalloc(&scene.settings())?;
    scene.all_committed(&consumer, Deadline::seconds(120)).await?;
    let peak = consumer.peak_resident_bytes()?;
    consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    log_line(format_args!("memory, one partition of 64 that compresses well: {} MB", peak / 1_000_000));
    check(peak, "one partition of 64 that compresses well")
}
