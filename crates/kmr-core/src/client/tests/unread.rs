//! How far logs reach and how far they are read, and partitions that librdkafka fetches no more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;

use super::kit::{COOPERATIVE, Cluster, Driver, EAGER, KIP_848, Settings, partition, patience};
use crate::client::Connect;
use crate::client::connect::join;
use crate::client::context::Client;
use crate::client::handle::ClientRef;
use crate::client::open::open;
use crate::error::{BoxError, Error};
use crate::graph::control::{ControlSender, StopRequest, controls};
use crate::graph::coordinator::ShutdownOutcome;
use crate::graph::memory::budget::Budget;
use crate::graph::observe::watchdog::WatchdogThresholds;
use crate::graph::options::GraphOptions;
use crate::graph::run::Graph;
use crate::health::PartitionHealth;
use crate::member::{Connected, Connector, LogReach, LogReaches, Reread, SilentLeader};
use crate::record::{Record, TopicPartition};
use crate::strategy::{IntoPipeline, Strategy};
use crate::test_reducer::Collect;

/// Pauses a partition in librdkafka, without kmr's knowledge.
fn pause_partition_0(client: &Client) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("events", 0, Offset::Invalid).unwrap();
    client.pause(&list).unwrap();
}

/// How far a partition reaches that is read up to `position`. Serves the member meanwhile.
async fn reach(driver: &mut Driver, number: i32, position: i64) -> Option<LogReach> {
    reaches(driver, &[(number, position)]).await.remove(&partition(number))?.ok()
}

/// The same for several partitions.
pub(super) async fn reaches(driver: &mut Driver, positions: &[(i32, i64)]) -> LogReaches {
    let member = driver.member.clone();
    let positions: Vec<_> =
        positions.iter().map(|(number, position)| (partition(*number), Some(*position))).collect();
    let asked = tokio::spawn(async move { member.log_reach(&positions).await });
    while !asked.is_finished() {
        driver.during(Duration::from_millis(50)).await;
    }
    asked.await.unwrap()
}

async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(settings: Settings) {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 20));
    let mut driver = cluster.join(settings).await;
    driver.until("all", |driver| driver.counts().values().sum::<usize>() == 40).await;
    assert_eq!(reach(&mut driver, 0, 20).await, Some(LogReach { end: 20, fetched: 20 }));
    driver.client.call("pausing", pause_partition_0).await.unwrap();
    (0..2).for_each(|number| cluster.produce(number, 10));
    driver.until("the other partition", |driver| driver.count(1) == 30).await;
    assert_eq!(reach(&mut driver, 0, 20).await, Some(LogReach { end: 30, fetched: 20 }));
    assert_eq!((driver.count(0), driver.failures.len()), (20, 0), "silent");
    driver.member.pause(&[partition(0)], true).await.unwrap();
    driver.member.restart(&[(partition(0), 20)]).await.unwrap();
    driver.member.pause(&[partition(0)], false).await.unwrap();
    driver.until("the rest", |driver| driver.seen(0).len() == 30).await;
    assert_eq!(driver.taken[&0], (0..30).collect::<Vec<i64>>());
    assert_eq!(driver.seen(1).len(), 30);
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart_in_an_eager_group() {
    a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(EAGER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart_in_a_cooperative_group() {
    a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(COOPERATIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart_in_a_kip_848_group() {
    a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(KIP_848).await;
}

/// The mock has no transactions. Here kmr's positions are as if offset 19 were a transaction
/// marker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_librdkafka_has_fetched_and_that_have_no_record_are_read() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 20);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 20).await;
    assert_eq!(reach(&mut driver, 0, 19).await, Some(LogReach { end: 20, fetched: 19 }), "a lost record");
    driver.fetcher.gate.lock().sought(&partition(0), 19);
    // The statistics may be a moment old.
    driver.during(Duration::from_secs(2)).await;
    assert_eq!(reach(&mut driver, 0, 19).await, Some(LogReach { end: 20, fetched: 20 }));
    driver.member.close().await.unwrap();
}

/// librdkafka ends the forwarding when it stops a fetcher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_forwarded_any_more_is_read_once_its_position_is_compared() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 20);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 20).await;
    driver.fetcher.queue.forward_nowhere("events", 0);
    cluster.produce(0, 10);
    driver.during(Duration::from_secs(1)).await;
    assert_eq!(driver.count(0), 20, "silent");
    assert_eq!(reach(&mut driver, 0, 20).await.map(|reach| reach.end), Some(30));
    driver.until("the rest", |driver| driver.count(0) == 30).await;
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_down_is_named_and_the_log_is_unknown() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 20);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 20).await;
    cluster.mock.broker_down(1).unwrap();
    let down = SilentLeader::Broker { id: 1, address: cluster.servers.as_str().into() };
    assert_eq!(reaches(&mut driver, &[(0, 20)]).await, [(partition(0), Err(down))].into());
    cluster.mock.broker_up(1).unwrap();
    while reach(&mut driver, 0, 20).await.is_none() {}
    driver.member.close().await.unwrap();
}

