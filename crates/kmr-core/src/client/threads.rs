//! The two threads of a client: one polls, so that the group sees a live member and callbacks run; one makes the calls that
//! block, so that no Tokio worker ever does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::Consumer;
use tokio::sync::oneshot;

use super::context::Client;
use crate::error::Error;
use crate::telemetry;

/// How long one poll waits: bounds the delay of the end, nothing else; events end a poll at once.
const POLL: Duration = Duration::from_millis(100);
/// How long leaving the group may take before the client is given up.
const CLOSE: Duration = Duration::from_secs(10);

/// A reference to the client. Dropping the last one blocks until the client is gone, so that happens on a thread of its own.
#[derive(Clone)]
pub(super) struct ClientRef(Option<Arc<Client>>);

impl ClientRef {
    pub(super) fn new(client: Client) -> Self {
        Self(Some(Arc::new(client)))
    }

    /// The client.
    pub(super) fn get(&self) -> &Client {
        match &self.0 {
            Some(client) => client,
            None => unreachable!("only `drop` takes the client"),
        }
    }
}

impl Drop for ClientRef {
    fn drop(&mut self) {
        if let Some(client) = self.0.take().and_then(Arc::into_inner) {
            // If no thread can be had, dropping it here is slow, but right.
            let _ = thread::Builder::new().name("kmr-client-drop".to_owned()).spawn(move || {
                // Nobody is left to answer a rebalance (R3), and the drop revokes what is still assigned and waits for the
                // answer: without this it would wait for ever, and the member would stay in the group with its partitions.
                if client.context().close() {
                    let _ = leave(&client, true);
                }
                drop(client);
            });
        }
    }
}

type Job = Box<dyn FnOnce(&Client) + Send>;

/// The threads of one client.
pub(super) struct Threads {
    jobs: mpsc::Sender<Job>,
    ends: Arc<AtomicBool>,
}

impl Threads {
    /// Starts both.
    pub(super) fn start(client: &ClientRef) -> Result<Self, Error> {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let ends = Arc::new(AtomicBool::new(false));
        spawn("kmr-kafka-poll", {
            let (client, ends) = (client.clone(), ends.clone());
            move || poll(client.get(), &ends)
        })?;
        let client = client.clone();
        spawn("kmr-kafka-control", move || {
            while let Ok(job) = receiver.recv() {
                job(client.get());
            }
        })?;
        Ok(Self { jobs, ends })
    }

    /// Makes a blocking call on the control thread and does not wait for it.
    pub(super) fn spawn_call(&self, call: impl FnOnce(&Client) + Send + 'static) {
        let _ = self.jobs.send(Box::new(call));
    }

    /// Makes a blocking call on the control thread. Dropping the future does not take the call back.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&Client) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(Box::new(move |client| drop(reply.send(call(client)))));
        answer.await.map_err(|_| Error::Client {
            what: what.to_owned(),
            reason: "the control thread has ended".to_owned(),
            retryable: true,
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| Error::Client {
        what: format!("starting thread {name}"),
        reason: error.to_string(),
        retryable: true,
    })
}

/// Polls until told to end: serves callbacks, and is what `max.poll.interval.ms` watches.
fn poll(client: &Client, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) {
        match client.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                // Every partition is forwarded before it is assigned, so this cannot be. If it is: librdkafka counts the
                // record as handed out, so going on would skip it.
                let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                client.context().report_fatal(Error::Client {
                    what: format!("{topic}/{partition} offset {offset}"),
                    reason: "the record came through the wrong queue; stopping, so that it is read again"
                        .to_owned(),
                    retryable: true,
                });
            }
            Some(Err(error)) => client.context().poll_failed(&error),
        }
    }
}

/// Leaves the group; to be called on the control thread, while the other goes on polling. From here on the callback answers
/// rebalances; `unanswered`: one waits already, for partitions that are drained or given up by now.
pub(super) fn leave(client: &Client, unanswered: bool) -> Result<(), Error> {
    let failed =
        |reason: String| Error::Client { what: "leaving the group".to_owned(), reason, retryable: true };
    // After a fatal error there is no group to leave; the client goes all the same.
    if client.client().fatal_error().is_some() {
        return Ok(());
    }
    client.close_queue().map_err(|error| failed(error.to_string()))?;
    if unanswered {
        // Only now: before, librdkafka would refuse a full unassign in a cooperative group, and wait for the answer for ever.
        let _ = client.unassign();
    }
    let deadline = Instant::now() + CLOSE;
    while !client.closed() {
        if Instant::now() >= deadline {
            return Err(failed(format!("not done within {CLOSE:?}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    telemetry::left_group();
    Ok(())
}
