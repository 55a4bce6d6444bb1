//! librdkafka's callbacks, turned into events for the coordinator. They decide nothing and never
//! wait.

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
use super::credentials::Credentials;
use super::errors::{permanent, retryable};
use super::fetch_limit::FetchLimit;
use super::statistics::Statistics;
use crate::error::Error;
use crate::member::{Change, MemberEvent, Rebalance, RebalanceProtocol};
use crate::record::TopicPartition;
use crate::telemetry;

/// The client, with these callbacks.
pub(super) type Client = BaseConsumer<Context>;

/// The state that the callbacks share with the member.
pub(super) struct Context {
    events: mpsc::UnboundedSender<MemberEvent>,
    /// `None`: a client without a group.
    group: Option<String>,
    rebalances: Mutex<Rebalances>,
    pub(super) bootstrap: Bootstrap,
    pub(super) credentials: Credentials,
    pub(super) fetch_limit: FetchLimit,
    pub(super) statistics: Statistics,
    last_error: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// When each error code was last logged as a warning.
    reported: Mutex<BTreeMap<i32, Instant>>,
    /// The same as `Rebalances::closing`, for callbacks that must not wait for the lock.
    leaving: AtomicBool,
}

/// Interval of warnings with the same error code. While a broker is unavailable, the client repeats
/// each error many times a second. The others are logged at debug level.
const WARN_AGAIN: Duration = Duration::from_secs(10);

const OVERTAKEN_REVOKE: &str = "topics changed while partitions were revoked, and librdkafka has joined the group \
     again without waiting; it would take part in no later rebalance, so kmr joins with a new client";

/// The rebalance that waits for an answer: current answer (R5).
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

    /// Whether a change is an assignment of a cooperative group that comes before the answer to a
    /// revoke. librdkafka has joined the group again meanwhile, because topics have changed. It
    /// keeps what was to be assigned after the revoke (`rkcg_rebalance_incr_assignment`) until that
    /// answer, which it no longer expects. As long as it has that, it skips each later rebalance:
    /// the group removes the member, which is not notified and goes on reading.
    fn ends_membership(&self, change: Change, protocol: RebalanceProtocol) -> bool {
        change == Change::Assign
            && protocol == RebalanceProtocol::Cooperative
            && self.current.as_ref().is_some_and(|rebalance| rebalance.change == Change::Revoke)
    }
}

/// Answers a rebalance while the client is closing: no partition of it is kept.
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

/// Why a static member cannot join yet.
const UNRELEASED: &str = "the group has another member with this group.instance.id (UnreleasedInstanceId): an earlier \
     process, until its session ends, or one that is running; give each running member its own";

impl Context {
    pub(super) fn new(
        events: mpsc::UnboundedSender<MemberEvent>,
        group: Option<String>,
        bootstrap: Bootstrap,
        credentials: Credentials,
        fetch_limit: FetchLimit,
    ) -> Self {
        Self {
            events,
            group,
            rebalances: Mutex::default(),
            bootstrap,
            credentials,
            fetch_limit,
            statistics: Statistics::default(),
            last_error: Mutex::new(None),
            reported: Mutex::default(),
            leaving: AtomicBool::new(false),
        }
    }

    /// Calls `answer` if the rebalance `id` still waits for one. Meanwhile the callback of the next
    /// rebalance waits.
    pub(super) fn answer<T>(&self, id: u64, answer: impl FnOnce() -> T) -> Option<T> {
        let mut rebalances = self.lock();
        if !rebalances.is_current(id) {
            return None;
        }
        let answered = answer();
        rebalances.current = None;
        Some(answered)
    }

    /// Whether the consumer has dropped this client.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Calls `change`, which changes the assignment, if no rebalance waits for its answer:
    /// librdkafka would take the change for that answer. `change` receives the protocol of the last
    /// rebalance.
    pub(super) fn between_rebalances<T>(
        &self,
        change: impl FnOnce(Option<RebalanceProtocol>) -> T,
    ) -> Option<T> {
        let rebalances = self.lock();
        let is_between = rebalances.current.is_none() && !rebalances.closing;
        is_between.then(|| change(rebalances.protocol))
    }

    pub(super) fn is_current(&self, id: u64) -> bool {
        self.lock().is_current(id)
    }

    /// Whether the client is leaving the group.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// From now on the callback itself answers rebalances. Returns the rebalance that still waits
    /// for its answer.
    pub(super) fn close(&self) -> Option<Rebalance> {
        let mut rebalances = self.lock();
        rebalances.closing = true;
        self.leaving.store(true, Ordering::Relaxed);
        rebalances.current.take()
    }

