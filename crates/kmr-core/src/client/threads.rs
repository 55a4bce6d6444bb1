//! The two threads of a client: one polls, so that the group sees a live member and callbacks run; one makes the calls that
//! block, so that no Tokio worker ever does. A panic on either, in a `tracing` subscriber that a callback reaches, say, ends the
//! consumer with an error that names the thread (L1).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Message, Offset};
use tokio::sync::oneshot;

use super::context::{Client, Context, decline};
use super::fetcher::list;
use crate::error::Error;
use crate::member::Rebalance;
use crate::telemetry;
use crate::util::panic::panic_message;

const CONTROL: &str = "kmr-kafka-control";
const POLLING: &str = "kmr-kafka-poll";
/// How long one poll waits: bounds the delay of the end, nothing else; events end a poll at once.
const POLL: Duration = Duration::from_millis(100);
/// How long leaving the group may take before the client is given up.
const CLOSE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(&Client) + Send>;

/// A reference to the client, and the way to its control thread, which owns it: dropping the client blocks, so that happens
/// there, when the last reference is gone.
#[derive(Clone)]
pub(super) struct ClientRef {
    // First: when the last sender goes, and the control thread ends, nobody else has the client any more.
    client: Arc<Client>,
    jobs: mpsc::Sender<Job>,
}

impl ClientRef {
    /// The client.
    pub(super) fn get(&self) -> &Client {
        &self.client
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
        self.spawn_call(move |client| drop(reply.send(call(client))));
        answer.await.map_err(|_| Error::Client {
            operation: what.to_owned(),
            source: "the call has ended without an answer".into(),
            retryable: true,
        })
    }
}

/// The threads of one client. Dropping it ends the polling; the control thread ends with the last reference.
pub(super) struct Threads {
    ends: Arc<AtomicBool>,
}

impl Threads {
    /// Starts both.
    pub(super) fn start(client: Client) -> Result<(Self, ClientRef), Error> {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let client = ClientRef { client: Arc::new(client), jobs };
        let owned = client.client.clone();
        spawn(CONTROL, move || control(&owned, &receiver))?;
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

/// Runs a piece of a thread's work. A panic is the consumer's end: `false`.
fn guarded(context: &Context, task: &str, work: impl FnOnce()) -> bool {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(()) => return true,
        Err(panic) => panic,
    };
    context.report_fatal(Error::TaskPanicked { task: task.to_owned(), message: panic_message(&*panic) });
    false
}

/// Makes calls as long as there are references. Then the client is dropped, on this thread.
fn control(client: &Client, jobs: &mpsc::Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        // A call that panics is one without an answer; leaving the group and dropping the client are up to this thread all the same.
        guarded(client.context(), CONTROL, || job(client));
    }
    // Nobody is left to answer a rebalance (R3), and the drop revokes what is still assigned and waits for the answer: without
    // this it would wait for ever, and the member would stay in the group with its partitions.
    if let Some(unanswered) = client.context().close() {
        let _ = leave(client, Some(&unanswered));
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| Error::Client {
        operation: format!("starting thread {name}"),
        source: error.into(),
        retryable: true,
    })
}

/// Polls until told to end: serves callbacks, and is what `max.poll.interval.ms` watches.
fn poll(client: &Client, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) && guarded(client.context(), POLLING, || poll_once(client)) {}
}

fn poll_once(client: &Client) {
    client.context().bootstrap.keep(client.client());
    match client.poll(POLL) {
        None => {}
        Some(Ok(message)) => {
            // Every partition is forwarded before it is assigned, so this cannot be. If it is: librdkafka counts the record as
            // handed out, so going on would skip it.
            let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
            client.context().report_fatal(Error::Client {
                operation: format!("{topic}/{partition} offset {offset}"),
                source: "the record came through the wrong queue; stopping, so that it is read again".into(),
                retryable: true,
            });
        }
        Some(Err(error)) => client.context().poll_failed(&error),
    }
}

/// Leaves the group; to be called on the control thread. From here on the callback answers rebalances; `unanswered` is one that
/// waits already, for partitions that are drained or given up by now.
pub(super) fn leave(client: &Client, unanswered: Option<&Rebalance>) -> Result<(), Error> {
    let failed = |reason: String| Error::Client {
        operation: "leaving the group".to_owned(),
        source: reason.into(),
        retryable: true,
    };
    // After a fatal error there is no group to leave; the client goes all the same.
    if client.client().fatal_error().is_some() {
        return Ok(());
    }
    // Before closing, which waits for the answer, and answers nothing when it is done: a call that comes then never returns.
    if let Some(Rebalance { change, protocol, partitions, .. }) = unanswered {
        let places = partitions.iter().map(|partition| (partition.clone(), Offset::Invalid)).collect();
        decline(client, *change, *protocol, &list(&places)?);
    }
    client.close_queue().map_err(|error| failed(error.to_string()))?;
    let deadline = Instant::now() + CLOSE;
    while !client.closed() {
        if Instant::now() >= deadline {
            return Err(failed(format!("not done within {CLOSE:?}")));
        }
        // The other thread may have ended by now, and leaving takes callbacks.
        if let Some(Err(error)) = client.poll(Duration::from_millis(5)) {
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
    use crate::member::MemberEvent;

    fn panicked(event: Option<MemberEvent>) -> (String, String) {
        match event {
            Some(MemberEvent::Fatal(Error::TaskPanicked { task, message })) => (task, message),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_the_control_thread_goes_on() {
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let mut config = rdkafka::ClientConfig::new();
        config.set("group.id", "g");
        let client =
            Client::from_config_and_context(&config, Context::new(sender, None, Bootstrap::new(""))).unwrap();
        assert!(!guarded(client.context(), POLLING, || panic!("subscriber")));
        assert_eq!(panicked(events.recv().await), (POLLING.to_owned(), "subscriber".to_owned()));
        let (_threads, client) = Threads::start(client).unwrap();
        client.spawn_call(|_| panic!("nobody waits"));
        assert_eq!(panicked(events.recv().await), (CONTROL.to_owned(), "nobody waits".to_owned()));
        let answer: Result<(), Error> = client.call("a call", |_| panic!("somebody waits")).await;
        assert!(answer.is_err());
        assert_eq!(panicked(events.recv().await), (CONTROL.to_owned(), "somebody waits".to_owned()));
        assert_eq!(client.call("the next", |_| 7).await.ok(), Some(7));
    }
}
