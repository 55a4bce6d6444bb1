//! The container that map tasks fill: each row is encoded as a line of JSON when it is pushed.

use std::fmt;
use std::marker::PhantomData;

use kmr_core::{BoxError, Rows};
use serde::Serialize;

use super::error::OsStreamError;
use crate::row_buffer::RowBuffer;

/// Rows of type `T`, each a line of JSON with its line feed.
pub struct JsonLines<T> {
    lines: RowBuffer,
    // fn(T): the container keeps no row.
    row: PhantomData<fn(T)>,
}

impl<T> JsonLines<T> {
    pub(crate) fn new() -> Self {
        Self { lines: RowBuffer::default(), row: PhantomData }
    }

    pub(crate) fn into_parts(self) -> (Vec<u8>, usize) {
        let (bytes, ends) = self.lines.into_parts();
        (bytes, ends.len())
    }
}

impl<T> fmt::Debug for JsonLines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").field("lines", &self.lines.len()).finish()
    }
}

impl<T: Serialize + Send + 'static> Rows for JsonLines<T> {
    type Item = T;

    fn new_empty(&self) -> Self {
        Self::new()
    }

    fn push(&mut self, row: T) -> Result<(), BoxError> {
        self.lines.push(|out| {
            // serde_json escapes line feeds, so a row is one line.
            serde_json::to_writer(&mut *out, &row).map_err(OsStreamError::Json)?;
            out.push(b'\n');
            Ok(())
        })
    }

    fn len(&self) -> usize {
        self.lines.len()
    }

    fn bytes(&self) -> usize {
        self.lines.bytes()
    }

    fn resident_bytes(&self) -> Option<usize> {
        Some(self.lines.resident_bytes())
    }

    fn truncate(&mut self, len: usize) {
        self.lines.truncate(len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { lines: self.lines.split_off(at), row: PhantomData }
    }
}
