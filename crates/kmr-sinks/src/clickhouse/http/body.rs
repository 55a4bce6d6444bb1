//! The body of a request: shared by all attempts, compressed once, sent in small frames.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::clickhouse::compression::Compression;

/// Size of the frames of a body, so that the sender can observe progress.
const FRAME: usize = 64 << 10;
/// Input bytes between two points where other tasks can run: about half a millisecond of LZ4.
const COMPRESS_STEP: usize = 256 << 10;
/// Half the size of LZ4 on typical rows, at about half of its speed. Higher levels gain little.
#[cfg(feature = "clickhouse-zstd")]
const ZSTD_LEVEL: i32 = 1;

/// Compresses `segments` into a body. Yields to other tasks of the thread.
pub(crate) async fn compress(compression: Compression, segments: Vec<Bytes>) -> io::Result<Vec<Bytes>> {
    let input: usize = segments.iter().map(Bytes::len).sum();
    // Typical rows shrink to a half or less: one allocation in most cases.
    let out = Vec::with_capacity(input / 2 + 64);
    let mut compressed = match compression {
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
    compressed.shrink_to_fit();
    Ok(vec![Bytes::from(compressed)])
}

/// The input of [`compress`], contiguous.
pub(crate) async fn decompress(compression: Compression, compressed: Vec<Bytes>) -> io::Result<Bytes> {
    let joined = match <[Bytes; 1]>::try_from(compressed) {
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

/// How much of a body the connection has read. The body writes it and the sender reads it.
#[derive(Debug, Default)]
pub(crate) struct UploadProgress {
    frames: AtomicU64,
}

/// The value of [`UploadProgress`] after the last frame.
const ALL_SENT: u64 = u64::MAX;

impl UploadProgress {
    /// A number that changes with each frame; `None` after the last one.
    pub(crate) fn frames(&self) -> Option<u64> {
        Some(self.frames.load(Ordering::Relaxed)).filter(|frames| *frames != ALL_SENT)
    }
}

/// A body of known length: hyper sends `Content-Length`, so the server detects a truncated body.
pub(crate) struct Segments {
    segments: std::vec::IntoIter<Bytes>,
    current: Bytes,
    left: u64,
    progress: Arc<UploadProgress>,
}

impl Segments {
    pub(crate) fn new(segments: Vec<Bytes>, progress: Arc<UploadProgress>) -> Self {
        let left: usize = segments.iter().map(Bytes::len).sum();
        let body =
            Self { segments: segments.into_iter(), current: Bytes::new(), left: left as u64, progress };
        body.record();
        body
    }

    fn record(&self) {
        if self.left == 0 {
            self.progress.frames.store(ALL_SENT, Ordering::Relaxed);
        } else {
            self.progress.frames.fetch_add(1, Ordering::Relaxed);
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
        let size = self.current.len().min(FRAME);
        let frame = self.current.split_to(size);
        self.left -= frame.len() as u64;
        self.record();
        Poll::Ready(Some(Ok(Frame::data(frame))))
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
    async fn segments_are_restored_from_their_compressed_form() {
        let segments: Vec<Bytes> =
            (0..40_u8).map(|n| Bytes::from(vec![n % 3; 10_000 * n as usize])).collect();
        for &compression in Compression::ALL {
            let compressed = compress(compression, segments.clone()).await.unwrap();
            let size: usize = compressed.iter().map(Bytes::len).sum();
            let restored = decompress(compression, compressed).await.unwrap();
            assert_eq!(restored, segments.concat());
            assert_eq!(size < restored.len() / 20, compression != Compression::None, "{compression:?}");
        }
    }

    #[tokio::test]
    async fn a_body_knows_its_length_and_reports_its_end() {
        let progress = Arc::new(UploadProgress::default());
        let parts = vec![Bytes::from(vec![1; FRAME + 1]), Bytes::new(), Bytes::from_static(b"end")];
        let mut body = Segments::new(parts.clone(), Arc::clone(&progress));
        assert_eq!(body.size_hint().exact(), Some(FRAME as u64 + 4));
        let first = progress.frames();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame.len(), FRAME);
        assert!(progress.frames().is_some() && progress.frames() != first);
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(&rest[..], b"\x01end");
        assert_eq!(progress.frames(), None);
    }

    #[test]
    fn an_empty_body_is_sent_at_once() {
        let progress = Arc::new(UploadProgress::default());
        assert!(Segments::new(Vec::new(), Arc::clone(&progress)).is_end_stream());
        assert_eq!(progress.frames(), None);
    }
}
