//! The sink on librdkafka's mock cluster, which fails on demand.

mod kit;

use std::time::Duration;

use kmr_core::{Attempt, ClientConfig, DeadLetter, OwnedHeader, OwnedRecord, Reducer};
use rdkafka::error::RDKafkaErrorCode as Code;

use self::kit::{Cluster, Delivering, batch};
use super::{KafkaMessage, KafkaWriter};

fn numbered(numbers: impl IntoIterator<Item = i32>) -> Vec<KafkaMessage> {
    numbers.into_iter().map(|number| KafkaMessage::new(number.to_string()).with_partition(0)).collect()
}

fn texts(numbers: impl IntoIterator<Item = i32>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn messages_arrive_unchanged_in_their_partitions() {
    let cluster = Cluster::start();
    let mut writer = cluster.writer(&[]).await;
    let odd = KafkaMessage::new("")
        .with_key("")
        .with_header("a", "1")
        .with_null_header("a")
        .with_header("a", "")
        .with_header("", [0, 255])
        .with_timestamp_millis(1_700_000_000_123)
        .with_partition(1);
    let rows = vec![odd, KafkaMessage::tombstone("k").with_topic("other").with_partition(0)];
    let delivery = batch(&mut writer, rows);
    assert_eq!(delivery.deliver(Attempt::new(1)).await.unwrap().output, 2);
    let arrived = cluster.read("events", 1, 1);
    let header = |key: &str, value: Option<&[u8]>| OwnedHeader::new(key, value.map(<[u8]>::to_vec));
    let record = arrived[0].as_record();
    assert_eq!(
        (record.key(), record.payload(), record.timestamp_millis()),
        (Some(&b""[..]), Some(&b""[..]), Some(1_700_000_000_123))
    );
    let expected =
        [header("a", Some(b"1")), header("a", None), header("a", Some(b"")), header("", Some(&[0, 255]))];
    assert_eq!(arrived[0].headers(), expected);
    let arrived = cluster.read("other", 0, 1);
    assert_eq!((arrived[0].key(), arrived[0].payload()), (Some(&b"k"[..]), None));
}

#[tokio::test]
async fn a_dead_letter_has_the_record_and_its_failure() {
    let cluster = Cluster::start();
    let mut writer = KafkaWriter::dead_letters(cluster.config(&[]), "events").header_prefix("dlq.");
    writer.start().await.unwrap();
    let record = OwnedRecord::new("orders", 3, 42).with_key("k").with_payload("p").with_header("mine", None);
    let delivery = batch(&mut writer, vec![DeadLetter::new(record, "map 1", "no number")]);
    delivery.deliver(Attempt::new(1)).await.unwrap();
    let arrived = (0..2).flat_map(|partition| cluster.read("events", partition, usize::from(partition == 0)));
    let arrived: Vec<_> = arrived.chain(cluster.read_all("events", 1)).collect();
    assert_eq!(arrived.len(), 1);
    let record = arrived[0].as_record();
    assert_eq!((record.key(), record.payload()), (Some(&b"k"[..]), Some(&b"p"[..])));
    assert_eq!(record.headers().get("mine").map(|header| header.value), Some(None));
    assert_eq!(record.headers().get("dlq.offset").map(|header| header.value), Some(Some(&b"42"[..])));
    assert_eq!(record.headers().get("dlq.error").map(|header| header.value), Some(Some(&b"no number"[..])));
}

#[tokio::test]
async fn a_dead_letter_that_is_too_large_is_sent_again_with_less_content() {
    let content = "p".repeat(2000);
    for (failures, payload, missing) in [(2, Some(&content), false), (3, None, true)] {
        let cluster = Cluster::start();
        let mut writer = KafkaWriter::dead_letters(cluster.config(&[]), "events");
        writer.start().await.unwrap();
        // The first request, then the message alone, then with shorter headers.
        cluster.fail_produce(&vec![Code::MessageSizeTooLarge; failures]);
        let record = OwnedRecord::new("orders", 3, 42).with_key("k").with_payload(content.clone());
        let dead_letter = DeadLetter::new(record, "map 1", "no number ".repeat(100));
        let delivered = batch(&mut writer, vec![dead_letter]).deliver(Attempt::new(1)).await.unwrap();
        assert_eq!((delivered.output, delivered.rejected.len()), (1, 0));
        let arrived = [cluster.read_all("events", 0), cluster.read_all("events", 1)].concat();
        assert_eq!(arrived.len(), 1);
        let record = arrived[0].as_record();
        assert_eq!(record.payload(), payload.map(|payload| payload.as_bytes()));
        assert_eq!(record.headers().get("kmr.missing").is_some(), missing);
    }
}

#[tokio::test]
async fn a_missing_topic_and_a_missing_broker_are_named_at_the_start() {
    let cluster = Cluster::start();
    cluster
        .mock
        .topic_error("nowhere", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        .unwrap();
    let mut writer = KafkaWriter::<KafkaMessage>::new(cluster.config(&[]), "nowhere")
        .start_timeout(Duration::from_millis(500));
    let error = writer.start().await.unwrap_err().to_string();
    assert!(error.contains("\"nowhere\" does not exist") && error.contains("create it"), "{error}");
    let config = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1");
    let mut writer =
        KafkaWriter::<KafkaMessage>::new(config, "events").start_timeout(Duration::from_millis(500));
    let error = writer.start().await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("check bootstrap.servers"), "{error}");
}

#[tokio::test]
async fn an_unavailable_broker_costs_attempts_and_duplicates_no_message() {
    let cluster = Cluster::start();
    let mut writer = cluster.writer(&[]).await.attempt_timeout(Duration::from_secs(2));
    batch(&mut writer, numbered(0..10)).deliver(Attempt::new(1)).await.unwrap();
    cluster.mock.broker_down(-1).unwrap();
    let delivery = batch(&mut writer, numbered(10..500));
    let error = delivery.deliver(Attempt::new(1)).await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.into_source().to_string();
    assert!(text.contains("490 messages") && text.contains("not acknowledged"), "{text}");
    cluster.mock.broker_up(-1).unwrap();
    assert_eq!(delivery.until_delivered().await.output, 490);
    assert_eq!(cluster.payloads("events", 500), texts(0..500));
}

#[tokio::test]
async fn retries_send_only_unacknowledged_messages() {
    let cluster = Cluster::start();
    // Requests of one message each. The first is rejected with an error that librdkafka does not
    // retry.
    let mut writer = cluster.writer(&[("batch.num.messages", "1")]).await;
    cluster.fail_produce(&[Code::PolicyViolation]);
    let delivery = batch(&mut writer, numbered(0..20));
    let error = delivery.deliver(Attempt::new(1)).await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.into_source().to_string();
    assert!(text.contains(" 1 messages") && text.contains("Policy"), "{text}");
    let delivered = delivery.deliver(Attempt::new(2)).await.unwrap();
    assert_eq!((delivered.output, delivered.rejected.len()), (20, 0));
    let mut arrived = cluster.payloads("events", 20);
    arrived.sort_by_key(|text| text.parse::<i32>().unwrap());
    assert_eq!(arrived, texts(0..20));
}

#[tokio::test]
async fn one_large_message_is_rejected_and_the_others_are_stored() {
    let cluster = Cluster::start();
    let mut writer = cluster.writer(&[]).await;
    // The request for all, then the first message alone.
    cluster.fail_produce(&[Code::MessageSizeTooLarge, Code::MessageSizeTooLarge]);
    let delivered = batch(&mut writer, numbered(0..5)).deliver(Attempt::new(1)).await.unwrap();
    assert_eq!((delivered.output, delivered.rejected.len()), (4, 1));
    assert_eq!(delivered.rejected[0].index, 0);
    let text = delivered.rejected[0].error.to_string();
    assert!(text.contains("too large for topic \"events\"") && text.contains("max.message.bytes"), "{text}");
    assert_eq!(cluster.payloads("events", 4), texts(1..5));
}

#[tokio::test]
async fn a_message_that_the_client_rejects_has_kafkas_code() {
    let cluster = Cluster::start();
    let mut writer = cluster.writer(&[("message.max.bytes", "2000")]).await;
    let mut rows = numbered(0..3);
    rows[1] = KafkaMessage::new(vec![b'x'; 3000]).with_partition(0);
    let delivered = batch(&mut writer, rows).deliver(Attempt::new(1)).await.unwrap();
    assert_eq!(delivered.output, 2);
    assert_eq!(delivered.rejected.iter().map(|row| row.index).collect::<Vec<_>>(), [1]);
    let record = OwnedRecord::new("t", 0, 0);
    let error = delivered.rejected.into_iter().next().unwrap().error;
    assert_eq!(DeadLetter::new(record, "reduce 1", error).code(), Some("10"));
    assert_eq!(cluster.payloads("events", 2), texts([0, 2]));
}

#[tokio::test]
async fn a_missing_topic_or_partition_of_a_row_is_the_rows_error() {
    let cluster = Cluster::start();
    cluster
        .mock
        .topic_error("nowhere", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        .unwrap();
    let mut writer = cluster.writer(&[("topic.metadata.propagation.max.ms", "200")]).await;
    let mut rows = numbered(0..4);
    rows[1] = KafkaMessage::new("x").with_topic("nowhere");
    rows[2] = KafkaMessage::new("x").with_partition(77);
    let delivered = batch(&mut writer, rows).until_delivered().await;
    assert_eq!(delivered.output, 2);
    let mut rejected: Vec<_> =
        delivered.rejected.iter().map(|row| (row.index, row.error.to_string())).collect();
    rejected.sort();
    assert!(rejected[0].0 == 1 && rejected[0].1.contains("\"nowhere\" does not exist"), "{rejected:?}");
    assert!(rejected[1].0 == 2 && rejected[1].1.contains("no partition 77"), "{rejected:?}");
    assert_eq!(cluster.payloads("events", 2), texts([0, 3]));
}

#[tokio::test]
async fn a_missing_permission_is_fatal_and_names_the_topic() {
    let cluster = Cluster::start();
    let mut writer = cluster.writer(&[]).await;
    cluster.fail_produce(&[Code::TopicAuthorizationFailed]);
    let error = batch(&mut writer, numbered(0..3)).deliver(Attempt::new(1)).await.unwrap_err();
    assert!(!error.is_retryable());
    let text = error.into_source().to_string();
    assert!(text.contains("not authorized: topic \"events\"") && text.contains("grant WRITE"), "{text}");
}

#[tokio::test]
async fn a_dropped_delivery_is_not_completed_later() {
    let cluster = Cluster::start();
    let mut writer = cluster.writer(&[]).await.attempt_timeout(Duration::from_secs(2));
    batch(&mut writer, numbered(0..3)).deliver(Attempt::new(1)).await.unwrap();
    cluster.mock.broker_down(-1).unwrap();
    let dropped = batch(&mut writer, numbered(100..200));
    let shared = batch(&mut writer, numbered(3..5));
    // Another delivery of the same producer continues with the next producer.
    let (first, second) = tokio::join!(dropped.deliver(Attempt::new(1)), shared.deliver(Attempt::new(1)));
    assert!(first.is_err() && second.is_err());
    drop(dropped);
    cluster.mock.broker_up(-1).unwrap();
    assert_eq!(shared.until_delivered().await.output, 2);
    batch(&mut writer, numbered(5..7)).until_delivered().await;
    assert_eq!(cluster.payloads("events", 7), texts(0..7));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.read_all("events", 0).len(), 7, "a dropped message was sent later");
}

#[tokio::test]
async fn the_broker_creates_a_topic_only_with_auto_create() {
    let cluster = Cluster::start();
    let writer =
        || KafkaWriter::<KafkaMessage>::new(cluster.config(&[]), "new").start_timeout(Duration::from_secs(1));
    let error = writer().start().await.unwrap_err().to_string();
    assert!(error.contains("\"new\" does not exist") && error.contains("auto_create"), "{error}");
    let mut writer = writer().auto_create(true);
    writer.start().await.unwrap();
    batch(&mut writer, numbered(0..3)).until_delivered().await;
    assert_eq!(cluster.payloads("new", 3), texts(0..3));
}
