//! The bytes of a request: shared by all attempts, compressed once, handed to the connection in small pieces.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::clickhouse::config::Compression;

/// A request is handed over in pieces of this size, so that progress can be seen while it is sent.
const PIECE: usize = 64 << 10;
/// Input bytes between two points at which other tasks may run: about half a millisecond of LZ4.
const COMPRESS_STEP: usize = 256 << 10;
/// Twice as small as LZ4 on typical rows, at about half of its speed; higher levels cost much and gain little.
#[cfg(feature = "clickhouse-zstd")]
const ZSTD_LEVEL: i32 = 1;

/// Packs `segments` into a body. Gives other tasks of the thread a turn every now and then.
pub(crate) async fn pack(compression: Compression, segments: Vec<Bytes>) -> io::Result<Vec<Bytes>> {
    let input: usize = segments.iter().map(Bytes::len).sum();
    // Typical rows shrink to a half or less: one allocation in most cases.
    let out = Vec::with_capacity(input / 2 + 64);
    let mut packed = match compression {
        Compression::None => return Ok(segments),
        Compression::Lz4 => {
            let info = FrameInfo::new().block_size(BlockSize::Max256KB);
            let mut encoder = FrameEncoder::with_frame_info(info, out);
            write_all(&mut encoder, &segments).await?;
            encoder.finish()?
        }
        #[cfg(feature = "clickhouse-zstd")]
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
            write_all(&mut encoder, &segments).await?;
            encoder.finish()?
        }
    };
    packed.shrink_to_fit();
    Ok(vec![Bytes::from(packed)])
}

/// What [`pack`] was given, in one piece.
pub(crate) async fn unpack(compression: Compression, packed: Vec<Bytes>) -> io::Result<Bytes> {
    let joined = match <[Bytes; 1]>::try_from(packed) {
        Ok([one]) => one,
        Err(several) => Bytes::from(several.concat()),
    };
    match compression {
        Compression::None => Ok(joined),
        Compression::Lz4 => read_all(FrameDecoder::new(&joined[..])).await,
        #[cfg(feature = "clickhouse-zstd")]
        Compression::Zstd => read_all(zstd::Decoder::new(&joined[..])?).await,
    }
}

async fn write_all(encoder: &mut (impl Write + Send), segments: &[Bytes]) -> io::Result<()> {
    for segment in segments {
        for step in segment.chunks(COMPRESS_STEP) {
            encoder.write_all(step)?;
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn read_all(mut decoder: impl Read + Send) -> io::Result<Bytes> {
    let mut out = Vec::new();
    while decoder.by_ref().take(COMPRESS_STEP as u64).read_to_end(&mut out)? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(Bytes::from(out))
}

/// How far a request has been handed to the connection. Shared by the body and by whoever watches it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pieces: AtomicU64,
}

/// The value of [`Progress`] when all has been handed over.
const ALL_SENT: u64 = u64::MAX;

impl Progress {
    /// A number that changes with each piece; `None` when all has been handed over.
    pub(crate) fn pieces(&self) -> Option<u64> {
        Some(self.pieces.load(Ordering::Relaxed)).filter(|pieces| *pieces != ALL_SENT)
    }
}

/// A body of known length, so that hyper sends `Content-Length` and the server can tell a cut body from a whole one.
pub(crate) struct Segments {
    segments: std::vec::IntoIter<Bytes>,
    current: Bytes,
    left: u64,
    progress: Arc<Progress>,
}

impl Segments {
    /// The segments, which are shared and not copied.
    pub(crate) fn new(segments: Vec<Bytes>, progress: Arc<Progress>) -> Self {
        let left: usize = segments.iter().map(Bytes::len).sum();
        let body =
            Self { segments: segments.into_iter(), current: Bytes::new(), left: left as u64, progress };
        body.note();
        body
    }

    fn note(&self) {
        if self.left == 0 {
            self.progress.pieces.store(ALL_SENT, Ordering::Relaxed);
        } else {
            self.progress.pieces.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.current.is_empty() {
            match self.segments.next() {
                Some(segment) => self.current = segment,
                None => return Poll::Ready(None),
            }
        }
        let size = self.current.len().min(PIECE);
        let piece = self.current.split_to(size);
        self.left -= piece.len() as u64;
        self.note();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn compressed_segments_read_back_as_one() {
        let segments: Vec<Bytes> =
            (0..40_u8).map(|n| Bytes::from(vec![n % 3; 10_000 * n as usize])).collect();
        for &compression in Compression::ALL {
            let packed = pack(compression, segments.clone()).await.unwrap();
            let size: usize = packed.iter().map(Bytes::len).sum();
            let unpacked = unpack(compression, packed).await.unwrap();
            assert_eq!(unpacked, segments.concat());
            assert_eq!(size < unpacked.len() / 20, compression != Compression::None, "{compression:?}");
        }
    }

    #[tokio::test]
    async fn a_body_knows_its_length_and_reports_its_end() {
        let progress = Arc::new(Progress::default());
        let parts = vec![Bytes::from(vec![1; PIECE + 1]), Bytes::new(), Bytes::from_static(b"end")];
        let mut body = Segments::new(parts.clone(), Arc::clone(&progress));
        assert_eq!(body.size_hint().exact(), Some(PIECE as u64 + 4));
        let first = progress.pieces();
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece.len(), PIECE);
        assert!(progress.pieces().is_some() && progress.pieces() != first);
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(&rest[..], b"\x01end");
        assert_eq!(progress.pieces(), None);
    }

    #[test]
    fn an_empty_body_is_sent_at_once() {
        let progress = Arc::new(Progress::default());
        assert!(Segments::new(Vec::new(), Arc::clone(&progress)).is_end_stream());
        assert_eq!(progress.pieces(), None);
    }
}
