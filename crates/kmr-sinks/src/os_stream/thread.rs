//! The thread that writes to the stream, so that a reader who stalls blocks neither a Tokio worker nor the program's end.
//!
//! 1. Lines are written in pieces of whole lines; between two pieces it is checked whether the caller still waits. A
//!    dropped delivery thus ends behind a whole line, and what was not begun is not written.
//! 2. How far a batch got is kept in the batch: the next attempt goes on there and writes no line twice.
//! 3. The thread is detached: one that is stuck in a full pipe does not keep the process from ending.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::OsStreamError;

/// Whole lines up to this size are written at once: few system calls, and a dropped delivery ends soon.
const PIECE: usize = 64 << 10;
/// Wait before a stream that is full and does not block is tried again.
const FULL_WAIT: Duration = Duration::from_millis(5);

/// The lines of one batch.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) bytes: Vec<u8>,
    /// Bytes written, up to the end of a line.
    written: AtomicUsize,
}

impl Lines {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: AtomicUsize::new(0) }
    }
}

/// A request to write a batch; `done` is closed when nobody waits for it any more.
struct Job {
    lines: Arc<Lines>,
    done: oneshot::Sender<io::Result<()>>,
}

/// The way to the writing thread. The thread ends when all clones are gone.
#[derive(Clone, Debug)]
pub(crate) struct WriterThread {
    jobs: mpsc::Sender<Job>,
    stream: &'static str,
}

impl WriterThread {
    /// Starts the thread; `open` gives the stream, locked, for the time of one batch.
    pub(crate) fn start<S>(stream: &'static str, mut open: S) -> Result<Self, OsStreamError>
    where
        S: FnMut() -> Box<dyn Write> + Send + 'static,
    {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("kmr-os-stream".into())
            .spawn(move || {
                for job in queue {
                    let result = write_lines(&mut *open(), &job);
                    // Nobody waits any more: the delivery was dropped.
                    let _ = job.done.send(result);
                }
            })
            .map_err(|_| OsStreamError::NoThread { stream })?;
        Ok(Self { jobs, stream })
    }

    /// Writes and flushes what is left of `lines`.
    ///
    /// # Cancel safety
    /// When the future is dropped the thread stops behind the line that it is at.
    pub(crate) async fn write(&self, lines: &Arc<Lines>) -> Result<(), OsStreamError> {
        let (done, result) = oneshot::channel();
        let gone = || OsStreamError::NoThread { stream: self.stream };
        self.jobs.send(Job { lines: Arc::clone(lines), done }).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?.map_err(|source| OsStreamError::from_io(self.stream, source))
    }
}

fn write_lines(stream: &mut dyn Write, job: &Job) -> io::Result<()> {
    let Lines { bytes, written } = &*job.lines;
    loop {
        let rest = &bytes[written.load(Ordering::Relaxed)..];
        if job.done.is_closed() {
            return Ok(());
        }
        if rest.is_empty() {
            return patiently(|| stream.flush());
        }
        let piece = whole_lines(rest);
        write_all(stream, piece)?;
        written.fetch_add(piece.len(), Ordering::Relaxed);
    }
}

/// The first lines of `bytes`, up to the size of a piece, and at least one.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let window = &bytes[..bytes.len().min(PIECE)];
    let end = window.iter().rposition(|byte| *byte == b'\n');
    let end = end.or_else(|| bytes.iter().position(|byte| *byte == b'\n'));
    end.map_or(bytes, |end| &bytes[..=end])
}

/// Like [`Write::write_all`], but a stream that does not block is waited for: half a line is worse than a late one.
fn write_all(stream: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match patiently(|| stream.write(bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

fn patiently<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_WAIT),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_line_ends() {
        assert_eq!(whole_lines(b"a\nb\n"), b"a\nb\n");
        let long = [vec![b'x'; PIECE + 5], b"\ny\n".to_vec()].concat();
        assert_eq!(whole_lines(&long).len(), PIECE + 6);
        let many = b"0123456789abcde\n".repeat(PIECE / 16 + 1);
        assert_eq!(whole_lines(&many).len(), PIECE);
    }

    /// Takes three bytes at a time, and every other time nothing.
    struct Reluctant<'a>(&'a mut Vec<u8>, bool);

    impl Write for Reluctant<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(3);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_takes_little_gets_all() {
        let mut taken = Vec::new();
        write_all(&mut Reluctant(&mut taken, false), b"0123456789\n").unwrap();
        assert_eq!(taken, b"0123456789\n");
    }

    #[test]
    fn a_job_that_nobody_waits_for_writes_nothing() {
        let (done, waiting) = oneshot::channel();
        drop(waiting);
        let job = Job { lines: Arc::new(Lines::new(b"a\n".to_vec())), done };
        let mut out = Vec::new();
        write_lines(&mut out, &job).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn a_second_attempt_goes_on_where_the_first_ended() {
        let lines = Arc::new(Lines::new(b"a\nb\n".to_vec()));
        lines.written.store(2, Ordering::Relaxed);
        let (done, _waiting) = oneshot::channel();
        let mut out = Vec::new();
        write_lines(&mut out, &Job { lines, done }).unwrap();
        assert_eq!(out, b"b\n");
    }
}
