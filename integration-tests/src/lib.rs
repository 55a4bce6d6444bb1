//! Starts real Kafka and real ClickHouse for tests, with one line each.
//!
//! ```text
//! use integration_tests::{ClickHouse, Deadline, Kafka, Message, test_name, wait_until};
//!
//! #[tokio::test]
//! async fn records_arrive() -> anyhow::Result<()> {
//!     let topic = Kafka::shared().await?.create_topic(test_name!(), 8).await?;
//!     let database = ClickHouse::shared().await?.database(test_name!()).await?;
//!     topic.produce((0..1000).map(|n| Message::new(format!("{n}")))).await?;
//!     // … start a consumer, then:
//!     let group = "records-arrive";
//!     let committed = async || Ok(topic.lag(group).await? == 0);
//!     wait_until(Deadline::seconds(30), "all records are committed", committed).await?;
//!     assert_eq!(database.count("events").await?, 1000);
//!     Ok(())
//! }
//! ```
//!
//! # Which servers
//!
//! `shared()` gives every test of one test binary the same server. A test uses a topic, a group and
//! a database of its own ([`unique`], [`test_name!`]). `own()` is for a test that stops or
//! kills a server. [`Kafka::secured`] is a broker with SASL/SCRAM and ACLs. The addresses come
//! from, in this order:
//!
//! 1. `KMR_TEST_KAFKA` and `KMR_TEST_CLICKHOUSE` (`host:port` and `http://host:port`), for the
//!    shared servers;
//! 2. the official images, if the container engine has them;
//! 3. the images built from the recipes in `docker/`, if the engine has them;
//! 4. the official images, if the engine can pull them.
//!
//! `cargo xtask services` and `cargo xtask test` try to pull an image before they build it.
//! `KMR_TEST_IMAGES=official` or `=local` allows only one kind of image. The harness logs each
//! server with its version on standard error. Without a server the test fails, and its error names
//! the remedy. No test is skipped.
//!
//! # Cleanup
//!
//! A helper process detects the end of the test binary and removes its containers and child
//! processes. The next run removes what a killed helper process has left.

#[macro_use]
mod names;

mod browser;
mod clickhouse;
pub mod clickhouse_config;
pub mod consumer;
mod deadline;
mod engine;
mod kafka;
mod link;
mod process;
mod report;
mod scale;

pub use self::browser::Browser;
pub use self::clickhouse::{ClickHouse, Database};
pub use self::deadline::{Deadline, wait_for, wait_until};
pub use self::engine::{BuiltImage, Server};
pub use self::kafka::{
    GroupState, HeldCommit, Kafka, KafkaProxy, Message, Offsets, Produced, ProducerSettings, SecuredKafka,
    Topic, TopicSpec, Transactions, User, slow_responses,
};
pub use self::link::{Link, LinkState};
#[doc(hidden)]
pub use self::names::caller_of;
pub use self::names::unique;
pub use self::process::{Process, Signal, program};
pub use self::report::log_line;
pub use self::scale::{records, soaking};
