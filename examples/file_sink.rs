//! A sink of files: each batch is a file of JSON lines, which appears whole or not at all.
//!
//! Shows two traps. An attempt that timed out may still write, so each attempt has a file of its
//! own until it renames it. And after a crash the next owner cuts its batches elsewhere, so a name
//! of the first offset alone would let its batch replace another one, and lose rows.
//!
//! ```sh
//! cargo run -p kmr-examples --example file_sink
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Consumer, Delivered, Delivery, DeliveryError, Record, Reducer,
    SourceRange, async_trait, processing_strategy,
};
use kmr_examples::{expect_same, run_to_end};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Reading {
    sensor: u32,
    celsius: f64,
}

/// The map stage makes the line, in parallel. The sink only writes.
fn line(record: &Record<'_>) -> Result<String, BoxError> {
    let reading: Reading = serde_json::from_slice(record.payload().ok_or("a tombstone")?)?;
    Ok(serde_json::to_string(&reading)?)
}

struct JsonLines {
    folder: PathBuf,
    max_rows: usize,
    open: Vec<String>,
    sources: Vec<SourceRange>,
}

impl JsonLines {
    fn new(folder: &Path, max_rows: usize) -> Self {
        Self { folder: folder.to_owned(), max_rows, open: Vec::new(), sources: Vec::new() }
    }
}

#[async_trait]
impl Reducer for JsonLines {
    type Rows = Vec<String>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        // In your program: larger files, such as 100,000 rows and a minute.
        BatchOptions::default().with_max_rows(self.max_rows).with_max_age(Duration::from_millis(50))
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        Ok(fs::create_dir_all(&self.folder)?) // an error ends the consumer before it reads
    }

    fn new_rows(&self) -> Vec<String> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<String>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        self.sources.extend(chunk.sources);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        let text = std::mem::take(&mut self.open).join("\n") + "\n";
        let path = self.folder.join(name(&std::mem::take(&mut self.sources)));
        Ok(Box::new(Batch { path, text: text.into() }))
    }
}

/// All ranges of a batch. Two batches have the same name only if they have the same records. With
/// dozens of partitions, write a hash of this text: names of files have 255 bytes at most.
fn name(sources: &[SourceRange]) -> String {
    let range = |s: &SourceRange| format!("{}-{}-{}", s.partition.partition(), s.first, s.last);
    let mut ranges: Vec<_> = sources.iter().map(range).collect();
    ranges.sort(); // in any order, the name is the same
    ranges.join("_") + ".ndjson"
}

struct Batch {
    path: PathBuf,
    text: std::sync::Arc<str>,
}

#[async_trait]
impl Delivery for Batch {
    type Output = ();

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<()>, DeliveryError> {
        let (path, text) = (self.path.clone(), self.text.clone());
        let part = path.with_extension(format!("{}-{}.part", std::process::id(), attempt.number));
        // A thread for blocking work: a slow disk must not stop the other tasks.
        let stored = tokio::task::spawn_blocking(move || store(&part, &path, &text)).await;
        stored.map_err(DeliveryError::fatal)?.map_err(DeliveryError::retryable)?;
        Ok(Delivered::new(()))
    }
}

/// `Ok` promises that the batch survives a crash: file and folder are on the disk.
fn store(part: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(part, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("readings", 2)?;
    let reading =
        |n: i32| NewRecord::new(n % 2).with_payload(format!(r#"{{"sensor": {n}, "celsius": {}.5}}"#, n % 40));
    cluster.produce("readings", (0..1000).map(reading))?;

    let folder = std::env::temp_dir().join(format!("kmr-file-sink-{}", std::process::id()));
    // The second group reads all records again and cuts its batches elsewhere, as the next owner
    // does after a crash. Its files are further files: rows come twice, and none is lost.
    for (group, max_rows) in [("first-owner", 100), ("next-owner", 70)] {
        let consumer = Consumer::builder()
            .topics(["readings"])
            .config(cluster.client_config(group))
            .commit_interval(Duration::from_millis(50))
            .strategy(processing_strategy!({ map => line, reduce => JsonLines::new(&folder, max_rows) }))
            .build()?;
        run_to_end(consumer, &cluster, &["readings"]).await?;
        let (files, sensors) = read(&folder)?;
        println!("after {group}: {files} files, {} sensors", sensors.len());
        expect_same("sensors", &sensors.len(), &1000)?;
    }
    Ok(fs::remove_dir_all(folder)?)
}

/// The files of a folder, and the sensors in them.
fn read(folder: &Path) -> Result<(usize, BTreeSet<u32>), BoxError> {
    let (mut files, mut sensors) = (0, BTreeSet::new());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        expect_same("only whole files", &path.extension().and_then(|e| e.to_str()), &Some("ndjson"))?;
        files += 1;
        for line in fs::read_to_string(path)?.lines() {
            sensors.insert(serde_json::from_str::<Reading>(line)?.sensor);
        }
    }
    Ok((files, sensors))
}
