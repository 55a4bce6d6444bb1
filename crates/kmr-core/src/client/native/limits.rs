//! Changes a limit of a running client.

use std::ffi::{CString, c_char};

use rdkafka::ClientContext;
use rdkafka::bindings as rd;

/// Sets `fetch.max.bytes` for the next fetch requests of the client.
///
/// # Errors
/// librdkafka's reason, if it rejects the value.
pub(in crate::client) fn set_fetch_max_bytes<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    bytes: usize,
) -> Result<(), String> {
    let value = CString::new(bytes.to_string()).unwrap_or_default();
    let mut reason: [c_char; 256] = [0; 256];
    // SAFETY: the client is alive, and with it its configuration (`rd_kafka_t::rk_conf`), which is
    // not constant memory. librdkafka calls it read-only, because most settings have no effect
    // later and texts would be freed under their readers. For this setting, `rd_kafka_conf_set`
    // stores one aligned `int` (`rd_kafka_anyconf_set_prop0`) and sets a bit that only a dump of
    // the settings reads. The broker threads load the `int` once for each request
    // (`rd_kafka_broker_fetch_toppars`), and either value is valid there. There is no other way to
    // change it without a new client, which is a rebalance of the group. Name, value and `reason`
    // are valid for the call.
    let result = unsafe {
        let settings = rd::rd_kafka_conf(client.native_ptr()).cast_mut();
        let (name, reason, size) = (c"fetch.max.bytes".as_ptr(), reason.as_mut_ptr(), reason.len());
        rd::rd_kafka_conf_set(settings, name, value.as_ptr(), reason, size)
    };
    if result == rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
        return Ok(());
    }
    // SAFETY: librdkafka has written a C string.
    Err(unsafe { super::raw::text(reason.as_ptr()) })
}
