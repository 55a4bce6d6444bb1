//! The ceiling of consuming: librdkafka's batches, with its own or with kmr's fetch settings. Each
//! message is freed, and nothing else is done.
//!
//! This is the only unsafe code of this benchmark besides the clock. One thread makes all calls.
//! [`Client::drop`] releases every handle in the order that librdkafka requires: queue, consumer,
//! client.
#![allow(unsafe_code, reason = "rust-rdkafka has no safe call for batches")]

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::bindings as rd;

use crate::shared::job::Job;
use crate::shared::meter::Meter;

/// Messages per call, as in kmr.
const BATCH: usize = 1_024;

/// Timeout of one call, in milliseconds.
const WAIT_MS: i32 = 1_000;

/// Reads all records of the topic.
pub(crate) fn consume(job: &Job) -> Result<()> {
    let mut meter = Meter::new(job.records, Duration::ZERO);
    let own = [
        ("bootstrap.servers", job.broker.as_str()),
        ("group.id", &job.group),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let client = Client::new(own.into_iter().chain(job.fetch()))?;
    client.subscribe(&job.topic)?;
    let mut messages = vec![ptr::null_mut(); BATCH];
    let mut done = 0;
    while !meter.is_done() {
        done += client.batch(&mut messages)?;
        meter.reached(done);
    }
    drop(client);
    meter.print()
}

/// A consumer of librdkafka. Both pointers are valid until it is dropped.
struct Client {
    client: *mut rd::rd_kafka_t,
    queue: *mut rd::rd_kafka_queue_t,
}

impl Client {
    fn new(settings: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut text = [0; 512];
        // SAFETY: the strings outlive the calls, and `text` has the given length. `rd_kafka_new`
        // takes ownership of the configuration when it succeeds. On an error this process ends, and
        // the configuration with it.
        unsafe {
            let config = rd::rd_kafka_conf_new();
            for (name, value) in settings {
                let (name, value) = (CString::new(name)?, CString::new(value)?);
                let (name, value) = (name.as_ptr(), value.as_ptr());
                let set = rd::rd_kafka_conf_set(config, name, value, text.as_mut_ptr(), text.len());
                if set != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                    bail!("{}", CStr::from_ptr(text.as_ptr()).to_string_lossy());
                }
            }
            let kind = rd::rd_kafka_type_t::RD_KAFKA_CONSUMER;
            let client = rd::rd_kafka_new(kind, config, text.as_mut_ptr(), text.len());
            if client.is_null() {
                bail!("{}", CStr::from_ptr(text.as_ptr()).to_string_lossy());
            }
            rd::rd_kafka_poll_set_consumer(client);
            Ok(Self { client, queue: rd::rd_kafka_queue_get_consumer(client) })
        }
    }

    fn subscribe(&self, topic: &str) -> Result<()> {
        let topic = CString::new(topic)?;
        // SAFETY: the client is alive, the list is released, and librdkafka copies it.
        let code = unsafe {
            let topics = rd::rd_kafka_topic_partition_list_new(1);
            rd::rd_kafka_topic_partition_list_add(topics, topic.as_ptr(), -1);
            let code = rd::rd_kafka_subscribe(self.client, topics);
            rd::rd_kafka_topic_partition_list_destroy(topics);
            code
        };
        if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            bail!("subscribing: {code:?}");
        }
        Ok(())
    }

    /// Consumes a batch, frees it, and returns its number of messages. The same call serves
    /// rebalances.
    fn batch(&self, messages: &mut [*mut rd::rd_kafka_message_t]) -> Result<u64> {
        // SAFETY: the queue is alive, and `messages` has the given length.
        let consumed = unsafe {
            rd::rd_kafka_consume_batch_queue(self.queue, WAIT_MS, messages.as_mut_ptr(), messages.len())
        };
        let consumed = usize::try_from(consumed).context("consuming a batch")?;
        let mut good = 0;
        for message in messages.iter().take(consumed) {
            // SAFETY: librdkafka has just returned this message, and it is not used after it is
            // freed here.
            let code = unsafe {
                let code = (**message).err;
                rd::rd_kafka_message_destroy(*message);
                code
            };
            if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                bail!("consuming: {code:?}");
            }
            good += 1;
        }
        Ok(good)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the handles are alive until here, and all messages are freed.
        unsafe {
            rd::rd_kafka_queue_destroy(self.queue);
            rd::rd_kafka_consumer_close(self.client);
            rd::rd_kafka_destroy(self.client);
        }
    }
}
