//! The end of a partition's log, as the client knows it.

use std::ffi::CString;

use super::raw::rd_kafka_get_watermark_offsets;
use rdkafka::ClientContext;

/// The high watermark of the last fetch response. `None`: nothing was fetched yet, or the partition
/// is unknown. Takes two locks of librdkafka for a moment, and sends no request.
pub(in crate::client) fn log_end<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive. The name and both out pointers are valid for the call.
    let result = unsafe {
        let (low, high) = (&raw mut low, &raw mut high);
        rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, low, high)
    };
    (result == 0 && high >= 0).then_some(high)
}
