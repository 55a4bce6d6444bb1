//! What a report means: which messages are sent again, and when, which never, and what stops the consumer.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::batch::Batch;
use super::error::KafkaWriteError;

/// What follows from a message's failure.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It was not sent, for another's sake: it is sent again at once.
    Again,
    /// It may be taken later: the framework waits, then tries again.
    Later,
    /// It, or another one in the same request, cannot be taken: each is sent alone, which tells them apart.
    Alone,
    /// It will never be taken.
    Reject(KafkaWriteError),
    /// No message will be taken before somebody does something.
    Stop(KafkaWriteError),
}

/// `alone`: it was the only one in its request.
pub(super) fn verdict(batch: &Batch, index: usize, code: Code, alone: bool) -> Verdict {
    let topic = || batch.topic(index).to_owned();
    match code {
        Code::PurgeQueue | Code::PurgeInflight | Code::InvalidDifferentRecord => Verdict::Again,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::InvalidTopic => {
            let error = KafkaWriteError::UnknownTopic { topic: topic() };
            if batch.message(index).topic.is_some() { Verdict::Reject(error) } else { Verdict::Stop(error) }
        }
        Code::UnknownPartition => {
            let partition = batch.message(index).partition.unwrap_or(-1);
            Verdict::Reject(KafkaWriteError::UnknownPartition { topic: topic(), partition })
        }
        Code::TopicAuthorizationFailed => {
            let what = format!("topic {:?}", batch.topic(index));
            Verdict::Stop(KafkaWriteError::Authorization { what, permission: "WRITE and DESCRIBE on it" })
        }
        Code::ClusterAuthorizationFailed => Verdict::Stop(idempotence_refused()),
        _ if is_of_one_message(code) && !alone => Verdict::Alone,
        Code::MessageSizeTooLarge => {
            let bytes = batch.message(index).bytes();
            Verdict::Reject(KafkaWriteError::TooLarge { topic: topic(), bytes })
        }
        _ if is_of_one_message(code) => {
            let (code, reason) = (code as i32, code.to_string());
            Verdict::Reject(KafkaWriteError::Refused { topic: topic(), code, reason })
        }
        _ => Verdict::Later,
    }
}

/// Whether the client refuses this before anything is sent: the message was alone.
pub(super) fn is_clients_own(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::InvalidArgument)
}

/// Whether the broker gives this for a request because of one message in it.
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

/// Brokers before 2.8 want a permission for idempotent producers.
pub(super) fn idempotence_refused() -> KafkaWriteError {
    let what = "producing idempotently on the cluster".to_owned();
    KafkaWriteError::Authorization { what, permission: "IDEMPOTENT_WRITE on the cluster" }
}

#[cfg(test)]
mod tests {
    use super::super::message::KafkaMessage;
    use super::*;

    fn text(message: KafkaMessage, code: Code, alone: bool) -> String {
        match verdict(&Batch::new("own".into(), vec![message]), 0, code, alone) {
            Verdict::Reject(error) => format!("reject: {error}"),
            Verdict::Stop(error) => format!("stop: {error}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn errors_of_one_row_are_told_from_those_of_all() {
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
        assert_eq!(text(own(), Code::MessageTimedOut, true), "Later");
        assert_eq!(text(own(), Code::NotEnoughReplicas, false), "Later");
        assert_eq!(text(own(), Code::PurgeQueue, false), "Again");
    }
}
