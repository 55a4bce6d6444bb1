//! A consumer inside an axum service: one signal ends both in order.
//!
//! The service answers until the consumer has drained and committed, so its health is visible to
//! the end. If the consumer fails, the service ends too, and the process with an error. The status
//! page of kmr is a part of the service, below `/kmr`.
//!
//! ```sh
//! cargo run -p kmr-examples --example axum_service
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Record, processing_strategy};
use kmr_examples::{expect_same, http_get};
use kmr_sinks::{MemoryRecords, MemoryWriter};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

fn amount(record: &Record<'_>) -> Result<u64, BoxError> {
    Ok(std::str::from_utf8(record.payload().ok_or("a tombstone")?)?.parse()?)
}

/// A handler of the service's own.
async fn total(State(amounts): State<MemoryRecords<u64>>) -> String {
    amounts.lock().iter().sum::<u64>().to_string()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("payments", 3)?;
    cluster.produce("payments", (0..300).map(|n| NewRecord::new(n % 3).with_payload(n.to_string())))?;

    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let amounts = sink.records();
    // In your program: without `shutdown_signal`, which stands for SIGTERM here.
    let (stop, stopped) = oneshot::channel::<()>();
    let consumer = Consumer::builder()
        .topics(["payments"])
        .config(cluster.client_config("axum-service"))
        .shutdown_signal(async { drop(stopped.await) })
        .strategy(processing_strategy!({ map => amount, reduce => sink }))
        .build()?;

    let app = Router::new()
        .route("/total", get(total))
        .with_state(amounts)
        .nest("/kmr", kmr_status::router(consumer.handle()));
    // In your program: the address of your service.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    // The consumer receives the signal. Its end ends the service, whatever the reason is.
    let (ended, has_ended) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(has_ended.await) });
    let consuming = async move {
        let result = consumer.run().await;
        drop(ended);
        result
    };
    let serving = async { server.await };
    let (report, served, client) = tokio::join!(consuming, serving, use_and_stop(address, stop));
    client?;
    served?;
    println!("the consumer has ended: {} records, all committed", report?.stats.records);
    expect_same("committed offsets", &cluster.committed("axum-service", "payments")?.values().sum(), &300)
}

/// What happens from outside: requests, then the signal.
async fn use_and_stop(address: SocketAddr, stop: oneshot::Sender<()>) -> Result<(), BoxError> {
    let arrived = async {
        while !http_get(address, "/total").await?.ends_with("44850") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, BoxError>(())
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await??;
    for path in ["/total", "/kmr/livez", "/kmr/readyz"] {
        let response = http_get(address, path).await?;
        println!("{path}: {}", response.lines().next().unwrap_or_default());
    }
    stop.send(()).map_err(|()| "the consumer has ended before".into())
}