    /// The client's last error report, for a start-up that fails.
    pub(super) fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Polling returned an error instead of a message.
    pub(super) fn poll_failed(&self, error: &KafkaError) {
        let fatal = match error {
            KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId) => Some(permanent(
                "staying in the group",
                "another member has the same group.instance.id (FencedInstanceId); give each member its own",
            )),
            // KIP-848: the last process with this id was killed, or its client failed, and so it
            // has not left the group.
            KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::UnreleasedInstanceId) => {
                Some(retryable("joining the group", UNRELEASED))
            }
            KafkaError::MessageConsumptionFatal(code) => Some(fatal_error(*code)),
            KafkaError::MessageConsumption(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                let group = self.group.as_ref();
                group.map(|group| Error::Authorization { resource: format!("group {group:?}") })
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Some(Error::Authorization { resource: "a subscribed topic".to_owned() })
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::InconsistentGroupProtocol) => Some(permanent(
                format!("joining group {:?}", self.group.as_deref().unwrap_or_default()),
                "its other members use other assignment strategies; set partition.assignment.strategy to \
                 what they use, such as range",
            )),
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

    /// Logs a warning, unless the same error was logged a moment ago (polling repeats the reports
    /// of the error callback) or the client is closing and no longer needs its brokers.
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

/// The consumer's error for a fatal error of the client. Most depend on the client's history in the
/// group, so a new client may help. The listed ones depend on settings and permissions.
fn fatal_error(code: RDKafkaErrorCode) -> Error {
    let is_permanent = matches!(
        code,
        RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::InvalidGroupId
            | RDKafkaErrorCode::InvalidRequest
            | RDKafkaErrorCode::UnsupportedAssignor
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::UnsupportedFeature
    );
    let reason = format!("{code} ({code:?})");
    if is_permanent { permanent("consume", reason) } else { retryable("consume", reason) }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        telemetry::client_log(level as i32, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.fetch_limit.observe(statistics);
        self.statistics.observe(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.report(error.rdkafka_error_code(), reason);
        if let Some(code) = error.rdkafka_error_code() {
            self.bootstrap.reported(code);
            self.credentials.reported(code);
            let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
            // The report that names the cause is kept. "All brokers are down" follows every
            // failure.
            if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
                *last = Some((code, reason.to_owned()));
            }
        }
    }
}

impl ConsumerContext for Context {
    /// Called on the polling thread. Returns without an answer: the partitions are drained first,
    /// while polling continues, and then the control thread answers. A drain in here would get the
    /// member removed from the group.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigns = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let mut rebalances = self.lock();
        let protocol = match consumer.rebalance_protocol() {
            KafkaProtocol::Eager => RebalanceProtocol::Eager,
            KafkaProtocol::Cooperative => RebalanceProtocol::Cooperative,
            // While the group is being left or lost there is none. The last known protocol decides
            // how to answer.
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
            // A closed client answers nothing, and the call would not return.
            if !consumer.closed() {
                decline(consumer, change, protocol, list);
            }
            return;
        }
        rebalances.last_id += 1;
        // Copied at once: a list that outlives the client would block the client's drop.
        let elements = list.elements();
        let partitions = elements.iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect();
        let rebalance = Rebalance { id: rebalances.last_id, protocol, change, partitions };
        let ends_membership = rebalances.ends_membership(change, protocol);
        rebalances.current = Some(rebalance.clone());
        if ends_membership {
            self.report_fatal(retryable("staying in the group", OVERTAKEN_REVOKE));
        } else {
            let _ = self.events.send(MemberEvent::Rebalance(rebalance));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fatal_errors_of_settings_are_permanent_and_others_retryable() {
        let (events, mut received) = mpsc::unbounded_channel();
        let context = Context::new(
            events,
            Some("g".to_owned()),
            Bootstrap::new(""),
            Credentials::default(),
            FetchLimit::fixed(),
        );
        let mut is_retryable = |code| {
            context.poll_failed(&KafkaError::MessageConsumptionFatal(code));
            match received.try_recv() {
                Ok(MemberEvent::Fatal(error)) => error.is_retryable(),
                other => panic!("{other:?}"),
            }
        };
        assert!(is_retryable(RDKafkaErrorCode::FencedMemberEpoch) && is_retryable(RDKafkaErrorCode::Fatal));
        assert!(is_retryable(RDKafkaErrorCode::UnreleasedInstanceId), "the earlier member's session ends");
        assert!(!is_retryable(RDKafkaErrorCode::FencedInstanceId));
        assert!(!is_retryable(RDKafkaErrorCode::UnsupportedVersion));
    }
}
