//! The reducer that writes JSON lines: its options and its open batch.

use std::fmt;
use std::io::Write;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{BatchOptions, BoxError, Chunk, Delivery, Reducer};
use serde::Serialize;

use super::delivery::FrozenLines;
use super::error::OsStreamError;
use super::rows::JsonLines;
use super::thread::{Lines, WriterThread};
use crate::batch_setters::batch_setters;

/// Default age of a batch.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A standard stream of the process.
#[derive(Clone, Copy, Debug)]
enum OsStream {
    StdOut,
    StdErr,
}

impl OsStream {
    fn name(self) -> &'static str {
        match self {
            OsStream::StdOut => "standard output",
            OsStream::StdErr => "standard error",
        }
    }

    fn lock(self) -> Box<dyn Write> {
        match self {
            OsStream::StdOut => Box::new(std::io::stdout().lock()),
            OsStream::StdErr => Box::new(std::io::stderr().lock()),
        }
    }
}

/// Writes each row as one line of JSON. `T` is the output of the upstream stage, or
/// [`DeadLetter`](kmr_core::DeadLetter) for `reduce_err`; it is inferred.
///
/// A batch is acknowledged when its last line is written and the stream is flushed. A reader that
/// stalls delays deliveries. A closed reader (a broken pipe) stops the consumer. Lines are always
/// whole and never mixed with the output of `println!` or `eprintln!`. At least once: a line can be
/// repeated after a restart.
///
/// The output of the stage is the number of lines.
pub struct OsStreamWriter<T> {
    stream: OsStream,
    options: BatchOptions,
    pub(super) open: Vec<u8>,
    rows: usize,
    pub(super) thread: Option<WriterThread>,
    row: PhantomData<fn(T)>,
}

impl<T: Serialize + Send + 'static> OsStreamWriter<T> {
    /// A writer to standard output.
    pub fn stdout() -> Self {
        Self::new(OsStream::StdOut)
    }

    /// A writer to standard error.
    pub fn stderr() -> Self {
        Self::new(OsStream::StdErr)
    }

    fn new(stream: OsStream) -> Self {
        Self {
            stream,
            // One delivery at a time, because there is one stream and lines must keep their order.
            options: BatchOptions::default().with_max_age(MAX_AGE).with_max_in_flight(1),
            open: Vec::new(),
            rows: 0,
            thread: None,
            row: PhantomData,
        }
    }

    batch_setters! {
        max_rows;
        /// The size is that in JSON.
        max_bytes;
        /// A short age shows lines sooner, a long one saves system calls.
        max_age;
        /// A reader that stalls longer costs an attempt, but no line.
        attempt_timeout;
        partial_batch;
    }
}

impl<T> fmt::Debug for OsStreamWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsStreamWriter")
            .field("stream", &self.stream)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Serialize + Send + 'static> Reducer for OsStreamWriter<T> {
    type Rows = JsonLines<T>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        let stream = self.stream;
        self.thread = Some(WriterThread::start(stream.name(), move || stream.lock())?);
        Ok(())
    }

    fn new_rows(&self) -> JsonLines<T> {
        JsonLines::new()
    }

    fn accept(&mut self, chunk: Chunk<JsonLines<T>>) -> Result<(), BoxError> {
        let (mut bytes, rows) = chunk.rows.into_parts();
        self.rows += rows;
        if self.open.is_empty() {
            self.open = bytes;
        } else {
            self.open.append(&mut bytes);
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        let Some(thread) = self.thread.clone() else {
            return Err(OsStreamError::NoThread { stream: self.stream.name() }.into());
        };
        let lines = Arc::new(Lines::new(std::mem::take(&mut self.open)));
        Ok(Box::new(FrozenLines { thread, lines, rows: std::mem::take(&mut self.rows) }))
    }
}
