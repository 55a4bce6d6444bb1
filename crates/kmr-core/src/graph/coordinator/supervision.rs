//! Every task is watched (L1): what it ends with is somebody's business.

use tokio::task::JoinError;

use crate::error::Error;

/// What ended the service of one client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The client: nothing can be committed with it any more.
    #[error(transparent)]
    Client(Error),
    /// A task: what is finished is committed.
    #[error(transparent)]
    Task(Error),
}

/// A task ended that should not have.
pub(super) fn early(ended: Result<(String, Result<(), Error>), JoinError>) -> Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => {
            Error::TaskPanicked { task, message: "it ended without being told to".to_owned() }
        }
        Err(error) => Error::TaskPanicked { task: "(unknown)".to_owned(), message: error.to_string() },
    }
}

/// A partition's task ended: in order, if it was told to stop.
pub(super) fn map_ended(ended: Result<(String, Result<(), Error>), JoinError>) -> Result<(), Failed> {
    match ended {
        Ok((_, Ok(()))) => Ok(()),
        ended => Err(Failed::Task(early(ended))),
    }
}
