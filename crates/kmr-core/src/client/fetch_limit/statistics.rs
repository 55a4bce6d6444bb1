//! What librdkafka's statistics show about fetched records.

/// What a client has received since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Bytes of all responses, as on the wire.
    pub(super) wire_bytes: u64,
    /// Bytes of keys and payloads, unpacked.
    pub(super) content_bytes: u64,
    pub(super) records: u64,
}

impl Totals {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            wire_bytes: self.wire_bytes.saturating_sub(before.wire_bytes),
            content_bytes: self.content_bytes.saturating_sub(before.content_bytes),
            records: self.records.saturating_sub(before.records),
        }
    }

    /// Memory of what was received, if a record takes `per_record` bytes besides its content.
    pub(super) fn weight(&self, per_record: u64) -> u64 {
        self.content_bytes + self.records * per_record
    }
}

/// The most that one partition of a topic had of one response, since the statistics before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    content_bytes: u64,
    /// Maybe of another response.
    records: u64,
}

impl Share {
    /// Memory of the share, as in [`Totals::weight`].
    pub(super) fn weight(&self, per_record: u64) -> u64 {
        self.content_bytes + self.records * per_record
    }
}

/// The statistics of one moment.
#[derive(Debug)]
pub(super) struct Statistics {
    pub(super) totals: Totals,
    /// One for each topic.
    pub(super) shares: Vec<Share>,
    /// Whether the client fetches a partition that has records, or may have some, and has received
    /// none of it yet.
    pub(super) has_unread: bool,
}

impl Statistics {
    /// Reads librdkafka's JSON, which has the totals after its topics. `None`: it is not as
    /// expected.
    pub(super) fn of(json: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(json).ok()?;
        let last = |name: &str| number(&text[text.rfind(name)? + name.len()..]);
        let totals = Totals {
            wire_bytes: last("\"rx_bytes\":")?,
            content_bytes: last("\"rxmsg_bytes\":")?,
            records: last("\"rxmsgs\":")?,
        };
        // librdkafka adds a value to both for each partition in a response
        // (`rd_kafka_msgset_parse`), however many batches it has of it.
        let shares = text.split("\"batchsize\":").skip(1).filter_map(|topic| {
            let (sizes, counts) = topic.split_once("\"batchcnt\":")?;
            Some(Share { content_bytes: max(sizes)?, records: max(counts)? })
        });
        let has_unread = text.split("\"fetch_state\":").skip(1).any(is_unread);
        Some(Self { totals, shares: shares.collect(), has_unread })
    }
}

/// Whether this is a partition of [`Statistics::has_unread`]. `partition` starts with its fetch
/// state, and may end with other partitions.
fn is_unread(partition: &str) -> bool {
    let of = |name: &str| number(&partition[partition.find(name)? + name.len()..]);
    if !partition.starts_with("\"active\"") || of("\"rxmsgs\":") != Some(0) {
        return false;
    }
    // Both are negative before the first response that names the partition.
    let (next, end) = (of("\"next_offset\":"), of("\"hi_offset\":"));
    end.is_none() || next < end
}

fn max(values: &str) -> Option<u64> {
    number(values.split_once("\"max\":")?.1)
}

fn number(text: &str) -> Option<u64> {
    text[..text.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form of librdkafka 2.12, without the fields that are not read.
    const STATISTICS: &str = r#"{ "name": "rdkafka#consumer-1", "brokers":{
        "b:9092/1": { "name":"b:9092/1", "rxbytes":9000, "rtt": { "min":1, "max":77, "avg":3} } },
        "topics":{ "orders": { "topic":"orders", "age":7,
          "batchsize": { "min":10, "max":5000, "avg":100, "sum":9}, "batchcnt": { "min":1, "max":40, "avg":3},
          "partitions":{ "0": { "partition":0, "fetch_state":"active", "query_offset":-1001, "next_offset":17,
            "hi_offset":20, "ls_offset":20, "rxmsgs":7, "rxbytes":8} } },
        "other": { "topic":"other",
          "batchsize": { "min":0, "max":0, "avg":0}, "batchcnt": { "min":0, "max":0, "avg":0},
          "partitions":{} } }, "rx":3, "rx_bytes":12345, "txmsgs":0, "rxmsgs":55, "rxmsg_bytes":66000}"#;

    #[test]
    fn totals_and_the_largest_shares_of_topics_are_read() {
        let statistics = Statistics::of(STATISTICS.as_bytes()).unwrap();
        let totals = Totals { wire_bytes: 12345, content_bytes: 66000, records: 55 };
        assert_eq!(statistics.totals, totals);
        let weights: Vec<u64> = statistics.shares.iter().map(|share| share.weight(100)).collect();
        assert_eq!(weights, [9000, 0]);
        assert!(!statistics.has_unread);
        for unreadable in [&b"{}"[..], b"{\"rx_bytes\":", &[0xff]] {
            assert!(Statistics::of(unreadable).is_none());
        }
    }

    #[test]
    fn a_fetched_partition_without_a_received_record_is_unread() {
        let is_unread = |state: &str, next: i64, end: i64, received: u64| {
            let partition = format!(
                "\"fetch_state\":\"{state}\", \"next_offset\":{next}, \"hi_offset\":{end}, \"rxmsgs\":{received}"
            );
            let json = STATISTICS
                .replace("\"partitions\":{}", &format!("\"partitions\":{{ \"5\": {{ {partition} }} }}"));
            Statistics::of(json.as_bytes()).unwrap().has_unread
        };
        assert!(is_unread("active", 0, 10, 0));
        assert!(is_unread("active", 3, -1001, 0) && is_unread("active", -1001, -1001, 0), "no response yet");
        assert!(!is_unread("active", 10, 10, 0), "nothing to read");
        assert!(!is_unread("active", 0, 10, 1));
        assert!(!is_unread("stopped", 0, 10, 0) && !is_unread("none", -1001, -1001, 0));
    }
}
