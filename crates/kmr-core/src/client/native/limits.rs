//! Changes limits of a running client.

use std::ffi::{CString, c_char};

use rdkafka::ClientContext;
use rdkafka::bindings as rd;

/// A setting that can be changed.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) enum Limit {
    /// Bytes of a fetch response.
    FetchMaxBytes,
    /// Records in the fetch queue, above which no more are requested.
    QueuedMinMessages,
}

impl Limit {
    /// Its name in librdkafka.
    pub(in crate::client) fn name(self) -> &'static str {
        match self {
            Self::FetchMaxBytes => "fetch.max.bytes",
            Self::QueuedMinMessages => "queued.min.messages",
        }
    }
}

/// Sets a limit for the next fetch requests of the client.
///
/// # Errors
/// librdkafka's reason, if it rejects the value.
pub(in crate::client) fn set_limit<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    limit: Limit,
    value: usize,
) -> Result<(), String> {
    let name = CString::new(limit.name()).unwrap_or_default();
    let value = CString::new(value.to_string()).unwrap_or_default();
    let mut reason: [c_char; 256] = [0; 256];
    // SAFETY: the client is alive, and with it its configuration (`rd_kafka_t::rk_conf`), which is
    // not constant memory. librdkafka calls it read-only, because most settings have no effect
    // later and texts would be freed under their readers. For these settings, `rd_kafka_conf_set`
    // stores one aligned `int` (`rd_kafka_anyconf_set_prop0`) and sets a bit that only a dump of
    // the settings reads. The broker threads load the `int` for each request and for each decision
    // whether to fetch a partition (`rd_kafka_broker_fetch_toppars`,
    // `rd_kafka_toppar_fetch_decide`), and either value is valid there. There is no other way to
    // change it without a new client, which is a rebalance of the group. Name, value and `reason`
    // are valid for the call.
    let result = unsafe {
        let settings = rd::rd_kafka_conf(client.native_ptr()).cast_mut();
        let (reason, size) = (reason.as_mut_ptr(), reason.len());
        rd::rd_kafka_conf_set(settings, name.as_ptr(), value.as_ptr(), reason, size)
    };
    if result == rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
        return Ok(());
    }
    // SAFETY: librdkafka has written a C string.
    Err(unsafe { super::raw::text(reason.as_ptr()) })
}
