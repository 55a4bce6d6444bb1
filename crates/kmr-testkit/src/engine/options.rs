//! Options that the builders of both servers have.

use std::time::Duration;

use super::image::{Image, Service};
use super::port::{check_free, free_port};
use crate::error::Result;

/// How to start a server.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) image: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) start_timeout: Duration,
}

impl Options {
    pub(crate) fn new(start_timeout: Duration) -> Self {
        Self { image: None, port: None, start_timeout }
    }

    /// The port of the caller's choice, which has to be free, or a free one.
    pub(crate) fn port(&self) -> Result<u16> {
        self.port.map_or_else(free_port, check_free)
    }

    pub(crate) async fn image(&self, service: Service) -> Result<Image> {
        Image::choose(service, self.image.clone()).await
    }
}
