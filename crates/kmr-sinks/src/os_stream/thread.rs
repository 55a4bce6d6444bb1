//! The thread that writes to the stream, so that a stalled reader blocks neither a Tokio worker nor
//! the exit of the program.
//!
//! 1. Each write has whole lines. Between two writes the thread checks whether the caller still
//!    waits. So a dropped delivery ends after a whole line, and later lines are not written.
//! 2. The batch holds its progress. The next attempt continues there and writes no line twice.
//! 3. The thread is detached: if it is blocked by a full pipe, the process can still exit.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::OsStreamError;

/// Maximum size of a write: few system calls, and a dropped delivery ends soon.
const WRITE_SIZE: usize = 64 << 10;
/// Wait before a retry on a full stream that does not block.
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

/// A request to write a batch. `done` is closed when its delivery was dropped.
struct Job {
    lines: Arc<Lines>,
    done: oneshot::Sender<io::Result<()>>,
}

/// A handle to the thread, which ends when all handles are dropped.
#[derive(Clone, Debug)]
pub(crate) struct WriterThread {
    jobs: mpsc::Sender<Job>,
    stream: &'static str,
}

impl WriterThread {
    /// Starts the thread. `open` locks the stream for one batch.
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
                    // An error means that the delivery was dropped.
                    let _ = job.done.send(result);
                }
            })
            .map_err(|_| OsStreamError::NoThread { stream })?;
        Ok(Self { jobs, stream })
    }

    /// Writes and flushes the rest of `lines`.
    ///
    /// # Cancel safety
    /// When the future is dropped, the thread stops after the current write.
    pub(crate) async fn write(&self, lines: &Arc<Lines>) -> Result<(), OsStreamError> {
        let (done, result) = oneshot::channel();
        let ended = || OsStreamError::NoThread { stream: self.stream };
        self.jobs.send(Job { lines: Arc::clone(lines), done }).map_err(|_| ended())?;
        result.await.map_err(|_| ended())?.map_err(|source| OsStreamError::from_io(self.stream, source))
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
            return retrying(|| stream.flush());
        }
        let lines = whole_lines(rest);
        write_all(stream, lines)?;
        written.fetch_add(lines.len(), Ordering::Relaxed);
    }
}

/// The first lines of `bytes`, up to [`WRITE_SIZE`], and at least one.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let window = &bytes[..bytes.len().min(WRITE_SIZE)];
    let end = window.iter().rposition(|byte| *byte == b'\n');
    let end = end.or_else(|| bytes.iter().position(|byte| *byte == b'\n'));
    end.map_or(bytes, |end| &bytes[..=end])
}

/// Like [`Write::write_all`], but it waits for a stream that does not block: half a line is worse
/// than a late one.
fn write_all(stream: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match retrying(|| stream.write(bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

fn retrying<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
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
    fn writes_end_at_line_ends() {
        assert_eq!(whole_lines(b"a\nb\n"), b"a\nb\n");
        let long = [vec![b'x'; WRITE_SIZE + 5], b"\ny\n".to_vec()].concat();
        assert_eq!(whole_lines(&long).len(), WRITE_SIZE + 6);
        let many = b"0123456789abcde\n".repeat(WRITE_SIZE / 16 + 1);
        assert_eq!(whole_lines(&many).len(), WRITE_SIZE);
    }

    /// Accepts three bytes at a time, and every other time none.
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
    fn a_slow_stream_receives_everything() {
        let mut taken = Vec::new();
        write_all(&mut Reluctant(&mut taken, false), b"0123456789\n").unwrap();
        assert_eq!(taken, b"0123456789\n");
    }

    #[test]
    fn a_dropped_job_writes_nothing() {
        let (done, waiting) = oneshot::channel();
        drop(waiting);
        let job = Job { lines: Arc::new(Lines::new(b"a\n".to_vec())), done };
        let mut out = Vec::new();
        write_lines(&mut out, &job).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn a_second_attempt_continues_where_the_first_ended() {
        let lines = Arc::new(Lines::new(b"a\nb\n".to_vec()));
        lines.written.store(2, Ordering::Relaxed);
        let (done, _waiting) = oneshot::channel();
        let mut out = Vec::new();
        write_lines(&mut out, &Job { lines, done }).unwrap();
        assert_eq!(out, b"b\n");
    }
}
