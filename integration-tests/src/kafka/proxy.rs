//! A proxy in front of a broker. It holds back one commit of offsets and delivers it later.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use kmr_testkit::{Deadline, Kafka, free_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::listeners::proxied;
use crate::wait::wait_for;

/// The number of OffsetCommit in Kafka's protocol.
const OFFSET_COMMIT: [u8; 2] = [0, 8];

/// A broker of the test's own, and a proxy for the clients that are to meet its faults.
#[derive(Debug)]
pub struct KafkaProxy {
    kafka: Kafka,
    address: String,
    hold: Arc<Mutex<Hold>>,
}

/// Whether the proxy holds the next commit back.
#[derive(Debug, Default)]
enum Hold {
    #[default]
    Off,
    Next,
    Held(HeldCommit),
}

/// A request that the broker has not received, with the open connection to the broker.
#[derive(Debug)]
pub struct HeldCommit {
    frame: Vec<u8>,
    broker: (OwnedReadHalf, OwnedWriteHalf),
}

impl KafkaProxy {
    /// Starts the broker and the proxy. The proxy runs as long as the runtime.
    ///
    /// # Errors
    ///
    /// When the broker cannot be started.
    pub async fn start() -> Result<Self> {
        let behind = free_port()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = listener.local_addr()?.port();
        let kafka = proxied(behind, proxy)?.start().await?;
        let hold = Arc::<Mutex<Hold>>::default();
        let shared = hold.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Errors of broken connections are intended.
                let serve = serve(client, format!("127.0.0.1:{behind}"), shared.clone());
                tokio::spawn(async move { serve.await.ok() });
            }
        });
        Ok(Self { kafka, address: format!("127.0.0.1:{proxy}"), hold })
    }

    /// The broker without the proxy.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// `host:port` of the proxy, for `bootstrap.servers`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Holds the next commit back and closes the connection of its client.
    ///
    /// # Errors
    ///
    /// When no client commits in time.
    pub async fn hold_commit(&self, deadline: Deadline) -> Result<HeldCommit> {
        *self.hold() = Hold::Next;
        wait_for(deadline, "the proxy holds a commit", async || {
            let mut hold = self.hold();
            match std::mem::take(&mut *hold) {
                Hold::Held(held) => Ok(Some(held)),
                other => {
                    *hold = other;
                    Ok(None)
                }
            }
        })
        .await
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldCommit {
    /// Delivers the request to the broker, and waits for its response.
    ///
    /// # Errors
    ///
    /// When the broker has closed the connection.
    pub async fn deliver(mut self) -> Result<()> {
        let (responses, requests) = (&mut self.broker.0, &mut self.broker.1);
        requests.write_all(&self.frame).await.context("delivering the held commit")?;
        read_frame(responses).await.context("reading the response to the held commit").map(drop)
    }
}

/// A proxy that forwards the responses of `target` one by one, with this time between two. It runs
/// as long as the runtime. Returns its address.
///
/// # Errors
/// No port is free.
pub async fn slow_responses(target: &str, pause: Duration) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, target) = (listener.local_addr()?.to_string(), target.to_owned());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&target).await else { continue };
            let (mut requests, mut to_client) = client.into_split();
            let (mut responses, mut to_server) = server.into_split();
            let there = async move { tokio::io::copy(&mut requests, &mut to_server).await };
            let back = async move {
                loop {
                    to_client.write_all(&read_frame(&mut responses).await?).await?;
                    tokio::time::sleep(pause).await;
                }
            };
            // Errors of broken connections are intended.
            tokio::spawn(async move {
                let back: Result<()> = tokio::select! { _ = there => Ok(()), ended = back => ended };
                back.ok()
            });
        }
    });
    Ok(address)
}

/// Forwards the requests of one client one by one, so that the responses match them. Returns at the
/// end of the connection.
async fn serve(client: TcpStream, broker: String, hold: Arc<Mutex<Hold>>) -> Result<()> {
    client.set_nodelay(true)?;
    let broker = TcpStream::connect(broker).await?;
    broker.set_nodelay(true)?;
    let (mut requests, mut to_client) = client.into_split();
    let (mut responses, mut to_broker) = broker.into_split();
    // librdkafka sends several requests before the first response, and a fetch may take long.
    let mut open = 0_u32;
    let (mut request, mut response) = (Frame::default(), Frame::default());
    loop {
        tokio::select! {
            frame = request.read(&mut requests) => {
                let frame = frame?;
                if frame.get(4..6) == Some(&OFFSET_COMMIT) && is_wanted(&hold) {
                    // The responses that are still due belong to the closed connection.
                    while open > 0 {
                        response.read(&mut responses).await?;
                        open -= 1;
                    }
                    let held = HeldCommit { frame, broker: (responses, to_broker) };
                    *hold.lock().unwrap_or_else(PoisonError::into_inner) = Hold::Held(held);
                    return Ok(());
                }
                to_broker.write_all(&frame).await?;
                open += 1;
            }
            frame = response.read(&mut responses) => {
                to_client.write_all(&frame?).await?;
                open = open.saturating_sub(1);
            }
        }
    }
}

fn is_wanted(hold: &Mutex<Hold>) -> bool {
    matches!(*hold.lock().unwrap_or_else(PoisonError::into_inner), Hold::Next)
}

/// A frame that is partly read.
#[derive(Default)]
struct Frame(Vec<u8>);

impl Frame {
    /// Reads one frame, with its length of 4 bytes. Cancel safe: what was read is kept.
    async fn read(&mut self, from: &mut OwnedReadHalf) -> Result<Vec<u8>> {
        loop {
            let missing = match self.0.first_chunk::<4>() {
                None => 4 - self.0.len(),
                Some(length) => 4 + u32::from_be_bytes(*length) as usize - self.0.len(),
            };
            if missing == 0 {
                return Ok(std::mem::take(&mut self.0));
            }
            let mut part = vec![0; missing];
            let read = from.read(&mut part).await?;
            anyhow::ensure!(read > 0, "the connection has ended");
            self.0.extend_from_slice(&part[..read]);
        }
    }
}

async fn read_frame(from: &mut OwnedReadHalf) -> Result<Vec<u8>> {
    Frame::default().read(from).await
}
