//! The status page of a consumer, with a sink that is slow and fails at first.
//!
//! One line starts the server. The example reads its own page, health and status over HTTP, then
//! ends. With an address as its argument it serves there until SIGINT, for your browser, and the
//! sink fails for a minute in every three.
//!
//! ```sh
//! cargo run -p kmr-examples --example status_page -- 127.0.0.1:9464
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Consumer, Delivered, Delivery, DeliveryError, Record, Reducer,
    Watchdog, async_trait, processing_strategy,
};
use kmr_examples::expect_same;
use kmr_sinks::MemoryWriter;
use kmr_status::StatusServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PARTITIONS: i32 = 6;
/// How long the sink of the demonstration fails, and after how long it fails again.
const OUTAGE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(180));

fn parse(record: &Record<'_>) -> Result<u64, BoxError> {
    let text = std::str::from_utf8(record.payload().ok_or("a tombstone")?)?;
    Ok(text.parse()?)
}

/// Counts rows, slowly. It fails once in a while, as a database does that is restarted.
struct SlowSink {
    rows: usize,
    is_down: Arc<dyn Fn() -> bool + Send + Sync>,
}

struct SlowBatch {
    rows: usize,
    is_down: Arc<dyn Fn() -> bool + Send + Sync>,
}

#[async_trait]
impl Reducer for SlowSink {
    type Rows = Vec<u64>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        BatchOptions::default().with_max_rows(500).with_max_age(Duration::from_millis(200))
    }

    fn new_rows(&self) -> Vec<u64> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<u64>>) -> Result<(), BoxError> {
        self.rows += chunk.rows.len();
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        let rows = std::mem::take(&mut self.rows);
        Ok(Box::new(SlowBatch { rows, is_down: self.is_down.clone() }))
    }
}

#[async_trait]
impl Delivery for SlowBatch {
    type Output = usize;

    async fn deliver(&self, _: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if (self.is_down)() {
            return Err(DeliveryError::retryable("the database is being restarted").with_code("503"));
        }
        Ok(Delivered::new(self.rows))
    }
}

/// A GET request. Returns the response with its head.
async fn get(address: SocketAddr, path: &str) -> Result<String, BoxError> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    connection.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = std::env::args().nth(1);
    let shows = address.is_some();
    let cluster = Arc::new(EmbeddedCluster::start()?);
    cluster.create_topic("numbers", PARTITIONS)?;
    let started = Instant::now();
    let is_down = move || {
        let at = started.elapsed().as_secs() % OUTAGE.1.as_secs();
        shows && at >= OUTAGE.1.as_secs() - OUTAGE.0.as_secs()
    };

    let failed = MemoryWriter::new().max_age(Duration::from_millis(50));
    let consumer = Consumer::builder()
        .topics(["numbers"])
        .config(cluster.client_config("status-page"))
        .watchdog(Watchdog::default().with_warn_after(Duration::from_secs(10)))
        .strategy(processing_strategy!({
            map => parse,
            reduce => SlowSink { rows: 0, is_down: Arc::new(is_down) },
            reduce_err => failed,
        }))
        .build()?;
    let handle = consumer.handle();
    // The line that adds the page.
    let server = StatusServer::new(consumer.handle())
        .bind(address.as_deref().unwrap_or("127.0.0.1:0"))
        .spawn()
        .await?;
    println!("status page: http://{}/", server.address());
    let running = tokio::spawn(consumer.run());

    if shows {
        produce_forever(&cluster, running).await
    } else {
        produce(&cluster, 0..1000).await?;
        let caught_up = async {
            while handle.stats().rows.values().sum::<u64>() < 1000 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), caught_up).await?;
        for path in ["/", "/livez", "/readyz", "/status", "/metrics"] {
            let response = get(server.address(), path).await?;
            println!("{path}: {}", response.lines().next().unwrap_or_default());
        }
        let status = handle.status().await;
        println!("{} partitions, {} records", status.partitions.len(), status.totals.records);
        handle.stop();
        running.await??;
        let readyz = get(server.address(), "/readyz").await?;
        println!("after the end: {}", readyz.lines().next().unwrap_or_default());
        expect_same("records", &status.totals.records, &1000)
    }
}

/// Every 97th record is no number.
async fn produce(cluster: &Arc<EmbeddedCluster>, numbers: std::ops::Range<u64>) -> Result<(), BoxError> {
    let cluster = cluster.clone();
    let record = |n: u64| {
        let partition = i32::try_from(n).unwrap_or(0) % PARTITIONS;
        NewRecord::new(partition).with_payload(if n % 97 == 13 {
            "unlucky".to_owned()
        } else {
            n.to_string()
        })
    };
    let produced = move || cluster.produce("numbers", numbers.map(record));
    Ok(tokio::task::spawn_blocking(produced).await??)
}

async fn produce_forever(
    cluster: &Arc<EmbeddedCluster>,
    mut running: tokio::task::JoinHandle<Result<kmr_core::RunReport, kmr_core::Error>>,
) -> Result<(), BoxError> {
    let (mut next, mut ticks) = (0, tokio::time::interval(Duration::from_millis(500)));
    loop {
        tokio::select! {
            ended = &mut running => return Ok(ended?.map(drop)?),
            _ = ticks.tick() => {
                let amount = 400 + next / 7 % 500;
                produce(cluster, next..next + amount).await?;
                next += amount;
            }
        }
    }
}
