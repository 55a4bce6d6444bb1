//! kmr that sends the payloads on as they are, for a server that parses them.

use std::time::Duration;

use bytes::Bytes;
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Record, Reducer, Rows,
    async_trait,
};

use crate::shared::job::{BATCH_AGE, BATCH_ROWS, Job};

/// Time of one insert.
const LIMIT: Duration = Duration::from_secs(60);

/// Lines of JSON, of which each is a row.
#[derive(Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// The end of each line.
    ends: Vec<usize>,
}

impl Rows for Lines {
    type Item = ();

    fn new_empty(&self) -> Self {
        Self::default()
    }

    fn push(&mut self, (): ()) -> Result<(), BoxError> {
        Err("a line needs its record".into())
    }

    fn push_from(&mut self, (): (), record: &Record<'_>) -> Result<(), BoxError> {
        self.text.extend_from_slice(record.payload().ok_or("a tombstone")?);
        self.text.push(b'\n');
        self.ends.push(self.text.len());
        Ok(())
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        self.text.len()
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.text.truncate(self.ends.last().copied().unwrap_or_default());
    }

    fn split_off(&mut self, at: usize) -> Self {
        let start = at.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or_default();
        let text = self.text.split_off(start);
        let ends = self.ends.split_off(at).into_iter().map(|end| end - start).collect();
        Self { text, ends }
    }
}

/// Inserts lines as `JSONEachRow`.
pub(super) struct Forward {
    client: clickhouse::Client,
    sql: String,
    chunks: Vec<Bytes>,
}

impl Forward {
    pub(super) fn new(job: &Job) -> Self {
        let sql = format!("INSERT INTO {} FORMAT JSONEachRow", job.table);
        Self { client: job.client(), sql, chunks: Vec::new() }
    }
}

#[async_trait]
impl Reducer for Forward {
    type Rows = Lines;
    type Output = ();

    fn options(&self) -> BatchOptions {
        BatchOptions::default().with_max_rows(BATCH_ROWS).with_max_age(BATCH_AGE)
    }

    fn new_rows(&self) -> Lines {
        Lines::default()
    }

    fn accept(&mut self, chunk: Chunk<Lines>) -> Result<(), BoxError> {
        self.chunks.push(chunk.rows.text.into());
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        let chunks = std::mem::take(&mut self.chunks);
        Ok(Box::new(Insert { client: self.client.clone(), sql: self.sql.clone(), chunks }))
    }
}

struct Insert {
    client: clickhouse::Client,
    sql: String,
    chunks: Vec<Bytes>,
}

#[async_trait]
impl Delivery for Insert {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        let mut insert = self.client.insert_formatted_with(self.sql.clone());
        insert = insert.with_timeouts(Some(LIMIT), Some(LIMIT));
        for chunk in &self.chunks {
            insert.send(chunk.clone()).await.map_err(DeliveryError::retryable)?;
        }
        insert.end().await.map_err(DeliveryError::retryable)?;
        Ok(Delivered::new(()))
    }
}
