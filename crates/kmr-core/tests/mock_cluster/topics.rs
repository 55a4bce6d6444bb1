//! Patterns of topics.

use std::time::Duration;

use kmr_core::{Consumer, Strategy};
use rdkafka::producer::{BaseRecord, Producer};

use crate::kit::{COOPERATIVE, Cluster, Count, Running, Seen, place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_created_later_is_picked_up_by_its_pattern() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.mock.create_topic("events-1", 1, 1).unwrap();
    let send = |topic: &str, partition: i32, records: i32| {
        for _ in 0..records {
            let record = BaseRecord::<(), _>::to(topic).payload("x").partition(partition);
            cluster.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        cluster.producer.flush(Duration::from_secs(10)).unwrap();
    };
    send("events-1", 0, 5);
    send("events", 3, 7); // does not match
    let consumer = Consumer::builder()
        .topics(["^events-.*"])
        .config(cluster.config(&COOPERATIVE).set("topic.metadata.refresh.interval.ms", "300"))
        .strategy(Strategy::new().map(place).reduce(Count::quick(&seen)))
        .build()
        .unwrap();
    let running = Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) };
    seen.until(5).await;
    cluster.mock.create_topic("events-2", 2, 1).unwrap();
    send("events-2", 1, 6);
    seen.until(11).await;
    running.stop().await.unwrap();
    assert_eq!(seen.len(), 11);
}
