//! What a status shows of a running consumer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kmr_core::{
    Consumer, ConsumerHandle, ConsumerState, DeadLetter, Error, Event, EventKind, Status, Strategy, Watchdog,
};
use tokio::sync::Semaphore;

use crate::kit::{Cluster, Count, KIP_848, Running, Seen, place};
use crate::metrics::{Flaky, picky};

/// Waits until a status meets the condition.
async fn until(handle: &ConsumerHandle, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    let started = Instant::now();
    loop {
        let status = handle.status().await;
        if holds(&status) {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "never: {what} in {status:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn events(status: &Status, kind: EventKind) -> Vec<&Event> {
    status.events.iter().filter(|event| event.kind == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_shows_stages_partitions_deliveries_and_events_until_the_end() {
    let cluster = Cluster::start();
    cluster.produce(20);
    let consumer = Consumer::builder()
        .topics(["events"])
        .config(cluster.config(&KIP_848).set("group.instance.id", "one"))
        .watchdog(Watchdog::default().with_warn_after(Duration::from_secs(1)))
        .strategy(
            Strategy::new().map(picky).reduce(Flaky::new(u32::MAX)).reduce_err(Flaky::<DeadLetter>::new(0)),
        )
        .build()
        .unwrap();
    let handle = consumer.handle();
    let before = handle.status().await;
    assert_eq!((before.state, before.connected, before.responsive), (ConsumerState::Starting, false, true));
    assert!(before.partitions.is_empty() && before.stages.is_empty() && before.events.is_empty());
    assert_eq!((before.group.as_str(), before.instance.as_deref()), ("group", Some("one")));

    let running = Running { handle: handle.clone(), task: tokio::spawn(consumer.run()) };
    let stalled = |status: &Status| {
        let late = status.partitions.values().filter(|partition| partition.late).count();
        late == 4 && status.totals.records == 80 && status.totals.dead_letters == 8
    };
    let status = until(&handle, "a stalled sink makes the partitions late", stalled).await;
    assert_eq!((status.state, status.connected, status.healthy), (ConsumerState::Running, true, false));
    for (name, partition) in &status.partitions {
        let waits_for = partition.waits_for.as_deref().unwrap();
        assert!(
            waits_for.contains("reduce 1") && waits_for.contains("too many parts"),
            "{name}: {waits_for}"
        );
        assert_eq!((partition.position, partition.log_end), (Some(20), Some(20)));
        assert_eq!((partition.oldest_unfinished, partition.lag_records), (Some(0), Some(20)));
        assert!(partition.lag_time.is_some() && !partition.paused);
    }
    let names: Vec<&str> = status.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["reduce 1", "reduce_err"]);
    let reduce = &status.stages[0];
    assert_eq!((reduce.capacity, reduce.max_deliveries, reduce.rows), (32, 2, 0));
    assert_eq!(status.stages[1].rows, 8, "dead letters are delivered");
    assert!(reduce.deliveries >= 1 && reduce.deliveries == status.deliveries.len(), "{status:#?}");
    let delivery = &status.deliveries[0];
    assert!(delivery.attempt > 1 && delivery.elapsed >= Duration::from_secs(1), "{delivery:?}");
    assert_eq!(delivery.last_error.as_deref(), Some("too many parts"));
    assert!(status.memory_used > 0 && status.memory_used <= status.memory_budget);

    let errors = events(&status, EventKind::Error);
    let failed = errors.iter().find(|event| event.text == "delivery failed: too many parts").unwrap();
    assert!(failed.count > 1 && failed.stage.as_deref() == Some("reduce 1"), "{failed:?}");
    let late = errors.iter().find(|event| event.text == "makes no progress").unwrap();
    assert!(late.count >= 4 && late.partition.is_some(), "all partitions are late: {late:?}");
    let dead: u64 = events(&status, EventKind::DeadLetter).iter().map(|event| event.count).sum();
    assert_eq!(dead, 8);
    for event in events(&status, EventKind::DeadLetter) {
        let place = (event.stage.as_deref(), event.text.as_str(), event.offset.map(|offset| offset % 10));
        assert_eq!(place, (Some("map 1"), "code bad", Some(7)), "the text of the error stays out");
    }
    assert!(events(&status, EventKind::Rebalance)[0].text.starts_with("assign: "), "{:#?}", status.events);

    handle.stop();
    until(&handle, "it stops", |status| status.state == ConsumerState::Stopping).await;
    handle.stop_now();
    assert!(matches!(running.ended().await, Err(Error::Unfinished { .. })));
    let ended = handle.status().await;
    assert_eq!((ended.state, ended.connected, ended.responsive), (ConsumerState::Ended, false, true));
    assert!(ended.partitions.is_empty() && ended.deliveries.is_empty() && ended.totals.records == 80);
    assert!(events(&ended, EventKind::Error)[0].text.starts_with("the consumer ended: "), "{ended:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_wait_for_their_mapper_count_as_unmapped_bytes_of_their_partition() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(50);
    let permits = Arc::new(Semaphore::new(0));
    let running = cluster.consume_with_permits(&permits, &seen);
    let all_hold = |status: &Status| {
        status.partitions.len() == 4 && status.partitions.values().all(|p| p.unmapped_bytes > 0)
    };
    let status = until(&running.handle, "all partitions have records that are not mapped", all_hold).await;
    let sum: u64 = status.partitions.values().map(|partition| partition.unmapped_bytes).sum();
    assert_eq!(status.unmapped_bytes, sum);
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let done = |status: &Status| status.unmapped_bytes == 0 && status.totals.records == 200;
    let status = until(&running.handle, "all records are mapped", done).await;
    assert!(status.stages[0].waiting <= status.stages[0].capacity);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_metrics_a_status_has_the_health_of_partitions_and_the_totals() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(10);
    let consumer = Consumer::builder()
        .topics(["events"])
        .config(cluster.config(&KIP_848))
        .record_metrics(false)
        .strategy(Strategy::new().map(place).reduce(Count::quick(&seen)))
        .build()
        .unwrap();
    let running = Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) };
    let all = |status: &Status| status.partitions.len() == 4 && status.totals.records == 40;
    let status = until(&running.handle, "a health check has seen all partitions", all).await;
    assert!(status.stages.is_empty() && status.events.is_empty());
    assert!(status.partitions.values().all(|partition| partition.lag_records.is_none()));
    assert!(status.healthy && status.responsive);
    running.stop().await.unwrap();
}
