//! One HTTP request to one server: hosts, connection, body, response.

pub(super) mod body;
pub(super) mod connect;
pub(super) mod credentials;
pub(super) mod endpoint;
pub(super) mod hosts;
pub(super) mod pool;
pub(super) mod query;
pub(super) mod request;
pub(super) mod response;
pub(super) mod rotation;
pub(super) mod secret;
pub(super) mod settings;
pub(super) mod status;
pub(super) mod stream;
pub(super) mod telemetry;
pub(super) mod throttle;
#[cfg(feature = "clickhouse-tls")]
pub(super) mod tls;
