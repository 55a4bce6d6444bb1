//! Adds bootstrap servers to a client.

use std::ffi::CStr;

use rdkafka::ClientContext;
use rdkafka::bindings as rd;

/// Adds servers to those that the client starts from. librdkafka ignores servers that it already
/// has as bootstrap servers.
pub(in crate::client) fn add_brokers<C: ClientContext>(client: &rdkafka::client::Client<C>, servers: &CStr) {
    // SAFETY: the client is alive; librdkafka copies the text, and locks its list itself.
    unsafe { rd::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}
