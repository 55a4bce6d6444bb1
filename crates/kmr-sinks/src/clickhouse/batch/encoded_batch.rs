//! The bytes of a frozen batch: compressed once for all attempts, and split where the server
//! rejects rows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::clickhouse::batch::bisect::Part;
use crate::clickhouse::batch::row_ends::RowEnds;
use crate::clickhouse::compression::Compression;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::body::{compress, decompress};

/// The bodies of one batch. Invariant: once `compressed` is set, every attempt sends it, and
/// `uncompressed` is empty.
pub(crate) struct EncodedBatch {
    compression: Compression,
    header: Bytes,
    ends: RowEnds,
    /// The rows, without the header.
    uncompressed: Mutex<Vec<Bytes>>,
    compressed: OnceCell<Vec<Bytes>>,
    /// All rows, contiguous. Only a batch that is split needs them.
    rows: OnceCell<Bytes>,
}

impl EncodedBatch {
    /// `segments` hold the rows whose ends are `ends`, in their order.
    pub(crate) fn new(compression: Compression, header: Bytes, ends: RowEnds, segments: Vec<Bytes>) -> Self {
        let uncompressed = Mutex::new(segments);
        Self { compression, header, ends, uncompressed, compressed: OnceCell::new(), rows: OnceCell::new() }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.ends.rows()
    }

    /// Size of the rows, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.ends.bytes()
    }

    /// The body with all rows, shared. The first attempt that completes the compression stores it.
    pub(crate) async fn whole(&self) -> Result<Vec<Bytes>, ClickHouseError> {
        let compressed = self.compressed.get_or_try_init(|| async {
            let mut uncompressed = self.uncompressed().clone();
            uncompressed.insert(0, self.header.clone());
            let compressed =
                compress(self.compression, uncompressed).await.map_err(ClickHouseError::Compression)?;
            self.uncompressed().clear();
            Ok::<_, ClickHouseError>(compressed)
        });
        compressed.await.cloned()
    }

    /// The body with the rows of `part`.
    pub(crate) async fn part(&self, part: &Part) -> Result<Vec<Bytes>, ClickHouseError> {
        if part.len() == self.rows() {
            return self.whole().await;
        }
        let rows = self.rows.get_or_try_init(|| self.all_rows()).await?;
        let runs = part.runs().map(|run| rows.slice(self.ends.bytes_of(run)));
        let segments = std::iter::once(self.header.clone()).chain(runs).collect();
        compress(self.compression, segments).await.map_err(ClickHouseError::Compression)
    }

    /// The header that names the columns, and all rows, contiguous.
    pub(crate) async fn header_and_rows(&self) -> Result<(Bytes, Bytes), ClickHouseError> {
        let rows = self.rows.get_or_try_init(|| self.all_rows()).await?;
        Ok((self.header.clone(), rows.clone()))
    }

    /// The same rows in another order; `None` if they exceed 4 GiB.
    pub(crate) async fn reordered(&self, order: &[usize]) -> Result<Option<Self>, ClickHouseError> {
        let (header, rows) = self.header_and_rows().await?;
        if u32::try_from(rows.len()).is_err() {
            return Ok(None);
        }
        let (mut bytes, mut ends) = (Vec::with_capacity(rows.len()), Vec::with_capacity(order.len()));
        for row in order {
            bytes.extend_from_slice(&rows[self.ends.bytes_of(*row..row + 1)]);
            ends.push(bytes.len() as u32);
        }
        let mut row_ends = RowEnds::default();
        row_ends.append(ends);
        Ok(Some(Self::new(self.compression, header, row_ends, vec![bytes.into()])))
    }

    /// The rows, restored from the body.
    async fn all_rows(&self) -> Result<Bytes, ClickHouseError> {
        let compressed = self.whole().await?;
        let uncompressed =
            decompress(self.compression, compressed).await.map_err(ClickHouseError::Compression)?;
        let rows = uncompressed.slice(self.header.len().min(uncompressed.len())..);
        // Wrong row ends would split a row, and a slice past the end would panic.
        let expected = self.bytes();
        if rows.len() == expected {
            return Ok(rows);
        }
        let text = format!("{} bytes were restored of {expected} that were compressed", rows.len());
        Err(ClickHouseError::Compression(std::io::Error::other(text)))
    }

    fn uncompressed(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.uncompressed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_are_the_header_and_their_rows_however_it_is_packed() {
        for &compression in Compression::ALL {
            let mut ends = RowEnds::default();
            ends.append(vec![1, 3, 3]);
            ends.append(vec![2]);
            let segments = vec![Bytes::from_static(b"abb"), Bytes::from_static(b"dd")];
            let batch = EncodedBatch::new(compression, Bytes::from_static(b"#"), ends, segments);
            let body = async |rows, excluded| {
                let body = batch.part(&Part { rows, excluded }).await.unwrap();
                decompress(compression, body).await.unwrap()
            };
            assert_eq!(&body(0..4, vec![]).await[..], b"#abbdd");
            assert_eq!(&body(0..4, vec![1]).await[..], b"#add");
            assert_eq!(&body(1..4, vec![2]).await[..], b"#bbdd");
            assert_eq!(&body(3..4, vec![]).await[..], b"#dd");
            let other = batch.reordered(&[3, 2, 0, 1]).await.unwrap().unwrap();
            let body = other.part(&Part { rows: 0..3, excluded: vec![1] }).await.unwrap();
            assert_eq!(&decompress(compression, body).await.unwrap()[..], b"#dda");
        }
    }
}
