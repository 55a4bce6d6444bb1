//! The headers of a message that rdkafka returned.

use std::borrow::Cow;
use std::ffi::CStr;
use std::ptr;

use rdkafka::Message;
use rdkafka::bindings as rd;
use rdkafka::message::BorrowedMessage;

use super::raw::{bytes, rd_kafka_header_get_all};

/// Names and values of a message's headers, in their order. Bytes of a name that are not UTF-8
/// become U+FFFD: Kafka allows any bytes, and rdkafka's own iterator panics.
pub fn message_headers<'m>(message: &'m BorrowedMessage<'_>) -> Vec<(Cow<'m, str>, Option<&'m [u8]>)> {
    let Some(headers) = message.headers() else { return Vec::new() };
    // rdkafka's type is librdkafka's list itself, at its address: see its `as_native_ptr`.
    let list = ptr::from_ref(headers).cast::<rd::rd_kafka_headers_t>();
    let mut found = Vec::new();
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list and what it points to live as long as the message. The out pointers are
        // valid; they are written when the call returns 0, which it does up to the last header.
        unsafe {
            if rd_kafka_header_get_all(list, found.len(), &raw mut name, &raw mut value, &raw mut size) != 0 {
                return found;
            }
            found.push((CStr::from_ptr(name).to_string_lossy(), bytes(value.cast_mut(), size)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, Producer};
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;
    use rd::rd_kafka_vtype_t::{RD_KAFKA_VTYPE_END, RD_KAFKA_VTYPE_HEADER, RD_KAFKA_VTYPE_TOPIC};

    #[test]
    fn a_name_that_is_not_utf_8_is_read() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("group.id", "g");
        let producer: BaseProducer = config.create().unwrap();
        // rdkafka's own call takes names as `str`.
        // SAFETY: the client is alive; the types of the arguments are those of their tags.
        unsafe {
            rd::rd_kafka_producev(
                producer.client().native_ptr(),
                RD_KAFKA_VTYPE_TOPIC as c_int,
                c"t".as_ptr(),
                RD_KAFKA_VTYPE_HEADER as c_int,
                c"a".as_ptr(),
                c"1".as_ptr(),
                1_isize,
                RD_KAFKA_VTYPE_HEADER as c_int,
                c"\xff".as_ptr(),
                ptr::null::<u8>(),
                0_isize,
                RD_KAFKA_VTYPE_END as c_int,
            );
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let message = consumer.poll(Duration::from_secs(30)).unwrap().unwrap();
        let headers = message_headers(&message);
        assert_eq!(headers, [("a".into(), Some(&b"1"[..])), ("\u{fffd}".into(), None)]);
    }
}
