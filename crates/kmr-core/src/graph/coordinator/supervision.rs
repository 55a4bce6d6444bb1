//! Classifies how tasks end: supervised tasks (L1).

use tokio::task::JoinError;

use crate::error::Error;

/// What ended the service of one client.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The client failed: it can commit nothing any more.
    #[error(transparent)]
    Client(Error),
    /// The client works, but it must commit nothing any more: after a commit that the broker may
    /// apply late (E11), or because the group has rejected its commits for too long (C5).
    #[error(transparent)]
    CommitsEnded(Error),
    /// A task failed: finished records are still committed.
    #[error(transparent)]
    Task(Error),
}

/// The answer to a rebalance has failed. A wrong starting position or a missing permission is no
/// fault of the client, so finished records of the other partitions are committed.
pub(super) fn answer_failed(error: Error) -> ServeError {
    match error {
        Error::OffsetOutOfRange { .. } | Error::Authorization { .. } | Error::OpenPlan { .. } => {
            ServeError::Task(error)
        }
        error => ServeError::Client(error),
    }
}

/// The error of a task that ended although it should still run.
pub(super) fn unexpected_end(ended: Result<(String, Result<(), Error>), JoinError>) -> Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => {
            Error::TaskPanicked { task, message: "it ended without a stop request".to_owned() }
        }
        Err(error) => Error::TaskPanicked { task: "(unknown)".to_owned(), message: error.to_string() },
    }
}

/// The committer has ended its commits. If a new member can commit again, the error is retryable.
pub(super) fn commits_ended(error: Error) -> ServeError {
    if error.is_retryable() { ServeError::CommitsEnded(error) } else { ServeError::Task(error) }
}

/// A map task has ended. Without an error, it received a stop request.
pub(super) fn map_ended(ended: Result<(String, Result<(), Error>), JoinError>) -> Result<(), ServeError> {
    match ended {
        Ok((_, Ok(()))) => Ok(()),
        ended => Err(ServeError::Task(unexpected_end(ended))),
    }
}
