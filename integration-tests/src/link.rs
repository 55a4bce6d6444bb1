//! A TCP connection to a server that a test can cut, slow down or silence.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a link does with the bytes of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It forwards them.
    Open,
    /// It closes all connections, and each new one.
    Cut,
    /// It forwards them after this time.
    Delayed(Duration),
    /// It takes them and forwards nothing, in both directions: half-open connections. They are
    /// closed when this ends.
    Silent,
}

/// A proxy in front of a server. It runs as long as the runtime.
#[derive(Debug)]
pub struct Link {
    port: u16,
    target: Arc<Mutex<Option<String>>>,
    state: watch::Sender<LinkState>,
}

impl Link {
    /// A link that leads nowhere until [`Link::lead_to`].
    ///
    /// # Errors
    /// No port is free.
    pub async fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let target = Arc::<Mutex<Option<String>>>::default();
        let (state, states) = watch::channel(LinkState::Open);
        let known = target.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let Some(target) = target else { continue };
                // Broken connections are what a link is for.
                let serve = serve(client, target, states.clone());
                tokio::spawn(async move { serve.await.ok() });
            }
        });
        Ok(Self { port, target, state })
    }

    /// Leads new connections to `host:port`.
    pub fn lead_to(&self, address: &str) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(address.to_owned());
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens with bytes from now on, also on open connections.
    pub fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }
}

async fn serve(client: TcpStream, target: String, states: watch::Receiver<LinkState>) -> Result<()> {
    if *states.borrow() == LinkState::Cut {
        return Ok(());
    }
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = states.clone();
    tokio::select! {
        result = copy(from_client, to_server, states.clone()) => result,
        result = copy(from_server, to_client, states) => result,
        _ = cut.wait_for(|state| *state == LinkState::Cut) => Ok(()),
    }
}

/// Copies until the end of one direction, which ends both.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<LinkState>,
) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let state = *states.borrow();
        match state {
            LinkState::Open | LinkState::Cut => {}
            LinkState::Delayed(time) => tokio::time::sleep(time).await,
            LinkState::Silent => {
                // What was read is lost, so the connection cannot be used any more.
                states.wait_for(|state| *state != LinkState::Silent).await?;
                return Ok(());
            }
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A server that sends back what it reads.
    async fn echo() -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        Ok(address)
    }

    async fn connect(link: &Link) -> Result<TcpStream> {
        Ok(TcpStream::connect(("127.0.0.1", link.port())).await?)
    }

    /// What comes back within a second. Empty: the connection has ended. `None`: nothing.
    async fn exchange(stream: &mut TcpStream) -> Option<Vec<u8>> {
        stream.write_all(b"x").await.ok()?;
        let mut answer = [0; 8];
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await.ok()?;
        Some(answer[..read.unwrap_or(0)].to_vec())
    }

    #[tokio::test]
    async fn a_link_forwards_cuts_delays_and_falls_silent() -> Result<()> {
        let link = Link::new().await?;
        link.lead_to(&echo().await?);
        let mut stream = connect(&link).await?;
        assert_eq!(exchange(&mut stream).await.as_deref(), Some(&b"x"[..]));
        link.set(LinkState::Delayed(Duration::from_millis(100)));
        let started = Instant::now();
        assert_eq!(exchange(&mut stream).await.as_deref(), Some(&b"x"[..]));
        assert!(started.elapsed() >= Duration::from_millis(200), "once in each direction");
        link.set(LinkState::Silent);
        assert_eq!(exchange(&mut stream).await, None);
        link.set(LinkState::Open);
        assert_eq!(exchange(&mut stream).await.as_deref(), Some(&b""[..]), "it is closed");
        let mut stream = connect(&link).await?;
        assert_eq!(exchange(&mut stream).await.as_deref(), Some(&b"x"[..]));
        link.set(LinkState::Cut);
        assert_ne!(exchange(&mut stream).await.as_deref(), Some(&b"x"[..]));
        assert_ne!(exchange(&mut connect(&link).await?).await.as_deref(), Some(&b"x"[..]));
        Ok(())
    }
}
