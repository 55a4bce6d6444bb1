//! A queue of librdkafka with a wake-up.

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer;
use tokio::sync::Notify;

use crate::client::errors::retryable;
use crate::client::handle::ClientRef;
use crate::error::Error;

/// A queue of librdkafka with a wake-up.
pub(in crate::client) struct Queue {
    pub(super) handle: NonNull<rd::rd_kafka_queue_t>,
    wake: Arc<Notify>,
    pub(super) client: ClientRef,
}

// SAFETY: librdkafka's queues may be used, and released, from any thread; they lock themselves.
unsafe impl Send for Queue {}
// SAFETY: as above; every method accesses the queue under its lock.
unsafe impl Sync for Queue {}

/// See invariant 4.
unsafe extern "C" fn wake_up(_: *mut rd::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the queue's `Arc<Notify>`, alive while the callback is enabled (invariant
    // 3).
    unsafe { &*opaque.cast::<Notify>() }.notify_one();
}

impl Queue {
    /// A new queue of the client.
    ///
    /// # Errors
    /// librdkafka is out of memory.
    pub(in crate::client) fn new(client: ClientRef) -> Result<Self, Error> {
        let wake = Arc::new(Notify::new());
        // SAFETY: the client is alive; `wake` is owned by the value that is returned (invariant 3).
        let handle = unsafe {
            let Some(handle) = NonNull::new(rd::rd_kafka_queue_new(client.get().client().native_ptr()))
            else {
                return Err(retryable("creating a queue", "out of memory"));
            };
            rd::rd_kafka_queue_cb_event_enable(
                handle.as_ptr(),
                Some(wake_up),
                Arc::as_ptr(&wake).cast_mut().cast(),
            );
            handle
        };
        Ok(Self { handle, wake, client })
    }

    /// Forwards the messages of a partition to this queue, instead of to the client's own queue.
    /// Must be called before each assignment of the partition. `false`: the topic name or the
    /// partition number is invalid.
    pub(in crate::client) fn forward(&self, topic: &str, partition: i32) -> bool {
        self.forward_to(topic, partition, self.handle.as_ptr())
    }

    /// Ends the forwarding, as librdkafka does when it stops the partition's fetcher.
    #[cfg(test)]
    pub(in crate::client) fn forward_nowhere(&self, topic: &str, partition: i32) -> bool {
        self.forward_to(topic, partition, ptr::null_mut())
    }

    /// `to` is null or this queue.
    fn forward_to(&self, topic: &str, partition: i32, to: *mut rd::rd_kafka_queue_t) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: the client and this queue are alive; the partition's handle is released before
        // returning, which leaves the forwarding in place.
        unsafe {
            let client = self.client.get().client().native_ptr();
            let queue = rd::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
            if queue.is_null() {
                return false;
            }
            rd::rd_kafka_queue_forward(queue, to);
            rd::rd_kafka_queue_destroy(queue);
        }
        true
    }

    /// Resolves when the queue has become non-empty since it was last found empty. Cancel safe.
    pub(in crate::client) async fn readable(&self) {
        self.wake.notified().await;
    }

    /// Lets `readable` resolve.
    pub(in crate::client) fn wake(&self) {
        self.wake.notify_one();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: disables the callback before `wake` is dropped (invariant 3), then releases the
        // handle, once.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.handle.as_ptr(), None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.handle.as_ptr());
        }
    }
}
