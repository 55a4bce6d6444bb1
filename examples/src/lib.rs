//! What the examples share: how they end by themselves. A real program runs until SIGINT or SIGTERM.

use std::time::Duration;

use kmr_core::testing::EmbeddedCluster;
use kmr_core::{BoxError, Consumer, ConsumerHandle, RunReport};

/// An example that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at the committed offsets.
const LOOK: Duration = Duration::from_millis(20);

/// Runs `consumer` until it has committed all that `topics` hold, then ends it in order: what a signal would do.
///
/// # Errors
/// The consumer's own error, or that it was not done in time.
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
        ended = &mut running => Ok(ended?), // it failed: nobody has told it to stop
        done = tokio::time::timeout(LIMIT, all_committed(&handle, &ends)) => {
            handle.stop();
            let report = running.await?;
            done.map_err(|_| format!("not everything is committed after {LIMIT:?}"))?;
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
        tokio::time::sleep(LOOK).await;
    }
}

/// Fails the example unless `found` is what was expected.
///
/// # Errors
/// Says what differs.
pub fn expect_same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), BoxError> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} in place of {expected:?}").into()) }
}
