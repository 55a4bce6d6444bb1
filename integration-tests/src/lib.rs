//! What the integration tests of kmr need beyond [`kmr_testkit`], which starts Kafka and
//! ClickHouse: the consumer under test as a process, proxies with faults, a broker with
//! permissions, a browser, images of kmr.
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
//! The README of kmr-testkit describes servers, images and cleanup. [`SecuredKafka`] is a broker
//! with SASL/SCRAM and ACLs. Child processes are killed when the test binary ends.

mod browser;
mod built_image;
pub mod consumer;
mod kafka;
mod keeper;
mod link;
mod process;
mod report;
mod scale;
mod wait;

pub use kmr_testkit::{
    ClickHouse, Database, Deadline, GroupState, Kafka, Message, Offsets, Produced, ProducerSettings, Server,
    ServerConfig, Topic, TopicSpec, Transactions, free_port, test_name, unique,
};

pub use self::browser::Browser;
pub use self::built_image::BuiltImage;
pub use self::kafka::{
    HeldCommit, KafkaProxy, SecuredKafka, User, slow_responses, with_false_listener, with_listeners,
};
pub use self::keeper::{ALICE, with_keeper};
pub use self::link::{Link, LinkState};
pub use self::process::{Process, Signal, program};
pub use self::report::log_line;
pub use self::scale::{records, soaking};
pub use self::wait::{wait_for, wait_until};
