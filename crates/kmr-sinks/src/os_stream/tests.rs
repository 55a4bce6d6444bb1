//! The writer over a stream that a test can observe, stall and close.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use kmr_core::{Attempt, Chunk, DeadLetter, Delivery, OwnedRecord, Reducer, Rows};
use serde::Serialize;

use super::thread::WriterThread;
use super::{JsonLines, OsStreamWriter};

/// A stream that records its bytes, and that a test can stall or close.
#[derive(Clone, Default)]
struct Pipe(Arc<(Mutex<PipeState>, Condvar)>);

#[derive(Default)]
struct PipeState {
    written: Vec<u8>,
    flushes: usize,
    writes: usize,
    stalled: bool,
    closed: bool,
}

impl Pipe {
    fn set(&self, change: impl FnOnce(&mut PipeState)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap()
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock().unwrap();
        state.writes += 1;
        self.0.1.notify_all();
        state = self.0.1.wait_while(state, |state| state.stalled).unwrap();
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.0.lock().unwrap().flushes += 1;
        Ok(())
    }
}

fn writer<T: Serialize + Send + 'static>(pipe: &Pipe) -> OsStreamWriter<T> {
    let mut writer = OsStreamWriter::stdout();
    let pipe = pipe.clone();
    writer.thread = Some(WriterThread::start("standard output", move || Box::new(pipe.clone())).unwrap());
    writer
}

fn batch<R: Reducer>(
    reducer: &mut R,
    rows: Vec<<R::Rows as Rows>::Item>,
) -> Box<dyn Delivery<Output = R::Output>> {
    let mut lines = reducer.new_rows();
    for row in rows {
        lines.push(row).unwrap();
    }
    reducer.accept(Chunk::new(lines, Vec::new())).unwrap();
    reducer.freeze().unwrap()
}

#[tokio::test]
async fn a_batch_is_acknowledged_when_it_is_written_and_flushed() {
    let pipe = Pipe::default();
    let batch = batch(&mut writer(&pipe), vec!["a\nb", "c"]);
    assert_eq!(batch.deliver(Attempt::new(1)).await.unwrap().output, 2);
    assert_eq!(pipe.text(), "\"a\\nb\"\n\"c\"\n");
    assert_eq!(pipe.0.0.lock().unwrap().flushes, 1);
}

#[tokio::test]
async fn a_closed_stream_is_fatal_and_named() {
    let pipe = Pipe::default();
    pipe.set(|state| state.closed = true);
    let error = batch(&mut writer(&pipe), vec![1]).deliver(Attempt::new(1)).await.unwrap_err();
    assert!(!error.is_retryable());
    let text = error.into_source().to_string();
    assert!(text.contains("standard output is closed: its reader has ended"), "{text}");
}

#[tokio::test]
async fn a_dropped_delivery_leaves_whole_lines_and_the_next_attempt_continues() {
    let pipe = Pipe::default();
    pipe.set(|state| state.stalled = true);
    // More than one write: 4 lines of 40 KiB.
    let rows: Vec<String> = (0..4).map(|n| n.to_string().repeat(40 << 10)).collect();
    let expected: String = rows.iter().map(|row| format!("\"{row}\"\n")).collect();
    let batch = batch(&mut writer(&pipe), rows);
    assert!(tokio::time::timeout(Duration::from_millis(20), batch.deliver(Attempt::new(1))).await.is_err());

    let second = batch.deliver(Attempt::new(2));
    pipe.set(|state| state.stalled = false);
    assert_eq!(second.await.unwrap().output, 4);
    assert_eq!(pipe.text(), expected);
}

#[tokio::test]
async fn a_dropped_delivery_is_not_completed_later() {
    let pipe = Pipe::default();
    pipe.set(|state| state.stalled = true);
    let rows: Vec<String> = (0..4).map(|n| n.to_string().repeat(40 << 10)).collect();
    let mut writer = writer(&pipe);
    let first = batch(&mut writer, rows);
    let delivery = tokio::time::timeout(Duration::from_secs(5), async {
        tokio::select! {
            _ = first.deliver(Attempt::new(1)) => panic!("the stream is stalled"),
            () = async { while pipe.0.0.lock().unwrap().writes == 0 { tokio::task::yield_now().await } } => {}
        }
    });
    delivery.await.unwrap();
    pipe.set(|state| state.stalled = false);
    // The thread writes the next batch only after it has stopped the first.
    batch(&mut writer, vec!["next".to_owned()]).deliver(Attempt::new(1)).await.unwrap();
    let text = pipe.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "one line of the dropped batch, then the next batch");
    assert_eq!(lines[1], "\"next\"");
}

/// A strategy's type constraints on its stages, for inference.
fn reduce<T, R: Reducer>(_rows_of: fn() -> T, reducer: R) -> R
where
    R::Rows: Rows<Item = T>,
{
    reducer
}

#[tokio::test]
async fn the_row_type_is_inferred_also_for_dead_letters() {
    let mut writer = reduce(
        || DeadLetter::new(OwnedRecord::new("events", 3, 42), "map 1", "no JSON"),
        OsStreamWriter::stderr(),
    );
    let mut lines = writer.new_rows();
    lines.push(DeadLetter::new(OwnedRecord::new("events", 3, 42), "map 1", "no JSON")).unwrap();
    assert!(writer.freeze().is_err(), "the writer has not started");
    writer.accept(Chunk::new(lines, Vec::new())).unwrap();
    let text = String::from_utf8(writer.open.clone()).unwrap();
    assert!(text.starts_with(r#"{"topic":"events","partition":3,"offset":42,"#), "{text}");
    assert!(text.contains(r#""error":"no JSON""#) && text.ends_with("}\n"), "{text}");
    assert_eq!(writer.options().max_in_flight, 1);
}

#[test]
fn a_row_without_a_json_form_is_a_row_error() {
    let mut lines = JsonLines::<std::collections::BTreeMap<Vec<u8>, u8>>::new();
    let error = lines.push([(vec![1], 1)].into()).unwrap_err();
    assert!(error.to_string().contains("cannot be written as JSON"), "{error}");
    assert_eq!(lines.len(), 0);
}
