//! A mapper that does not return: the watchdog ends the consumer, and the process if configured.

use std::process::Command;
use std::time::{Duration, Instant};

use kmr_core::{Consumer, Error, Record, Strategy, Watchdog};

use crate::kit::{Cluster, Count, KIP_848, Seen};

/// Set in the process that has to end.
const STUCK: &str = "KMR_TEST_STUCK";

/// Runs this test in a separate process, which has to end with the exit code of a stuck consumer.
fn ends_stuck(name: &str) {
    let mut process = Command::new(std::env::current_exe().unwrap());
    let mut process = process.args(["--exact", name, "--nocapture"]).env(STUCK, "1").spawn().unwrap();
    let started = Instant::now();
    let ended = loop {
        if let Some(ended) = process.try_wait().unwrap() {
            break Some(ended);
        }
        if started.elapsed() > Duration::from_secs(150) {
            process.kill().unwrap();
            process.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(ended.and_then(|ended| ended.code()), Some(70));
}

#[test]
fn a_mapper_that_never_returns_ends_the_process() {
    match std::env::var_os(STUCK) {
        // One worker thread for each partition's mapper, and some for the other tasks.
        Some(_) => stuck(6),
        None => ends_stuck("stuck::a_mapper_that_never_returns_ends_the_process"),
    }
}

#[test]
fn mappers_that_hold_every_worker_thread_end_the_process() {
    match std::env::var_os(STUCK) {
        Some(_) => stuck(2),
        None => ends_stuck("stuck::mappers_that_hold_every_worker_thread_end_the_process"),
    }
}

/// Four partitions with one record each. Does not return, because the runtime waits for the
/// mappers.
fn stuck(workers: usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
    runtime.block_on(async {
        let (cluster, seen) = (Cluster::start(), Seen::default());
        cluster.produce(1);
        let never = |_: &Record<'_>| -> Result<(i32, i64), Error> {
            loop {
                std::thread::park();
            }
        };
        let consumer = Consumer::builder()
            .topics(["events"])
            .config(cluster.config(&KIP_848))
            .drain_timeout(Duration::from_secs(16))
            .watchdog(
                Watchdog::default().with_restart_after(Duration::from_secs(16)).with_exit_when_stuck(true),
            )
            .strategy(Strategy::new().map(never).reduce(Count::quick(&seen)))
            .build()
            .unwrap();
        let error = consumer.run().await.unwrap_err();
        assert!(matches!(error, Error::Stuck { .. }), "{error}");
    });
}