/// Connects, and keeps a reference to the last client.
struct Exposed {
    connect: Connect,
    clients: Mutex<Vec<ClientRef>>,
}

#[async_trait]
impl Connector for Exposed {
    async fn connect(&self) -> Result<Connected, Error> {
        let opened = open(&self.connect.client).await?;
        self.clients.lock().unwrap().push(opened.client.clone());
        join(&self.connect, opened).await
    }

    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        self.connect.read_records(partition, offsets, max_bytes).await
    }
}

/// The whole graph: it notices the silence by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_restarts_a_partition_that_librdkafka_no_longer_fetches() {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 20));
    let connector = Arc::new(Exposed { connect: cluster.options(KIP_848), clients: Mutex::default() });
    let running = Running::start(connector.clone());
    wait_until("all", || running.rows() == 40).await;
    let client = connector.clients.lock().unwrap()[0].clone();
    client.call("pausing", pause_partition_0).await.unwrap();
    drop(client);
    (0..2).for_each(|number| cluster.produce(number, 10));
    wait_until("late", || running.health(0).late).await;
    assert_eq!(running.rows(), 50, "the other partition is read");
    wait_until("the rest", || running.rows() == 60).await;
    assert_eq!(connector.clients.lock().unwrap().len(), 1, "the client is the same");
    wait_until("healthy", || running.is_healthy()).await;
    assert_eq!(running.stop().await, 60, "no duplicates");
    connector.clients.lock().unwrap().clear();
}

/// A consumer whose watchdog warns after a second, and restarts after three.
pub(super) struct Running {
    control: ControlSender,
    sink: Collect<(i32, i64)>,
    task: JoinHandle<Result<ShutdownOutcome, Error>>,
}

impl Running {
    pub(super) fn start(connector: Arc<dyn Connector>) -> Self {
        let (warn_after, restart_after) = (Duration::from_secs(1), Some(Duration::from_secs(3)));
        let options = GraphOptions {
            thresholds: WatchdogThresholds { warn_after, restart_after },
            drain_timeout: Duration::from_secs(3),
            ..GraphOptions::default()
        };
        let (control, controls) = controls();
        let (budget, counters) = (Budget::new(16 << 20), Arc::default());
        let graph = Graph { connector, controls, budget, counters, seed: 1, options };
        let sink = Collect::default();
        let place = |record: &Record<'_>| Ok::<_, BoxError>((record.partition(), record.offset()));
        let strategy = Strategy::new().map(place).reduce(sink.clone()).into_pipeline();
        Self { control, sink, task: tokio::spawn(graph.run(strategy)) }
    }

    /// The number of different records that were delivered.
    pub(super) fn rows(&self) -> usize {
        self.sink.rows().into_iter().collect::<BTreeSet<(i32, i64)>>().len()
    }

    pub(super) fn health(&self, number: i32) -> PartitionHealth {
        let health = self.control.board.health();
        health.partitions.get(&partition(number)).cloned().unwrap_or_default()
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.control.board.health().is_healthy()
    }

    /// Returns the number of records that were delivered.
    pub(super) async fn stop(self) -> usize {
        self.control.stop.send(StopRequest::in_order("the test")).unwrap();
        self.task.await.unwrap().unwrap();
        self.sink.rows().len()
    }
}

pub(super) async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(patience(), waiting).await.is_ok(), "never {what}");
}
