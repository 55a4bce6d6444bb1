//! What records take in memory is charged to the budget, and bounds what librdkafka prefetches.

use std::time::Duration;

use super::kit::{Cluster, Driver, KIP_848, Message, Settings};
use crate::member::{Fetched, RECORD_OVERHEAD, RecordBatch};

const PLAIN: Settings = &[("linger.ms", "50")];
const COMPRESSED: Settings = &[("linger.ms", "50"), ("compression.type", "lz4")];
const SINGLE: Settings = &[("batch.num.messages", "1")];
const SINGLE_COMPRESSED: Settings = &[("batch.num.messages", "1"), ("compression.type", "lz4")];

const RECORDS: usize = 300;
const HEADER: usize = 4_000;
/// Name and value.
const HEADER_BYTES: usize = HEADER + 5;

/// Records of 100 B, of which each `every`th has a header.
fn with_headers(every: usize) -> Vec<Message> {
    let message = |n: usize| {
        let header = n.is_multiple_of(every).then(|| vec![b'h'; HEADER]);
        Message { payload: vec![b'x'; 100], header, ..Message::default() }
    };
    (0..RECORDS).map(message).collect()
}

#[tokio::test]
async fn headers_are_charged_whatever_the_batches_and_their_compression() {
    for settings in [PLAIN, COMPRESSED, SINGLE, SINGLE_COMPRESSED] {
        let cluster = Cluster::start(4);
        for (partition, every) in [(0, usize::MAX), (1, 1), (2, 3), (3, RECORDS - 1)] {
            let mut messages = with_headers(every);
            if every == usize::MAX {
                messages.iter_mut().for_each(|message| message.header = None);
            }
            cluster.produce_all(settings, partition, &messages);
        }
        let mut member = cluster.join(KIP_848).await;
        member.keeps = true;
        member.until("all", |driver| (0..4).all(|partition| driver.count(partition) == RECORDS)).await;
        let without = RECORDS * (100 + RECORD_OVERHEAD);
        assert_eq!(member.charged[&0], without, "{settings:?}");
        for (partition, headers) in [(1, RECORDS), (2, RECORDS / 3), (3, 2)] {
            let (charged, exact) = (member.charged[&partition], without + headers * HEADER_BYTES);
            assert!(
                charged >= exact && charged <= exact + RECORDS * 96,
                "{settings:?}, partition {partition}: {charged}, and {exact} are exact"
            );
        }
        let header_is_there = |batch: &dyn RecordBatch, index: usize| {
            let header =
                batch.record(index).headers().get("trace").and_then(|header| header.value.map(<[u8]>::len));
            header == Some(HEADER)
        };
        let readable = member
            .kept
            .iter()
            .map(|batch| (0..batch.len()).filter(|index| header_is_there(&**batch, *index)).count());
        assert_eq!(readable.sum::<usize>(), RECORDS + RECORDS / 3 + 2, "{settings:?}");
    }
}

/// How many of `messages` librdkafka prefetches while nothing is polled.
async fn prefetched(messages: &[Message], prefetch_bytes: usize) -> usize {
    let cluster = Cluster::start(1);
    cluster.produce_all(PLAIN, 0, messages);
    let mut options = cluster.options(KIP_848);
    options.client.prefetch_bytes = prefetch_bytes;
    let mut member = Driver::connect(&options).await;
    member.polls = false;
    member.owns(1).await;
    member.during(Duration::from_secs(4)).await;
    let records = |fetched: Fetched| match fetched {
        Fetched::Records { batch, .. } => batch.len(),
        _ => 0,
    };
    member.queue.poll(10_000).into_iter().flatten().map(records).sum()
}

#[tokio::test]
async fn large_keys_bound_the_prefetch() {
    let message = Message { key: vec![b'k'; 4_000], ..Message::default() };
    let prefetched = prefetched(&vec![message; 2_000], 1 << 20).await;
    assert!((1..600).contains(&prefetched), "{prefetched} records of 4 KB");
}

#[tokio::test]
async fn large_headers_bound_the_prefetch() {
    let header = Some(vec![b'h'; HEADER]);
    let message = Message { payload: vec![b'x'; 100], header, ..Message::default() };
    let prefetched = prefetched(&vec![message; 2_000], 1 << 20).await;
    assert!((1..600).contains(&prefetched), "{prefetched} records of 4 KB");
}
