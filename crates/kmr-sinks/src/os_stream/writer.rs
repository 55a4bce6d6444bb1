//! The reducer that writes JSON lines, and its options.

use std::fmt;
use std::io::Write;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{
    AtShutdown, Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Reducer,
};
use serde::Serialize;

use super::error::OsStreamError;
use super::rows::JsonLines;
use super::thread::{Lines, WriterThread};

/// A standard stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OsStream {
    /// Standard output.
    StdOut,
    /// Standard error.
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

/// Writes each row as one line of JSON. `T` is whatever the stage before emits, or
/// [`DeadLetter`](kmr_core::DeadLetter) for `reduce_err`; it need not be named.
///
/// A batch is acknowledged when its last line has been written and the stream flushed. A reader that stalls holds
/// deliveries back; one that is gone (a broken pipe) stops the consumer. Lines are never torn, and never mixed with what
/// `println!` or `eprintln!` write. At least once, as everywhere: a line may come again after a restart.
///
/// The output of the stage is the number of lines.
pub struct OsStreamWriter<T> {
    stream: OsStream,
    options: BatchOptions,
    open: Vec<u8>,
    rows: usize,
    thread: Option<WriterThread>,
    row: PhantomData<fn(T)>,
}

impl<T: Serialize + Send + 'static> OsStreamWriter<T> {
    /// A writer to `stream`. `max_age` is the age of a batch, since its first row, at which it is written: short shows
    /// lines sooner, long saves system calls.
    pub fn new(max_age: Duration, stream: OsStream) -> Self {
        Self {
            stream,
            // One delivery at a time: there is one stream, and lines are to keep their order.
            options: BatchOptions::default().with_max_age(max_age).with_max_in_flight(1),
            open: Vec::new(),
            rows: 0,
            thread: None,
            row: PhantomData,
        }
    }

    /// Rows in a batch. Default 32,768; at least 1.
    pub fn max_records(mut self, records: usize) -> Self {
        self.options = self.options.with_max_records(records);
        self
    }

    /// Size of a batch, bytes of JSON. Default 8 MiB. One row is always admitted, however large.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.options = self.options.with_max_bytes(bytes);
        self
    }

    /// Time that one attempt may take. Default 20 s. A reader that stalls longer costs an attempt, and no line.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.with_attempt_timeout(timeout);
        self
    }

    /// What happens to the open batch when the consumer stops. Default: it is written.
    pub fn at_shutdown(mut self, at_shutdown: AtShutdown) -> Self {
        self.options = self.options.with_at_shutdown(at_shutdown);
        self
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

    fn rows(&self) -> JsonLines<T> {
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

/// A closed batch.
struct FrozenLines {
    thread: WriterThread,
    lines: Arc<Lines>,
    rows: usize,
}

#[async_trait]
impl Delivery for FrozenLines {
    type Output = usize;

    async fn deliver(&self, _attempt: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        match self.thread.write(&self.lines).await {
            Ok(()) => Ok(Delivered::new(self.rows)),
            Err(error) if error.is_retryable() => Err(DeliveryError::retryable(error)),
            Err(error) => Err(DeliveryError::fatal(error)),
        }
    }
}

#[cfg(test)]
mod tests;
