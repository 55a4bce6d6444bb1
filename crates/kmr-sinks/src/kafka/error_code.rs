//! Kafka's error codes, by the recovery that they allow.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::batch::Batch;
use super::error::KafkaWriteError;

/// The recovery from a message's failure.
#[derive(Debug)]
pub(super) enum FailureClass {
    /// The message failed because of another one: it is sent again at once.
    Resend,
    /// The error is temporary: the framework retries with backoff.
    Retry,
    /// The message or another one in its request is at fault: each is sent alone.
    Alone,
    /// The message will never be accepted.
    Reject(KafkaWriteError),
    /// No message will be accepted until an operator acts.
    Stop(KafkaWriteError),
}

/// The class of a failure. With `alone`, the message was the only one in its request.
pub(super) fn classify(batch: &Batch, index: usize, code: Code, alone: bool) -> FailureClass {
    let topic = || batch.topic(index).to_owned();
    match code {
        Code::PurgeQueue | Code::PurgeInflight | Code::InvalidDifferentRecord => FailureClass::Resend,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::InvalidTopic => {
            let error = KafkaWriteError::UnknownTopic { topic: topic() };
            if batch.message(index).topic.is_some() {
                FailureClass::Reject(error)
            } else {
                FailureClass::Stop(error)
            }
        }
        Code::UnknownPartition => {
            let partition = batch.message(index).partition.unwrap_or(-1);
            FailureClass::Reject(KafkaWriteError::UnknownPartition { topic: topic(), partition })
        }
        Code::TopicAuthorizationFailed => {
            let what = format!("topic {:?}", batch.topic(index));
            FailureClass::Stop(KafkaWriteError::Authorization {
                what,
                permission: "WRITE and DESCRIBE on it",
            })
        }
        Code::ClusterAuthorizationFailed => FailureClass::Stop(idempotence_denied()),
        _ if is_of_one_message(code) && !alone => FailureClass::Alone,
        Code::MessageSizeTooLarge => {
            let bytes = batch.message(index).bytes();
            FailureClass::Reject(KafkaWriteError::TooLarge { topic: topic(), bytes })
        }
        _ if is_of_one_message(code) => {
            let (code, reason) = (code as i32, code.to_string());
            FailureClass::Reject(KafkaWriteError::Rejected { topic: topic(), code, reason })
        }
        _ => FailureClass::Retry,
    }
}

/// Whether the client itself rejects a message with this code, before it sends a request.
pub(super) fn is_client_rejection(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::InvalidArgument)
}

/// Whether the broker rejects a request with this code because of one message in it.
fn is_of_one_message(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::InvalidArgument
    )
}

/// Brokers before 2.8 require a permission for idempotent producers.
pub(super) fn idempotence_denied() -> KafkaWriteError {
    let what = "producing idempotently on the cluster".to_owned();
    KafkaWriteError::Authorization { what, permission: "IDEMPOTENT_WRITE on the cluster" }
}

#[cfg(test)]
mod tests {
    use super::super::message::KafkaMessage;
    use super::*;

    fn text(message: KafkaMessage, code: Code, alone: bool) -> String {
        match classify(&Batch::new("own".into(), vec![message]), 0, code, alone) {
            FailureClass::Reject(error) => format!("reject: {error}"),
            FailureClass::Stop(error) => format!("stop: {error}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn errors_of_one_row_are_distinguished_from_errors_of_all() {
        let own = || KafkaMessage::new("12345");
        let routed = || KafkaMessage::new("12345").with_topic("routed").with_partition(9);
        let unknown = text(own(), Code::UnknownTopicOrPartition, false);
        assert!(unknown.starts_with("stop") && unknown.contains("\"own\" does not exist"), "{unknown}");
        let unknown = text(routed(), Code::UnknownTopic, false);
        assert!(unknown.starts_with("reject") && unknown.contains("\"routed\""), "{unknown}");
        let partition = text(routed(), Code::UnknownPartition, false);
        assert!(partition.starts_with("reject") && partition.contains("no partition 9"), "{partition}");
        let forbidden = text(routed(), Code::TopicAuthorizationFailed, false);
        assert!(forbidden.starts_with("stop") && forbidden.contains("grant WRITE"), "{forbidden}");
        assert_eq!(text(own(), Code::MessageSizeTooLarge, false), "Alone");
        let large = text(own(), Code::MessageSizeTooLarge, true);
        assert!(
            large.starts_with("reject") && large.contains("5 bytes") && large.contains("max.message.bytes")
        );
        assert_eq!(text(own(), Code::MessageTimedOut, true), "Retry");
        assert_eq!(text(own(), Code::NotEnoughReplicas, false), "Retry");
        assert_eq!(text(own(), Code::PurgeQueue, false), "Resend");
    }
}
