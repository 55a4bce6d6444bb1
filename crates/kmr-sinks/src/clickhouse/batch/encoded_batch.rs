//! The bytes of a frozen batch: packed once for all attempts, and cut into parts where the server refuses rows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::clickhouse::batch::bisect::Part;
use crate::clickhouse::batch::row_ends::RowEnds;
use crate::clickhouse::config::Compression;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::body::{pack, unpack};

/// Bodies of one batch. Invariant: once `packed` is there it is what every attempt sends, and `plain` is empty.
pub(crate) struct Content {
    compression: Compression,
    header: Bytes,
    ends: RowEnds,
    /// The rows, without the header.
    plain: Mutex<Vec<Bytes>>,
    packed: OnceCell<Vec<Bytes>>,
    /// The rows in one piece. Only a batch that is taken apart needs them.
    rows: OnceCell<Bytes>,
}

impl Content {
    /// `segments`: the rows that `ends` counts, in their order.
    pub(crate) fn new(compression: Compression, header: Bytes, ends: RowEnds, segments: Vec<Bytes>) -> Self {
        let plain = Mutex::new(segments);
        Self { compression, header, ends, plain, packed: OnceCell::new(), rows: OnceCell::new() }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.ends.rows()
    }

    /// The body of a request with all rows, shared. Packed by the first attempt that gets so far; a dropped one leaves it
    /// to the next.
    pub(crate) async fn whole(&self) -> Result<Vec<Bytes>, ClickHouseError> {
        let packed = self.packed.get_or_try_init(|| async {
            let mut plain = self.plain().clone();
            plain.insert(0, self.header.clone());
            let packed = pack(self.compression, plain).await.map_err(ClickHouseError::Compression)?;
            self.plain().clear();
            Ok::<_, ClickHouseError>(packed)
        });
        packed.await.cloned()
    }

    /// The body of a request with some of the rows.
    pub(crate) async fn part(&self, part: &Part) -> Result<Vec<Bytes>, ClickHouseError> {
        if part.len() == self.rows() {
            return self.whole().await;
        }
        let rows = self.rows.get_or_try_init(|| self.all_rows()).await?;
        let runs = part.runs().map(|run| rows.slice(self.ends.bytes_of(run)));
        let segments = std::iter::once(self.header.clone()).chain(runs).collect();
        pack(self.compression, segments).await.map_err(ClickHouseError::Compression)
    }

    /// The rows in one piece, behind the header that names their columns.
    pub(crate) async fn header_and_rows(&self) -> Result<(Bytes, Bytes), ClickHouseError> {
        let rows = self.rows.get_or_try_init(|| self.all_rows()).await?;
        Ok((self.header.clone(), rows.clone()))
    }

    /// The same rows in another order; `None` where they are too large for that.
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

    /// The rows in one piece, out of what is sent.
    async fn all_rows(&self) -> Result<Bytes, ClickHouseError> {
        let packed = self.whole().await?;
        let plain = unpack(self.compression, packed).await.map_err(ClickHouseError::Compression)?;
        let rows = plain.slice(self.header.len().min(plain.len())..);
        // A row boundary that is not in the bytes would cut through a row, and slicing by it would panic.
        let expected = self.ends.bytes_of(0..self.ends.rows()).end;
        if rows.len() == expected {
            return Ok(rows);
        }
        let text = format!("{} bytes came back of {expected} that were packed", rows.len());
        Err(ClickHouseError::Compression(std::io::Error::other(text)))
    }

    fn plain(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner)
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
            let content = Content::new(compression, Bytes::from_static(b"#"), ends, segments);
            let body = async |rows, without| {
                let body = content.part(&Part { rows, without }).await.unwrap();
                unpack(compression, body).await.unwrap()
            };
            assert_eq!(&body(0..4, vec![]).await[..], b"#abbdd");
            assert_eq!(&body(0..4, vec![1]).await[..], b"#add");
            assert_eq!(&body(1..4, vec![2]).await[..], b"#bbdd");
            assert_eq!(&body(3..4, vec![]).await[..], b"#dd");
            let other = content.reordered(&[3, 2, 0, 1]).await.unwrap().unwrap();
            let body = other.part(&Part { rows: 0..3, without: vec![1] }).await.unwrap();
            assert_eq!(&unpack(compression, body).await.unwrap()[..], b"#dda");
        }
    }
}
