//! Delivers one batch of lines.

use std::sync::Arc;

use async_trait::async_trait;
use kmr_core::{Attempt, Delivered, Delivery, DeliveryError};

use super::thread::{Lines, WriterThread};
use crate::errors::delivery_error;

/// A closed batch.
pub(super) struct FrozenLines {
    pub(super) thread: WriterThread,
    pub(super) lines: Arc<Lines>,
    pub(super) rows: usize,
}

#[async_trait]
impl Delivery for FrozenLines {
    type Output = usize;

    async fn deliver(&self, _attempt: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        match self.thread.write(&self.lines).await {
            Ok(()) => Ok(Delivered::new(self.rows)),
            Err(error) => Err(delivery_error(error.is_retryable(), None, error)),
        }
    }
}
