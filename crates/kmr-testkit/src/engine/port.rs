//! Ports of the loopback address for servers.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context as _, ErrorKind, Result};

/// Range of published ports. It is below the kernel's range for outgoing connections, so that the
/// port of a stopped server is still free when it restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Returns a free port of the loopback address, from 20000 to 31999, outside the range of outgoing
/// connections. No call of this process gets the port of another, because a server binds it only
/// later.
///
/// # Errors
///
/// [`ErrorKind::PortTaken`], when 100 random ports are taken.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    (0..100)
        .map(|_| fastrand::u16(PORTS))
        .find(|port| bind(*port).is_ok() && given.insert(*port))
        .context(ErrorKind::PortTaken, || "no free port between 20000 and 32000 in 100 tries".to_owned())
}

/// Checks that a port of the test's choice is free.
pub(crate) fn check_free(port: u16) -> Result<u16> {
    let remedy = "end the program that has it, or leave the choice to kmr-testkit";
    bind(port).context(ErrorKind::PortTaken, || format!("port {port} of 127.0.0.1 is taken: {remedy}"))?;
    Ok(port)
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_it() -> Result<()> {
        let port = free_port()?;
        assert_eq!(check_free(port)?, port);
        let _holder = bind(port);
        let error = check_free(port).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PortTaken);
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        Ok(())
    }
}
