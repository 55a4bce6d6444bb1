//! Runs an example's consumer until it has committed everything, and checks the results.
//!
//! A real program runs until SIGINT or SIGTERM.

use std::time::Duration;

use kmr_core::testing::EmbeddedCluster;
use kmr_core::{BoxError, Consumer, ConsumerHandle, Record, RunReport, processing_strategy};
use kmr_sinks::MemoryWriter;

/// An example that runs longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two reads of the committed offsets.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs `consumer` until it has committed every record of `topics`, then stops it as a signal
/// would.
///
/// # Errors
/// The consumer's own error, or a timeout.
pub async fn run_to_end(
    consumer: Consumer,
    cluster: &EmbeddedCluster,
    topics: &[&str],
) -> Result<RunReport, BoxError> {
    let handle = consumer.handle();
    let mut ends = Vec::new();
    for &topic in topics {
        ends.extend(cluster.end_offsets(topic)?.into_iter().map(|(partition, end)| (topic, partition, end)));
    }
    let running = consumer.run();
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => Ok(ended?), // No stop was requested, so it failed.
        done = tokio::time::timeout(TIMEOUT, all_committed(&handle, &ends)) => {
            handle.stop();
            let report = running.await?;
            done.map_err(|_| format!("records are uncommitted after {TIMEOUT:?}"))?;
            Ok(report)
        }
    }
}

async fn all_committed(handle: &ConsumerHandle, ends: &[(&str, i32, i64)]) {
    loop {
        let committed = handle.stats().committed;
        let done = |&(topic, partition, end): &(&str, i32, i64)| {
            let found = committed.iter().find(|(p, _)| p.topic() == topic && p.partition() == partition);
            end == 0 || found.is_some_and(|(_, offset)| *offset >= end)
        };
        if ends.iter().all(done) {
            return;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Reads all records of a topic, each mapped by `map`.
///
/// # Errors
/// The consumer's own error, or a timeout.
pub async fn read_topic<T: Send + Sync + 'static>(
    cluster: &EmbeddedCluster,
    topic: &str,
    map: fn(&Record<'_>) -> Result<T, BoxError>,
) -> Result<Vec<T>, BoxError> {
    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let values = sink.records();
    let consumer = Consumer::builder()
        .topics([topic])
        .config(cluster.client_config(&format!("reader of {topic}")))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({ map => map, reduce => sink }))
        .build()?;
    run_to_end(consumer, cluster, &[topic]).await?;
    Ok(values.take())
}

/// Fails the example unless `found` equals `expected`.
///
/// # Errors
/// Names the difference.
pub fn expect_same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), BoxError> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: found {found:?}, expected {expected:?}").into())
    }
}

/// Compiles and runs the blocks of code of the guide, a page each.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/guide/src/introduction.md")]
    struct Introduction;

    #[doc = include_str!("../../docs/guide/src/first-pipeline.md")]
    struct FirstPipeline;

    #[doc = include_str!("../../docs/guide/src/guarantees.md")]
    struct Guarantees;

    #[doc = include_str!("../../docs/guide/src/mapper.md")]
    struct Mapper;

    #[doc = include_str!("../../docs/guide/src/reducer.md")]
    struct Reducer;

    #[doc = include_str!("../../docs/guide/src/sink.md")]
    struct Sink;

    #[doc = include_str!("../../docs/guide/src/formats.md")]
    struct Formats;

    #[doc = include_str!("../../docs/guide/src/folds.md")]
    struct Folds;

    #[doc = include_str!("../../docs/guide/src/exactly-once.md")]
    struct ExactlyOnce;

    #[doc = include_str!("../../docs/guide/src/testing.md")]
    struct Testing;

    #[doc = include_str!("../../docs/guide/src/tuning.md")]
    struct Tuning;

    #[doc = include_str!("../../docs/guide/src/operating.md")]
    struct Operating;

    #[doc = include_str!("../../docs/guide/src/no-progress.md")]
    struct NoProgress;

    #[doc = include_str!("../../docs/guide/src/from-rdkafka.md")]
    struct FromRdkafka;

    #[doc = include_str!("../../docs/guide/src/from-arroyo.md")]
    struct FromArroyo;
}
