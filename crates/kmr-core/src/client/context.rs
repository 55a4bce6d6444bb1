//! librdkafka's callbacks, turned into events for the coordinator. Nothing is decided here, and nothing waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol as KafkaProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::mpsc;

use super::bootstrap::Bootstrap;
use crate::error::Error;
use crate::member::{Change, MemberEvent, Rebalance, RebalanceProtocol};
use crate::record::TopicPartition;
use crate::telemetry;

/// The client, with our callbacks.
pub(super) type Client = BaseConsumer<Context>;

/// What the callbacks share with the member.
pub(super) struct Context {
    events: mpsc::UnboundedSender<MemberEvent>,
    /// `None`: it is no member of any.
    group: Option<String>,
    rebalances: Mutex<Rebalances>,
    pub(super) bootstrap: Bootstrap,
    last_error: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// When which error code was a warning last.
    reported: Mutex<BTreeMap<i32, Instant>>,
    /// The same as `Rebalances::closing`, for callbacks that must not wait for an answer to a rebalance.
    leaving: AtomicBool,
}

/// While a broker is away, the client repeats itself many times a second: each error is a warning this often.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// Which rebalance waits for an answer (R5).
#[derive(Default)]
pub(super) struct Rebalances {
    last_id: u64,
    current: Option<Rebalance>,
    protocol: Option<RebalanceProtocol>,
    closing: bool,
}

impl Rebalances {
    fn is_current(&self, id: u64) -> bool {
        self.current.as_ref().is_some_and(|rebalance| rebalance.id == id)
    }
}

/// Answers a rebalance by keeping nothing of it, on the way out.
pub(super) fn decline(
    client: &Client,
    change: Change,
    protocol: RebalanceProtocol,
    list: &TopicPartitionList,
) {
    let empty = TopicPartitionList::new();
    let answered = match (change, protocol) {
        (Change::Assign, RebalanceProtocol::Eager) => client.assign(&empty),
        (Change::Assign, RebalanceProtocol::Cooperative) => client.incremental_assign(&empty),
        (Change::Revoke | Change::Lose, RebalanceProtocol::Eager) => client.unassign(),
        (Change::Revoke | Change::Lose, RebalanceProtocol::Cooperative) => client.incremental_unassign(list),
    };
    if let Err(error) = answered {
        telemetry::client_error(&format!("rebalance while closing: {error}"));
    }
}

impl Context {
    pub(super) fn new(
        events: mpsc::UnboundedSender<MemberEvent>,
        group: Option<String>,
        bootstrap: Bootstrap,
    ) -> Self {
        Self {
            events,
            group,
            rebalances: Mutex::default(),
            bootstrap,
            last_error: Mutex::new(None),
            reported: Mutex::default(),
            leaving: AtomicBool::new(false),
        }
    }

    /// Makes `answer` if the rebalance `id` still waits for one. The callback for the next one waits meanwhile.
    pub(super) fn answer<T>(&self, id: u64, answer: impl FnOnce() -> T) -> Option<T> {
        let mut rebalances = self.lock();
        if !rebalances.is_current(id) {
            return None;
        }
        let answered = answer();
        rebalances.current = None;
        Some(answered)
    }

    /// Whether nobody waits for this client any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Makes `change` to the assignment if no rebalance waits for its answer, which it would be taken for. It is given the
    /// protocol of the last rebalance.
    pub(super) fn undisturbed<T>(&self, change: impl FnOnce(Option<RebalanceProtocol>) -> T) -> Option<T> {
        let rebalances = self.lock();
        let undisturbed = rebalances.current.is_none() && !rebalances.closing;
        undisturbed.then(|| change(rebalances.protocol))
    }

    pub(super) fn is_current(&self, id: u64) -> bool {
        self.lock().is_current(id)
    }

    /// Whether the group is being left.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// From now on rebalances are answered by the callback itself. Returns the one that still waits for its answer.
    pub(super) fn close(&self) -> Option<Rebalance> {
        let mut rebalances = self.lock();
        rebalances.closing = true;
        self.leaving.store(true, Ordering::Relaxed);
        rebalances.current.take()
    }

