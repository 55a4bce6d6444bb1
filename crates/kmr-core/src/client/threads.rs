//! The two threads of a client. One polls, so that the group sees a live member and callbacks run.
//! The other makes the calls that block, so that no Tokio worker does.
//!
//! Supervised tasks (L1): a panic on either thread, for example in a `tracing` subscriber that a
//! callback reaches, ends the consumer with an error that names the thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::Consumer;

use super::context::{Client, Context, decline};
use super::errors::retryable;
use super::handle::{ClientRef, Job};
use super::live_clients::LiveClient;
use super::partition_list::{native_list, without_offsets};
use super::timeouts;
use crate::error::Error;
use crate::member::Rebalance;
use crate::telemetry;
use crate::util::panic::panic_message;

const CONTROL: &str = "kmr-kafka-control";
const POLLING: &str = "kmr-kafka-poll";
/// How long one poll waits. It bounds only the delay at the end, because an event ends a poll at
/// once.
const POLL: Duration = Duration::from_millis(100);
/// Between two checks of whether the group is left.
const LEAVE_POLL: Duration = Duration::from_millis(5);

/// The threads of one client. Dropping this ends the polling. The control thread ends with the last
/// reference to the client.
pub(super) struct Threads {
    ends: Arc<AtomicBool>,
}

impl Threads {
    /// Starts both threads.
    pub(super) fn start(client: Client, live: LiveClient) -> Result<(Self, ClientRef), Error> {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let owned = Arc::new(client);
        let client = ClientRef::new(owned.clone(), jobs);
        spawn(CONTROL, move || {
            control(&owned, &receiver);
            drop(owned);
            drop(live);
        })?;
        let ends = Arc::new(AtomicBool::new(false));
        let (polled, stop) = (client.clone(), ends.clone());
        spawn(POLLING, move || poll(polled.get(), &stop))?;
        Ok((Self { ends }, client))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
    }
}

/// Runs part of a thread's work. `false`: it panicked, which ends the consumer.
fn guarded(context: &Context, task: &str, work: impl FnOnce()) -> bool {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(()) => return true,
        Err(panic) => panic,
    };
    context.report_fatal(Error::TaskPanicked { task: task.to_owned(), message: panic_message(&*panic) });
    false
}

/// Makes calls as long as references to the client exist. Then this thread drops the client.
fn control(client: &Client, jobs: &mpsc::Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        // A call that panics has no result. This thread still has to leave the group and to drop
        // the client.
        guarded(client.context(), CONTROL, || job(client));
    }
    // No task is left to answer a rebalance: answered in time (R3). The drop revokes what is still
    // assigned and waits for the answer. Without this it would wait forever, and the member would
    // stay in the group with its partitions.
    if let Some(unanswered) = client.context().close() {
        let _ = leave(client, Some(&unanswered));
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| retryable(format!("starting thread {name}"), error))
}

/// Polls until `ends`. Polling serves callbacks, and `max.poll.interval.ms` bounds the time between
/// two polls.
fn poll(client: &Client, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) && guarded(client.context(), POLLING, || poll_once(client)) {}
}

fn poll_once(client: &Client) {
    client.context().bootstrap.add_if_due(client.client());
    client.context().credentials.apply(client.client());
    if let Err(error) = client.context().fetch_limit.apply(client.client()) {
        client.context().report_fatal(error);
    }
    match client.poll(POLL) {
        None => {}
        Some(Ok(message)) => {
            // Every partition is forwarded before it is assigned, so this should not happen.
            // librdkafka counts the record as consumed, so continuing would skip it.
            let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
            client.context().report_fatal(retryable(
                format!("{topic}/{partition} offset {offset}"),
                "the record arrived in the wrong queue; stopping, so that it is read again",
            ));
        }
        Some(Err(error)) => client.context().poll_failed(&error),
    }
}

/// Leaves the group. Must be called on the control thread. From here on the callback answers
/// rebalances. `unanswered` is a rebalance that still waits for its answer. Its partitions are
/// drained or given up by now.
pub(super) fn leave(client: &Client, unanswered: Option<&Rebalance>) -> Result<(), Error> {
    // After a fatal error there is no group to leave. The client is dropped anyway.
    if client.client().fatal_error().is_some() {
        return Ok(());
    }
    // Before closing, which waits for this answer. After closing, librdkafka answers nothing, and a
    // call would never return.
    if let Some(Rebalance { change, protocol, partitions, .. }) = unanswered {
        decline(client, *change, *protocol, &native_list(&without_offsets(partitions))?);
    }
    client.close_queue().map_err(|error| retryable("leaving the group", error))?;
    let deadline = Instant::now() + timeouts::LEAVE;
    while !client.closed() {
        if Instant::now() >= deadline {
            return Err(retryable("leaving the group", format!("timed out after {:?}", timeouts::LEAVE)));
        }
        // The polling thread may have ended by now, and leaving needs the callbacks.
        if let Some(Err(error)) = client.poll(LEAVE_POLL) {
            client.context().poll_failed(&error);
        }
    }
    telemetry::left_group();
    Ok(())
}

#[cfg(test)]
mod tests {
    use rdkafka::config::FromClientConfigAndContext;

    use super::*;
    use crate::client::bootstrap::Bootstrap;
    use crate::client::credentials::Credentials;
    use crate::client::fetch_limit::FetchLimit;
    use crate::client::live_clients::LiveClients;
    use crate::member::MemberEvent;

    fn panicked(event: Option<MemberEvent>) -> (String, String) {
        match event {
            Some(MemberEvent::Fatal(Error::TaskPanicked { task, message })) => (task, message),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_the_control_thread_continues() {
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let mut config = rdkafka::ClientConfig::new();
        config.set("group.id", "g");
        let context =
            Context::new(sender, None, Bootstrap::new(""), Credentials::default(), FetchLimit::fixed());
        let client = Client::from_config_and_context(&config, context).unwrap();
        assert!(!guarded(client.context(), POLLING, || panic!("subscriber")));
        assert_eq!(panicked(events.recv().await), (POLLING.to_owned(), "subscriber".to_owned()));
        let (_threads, client) = Threads::start(client, LiveClients::default().count()).unwrap();
        client.spawn_call(|_| panic!("without a caller"));
        assert_eq!(panicked(events.recv().await), (CONTROL.to_owned(), "without a caller".to_owned()));
        let reply: Result<(), Error> = client.call("a call", |_| panic!("with a caller")).await;
        assert!(reply.is_err(), "the caller learns that its call has no result");
        assert_eq!(panicked(events.recv().await), (CONTROL.to_owned(), "with a caller".to_owned()));
        assert_eq!(client.call("the next", |_| 7).await.ok(), Some(7));
    }
}
