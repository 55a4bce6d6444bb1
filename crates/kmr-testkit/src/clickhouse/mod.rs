//! Starts ClickHouse servers and gives each test a database of its own.

mod builder;
mod config;
mod database;
mod server;

pub use self::builder::ClickHouseBuilder;
pub use self::config::ServerConfig;
pub use self::database::Database;
pub use self::server::ClickHouse;