    /// The client's last error report, for a start-up that does not succeed.
    pub(super) fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What polling returned in place of a message.
    pub(super) fn poll_failed(&self, error: &KafkaError) {
        let fatal = match error {
            KafkaError::MessageConsumptionFatal(
                code @ (RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId),
            ) => Some(Error::Client {
                operation: "staying in the group".to_owned(),
                source: format!("another member has the same group.instance.id ({code:?}); give each its own").into(),
                retryable: false,
            }),
            KafkaError::MessageConsumptionFatal(code) => {
                Some(client_error("consume", *code, a_new_client_may_help(*code)))
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                let group = self.group.as_ref();
                group.map(|group| Error::Authorization { resource: format!("group {group:?}") })
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Some(Error::Authorization { resource: "a subscribed topic".to_owned() })
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::InconsistentGroupProtocol) => Some(Error::Client {
                operation: format!("joining group {:?}", self.group.as_deref().unwrap_or_default()),
                source: "its other members use other assignment strategies; set partition.assignment.strategy to \
                         what they use, such as range".into(),
                retryable: false,
            }),
            other => {
                self.report(other.rdkafka_error_code(), &other.to_string());
                None
            }
        };
        if let Some(fatal) = fatal {
            self.report_fatal(fatal);
        }
    }

    pub(super) fn report_fatal(&self, error: Error) {
        let _ = self.events.send(MemberEvent::Fatal(error));
    }

    /// A warning, unless the same has been said a moment ago (polling repeats what the error callback has said), or the
    /// client is on its way out and its brokers are nobody's concern any more.
    fn report(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        let now = Instant::now();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let code = code.map(|code| code as i32);
        let again = code.and_then(|code| reported.get(&code)).is_some_and(|last| now - *last < WARN_AGAIN);
        if again || self.is_leaving() {
            telemetry::client_error_again(reason);
            return;
        }
        reported.extend(code.map(|code| (code, now)));
        telemetry::client_error(reason);
    }

    fn lock(&self) -> MutexGuard<'_, Rebalances> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a fatal error is this client's own: most come of its history in the group, these of settings and permissions.
fn a_new_client_may_help(code: RDKafkaErrorCode) -> bool {
    !matches!(
        code,
        RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::InvalidGroupId
            | RDKafkaErrorCode::InvalidRequest
            | RDKafkaErrorCode::UnsupportedAssignor
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::UnsupportedFeature
    )
}

/// An error of the client library, by its code.
pub(super) fn client_error(what: &str, code: RDKafkaErrorCode, retryable: bool) -> Error {
    Error::Client { operation: what.to_owned(), source: format!("{code} ({code:?})").into(), retryable }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        telemetry::client_log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.report(error.rdkafka_error_code(), reason);
        if let Some(code) = error.rdkafka_error_code() {
            self.bootstrap.heard(code);
            let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
            // What names the cause stays; "all brokers are down" follows every failure.
            if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
                *last = Some((code, reason.to_owned()));
            }
        }
    }
}

impl ConsumerContext for Context {
    /// Called on the polling thread. Returns without an answer: the partitions are drained first, while polling goes on, and
    /// the answer comes from the control thread. Draining in here would get the member thrown out of the group.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigns = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let mut rebalances = self.lock();
        let protocol = match consumer.rebalance_protocol() {
            KafkaProtocol::Eager => RebalanceProtocol::Eager,
            KafkaProtocol::Cooperative => RebalanceProtocol::Cooperative,
            // None while the group is being left, or lost: the last one known still says how to answer.
            KafkaProtocol::None => rebalances.protocol.unwrap_or(RebalanceProtocol::Eager),
        };
        rebalances.protocol = Some(protocol);
        let change = if assigns {
            Change::Assign
        } else if consumer.assignment_lost() {
            Change::Lose
        } else {
            Change::Revoke
        };
        if rebalances.closing || self.events.is_closed() {
            // A client that is closed answers nothing any more, and would not return.
            if !consumer.closed() {
                decline(consumer, change, protocol, list);
            }
            return;
        }
        rebalances.last_id += 1;
        // Own values at once: a list that outlives the client would hang its drop.
        let elements = list.elements();
        let partitions = elements.iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect();
        let rebalance = Rebalance { id: rebalances.last_id, protocol, change, partitions };
        rebalances.current = Some(rebalance.clone());
        let _ = self.events.send(MemberEvent::Rebalance(rebalance));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fatal_errors_of_a_clients_history_are_told_from_those_of_settings() {
        let (events, mut received) = mpsc::unbounded_channel();
        let context = Context::new(events, Some("g".to_owned()), Bootstrap::new(""));
        let mut retryable = |code| {
            context.poll_failed(&KafkaError::MessageConsumptionFatal(code));
            match received.try_recv() {
                Ok(MemberEvent::Fatal(error)) => error.is_retryable(),
                other => panic!("{other:?}"),
            }
        };
        assert!(retryable(RDKafkaErrorCode::FencedMemberEpoch) && retryable(RDKafkaErrorCode::Fatal));
        assert!(!retryable(RDKafkaErrorCode::FencedInstanceId));
        assert!(!retryable(RDKafkaErrorCode::UnsupportedVersion));
    }
}
