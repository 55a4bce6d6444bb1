//! Facts for tests.

use std::time::Duration;

use kmr_cli_support::ingest::Protocol;
use kmr_sinks::clickhouse::EngineClass;

use super::facts::{
    Access, ClickHouseFacts, Facts, KafkaFacts, PartitionFacts, SettingsFacts, TableFacts, Writer,
};

/// Facts that pass every check.
pub(super) fn facts() -> Facts {
    let partition = |id| PartitionFacts {
        id,
        leader: Some(1),
        replicas: 1,
        in_sync: 1,
        log: Some((10, 20)),
        no_log: None,
        end: Some(20),
        committed: Some(15),
    };
    let apis = ["Fetch", "Metadata", "ConsumerGroupHeartbeat"].map(|name| (name.to_owned(), (0, 12)));
    Facts {
        settings: SettingsFacts::default(),
        kafka: KafkaFacts {
            address: "b:9092".into(),
            topic: "events".into(),
            group: "g".into(),
            protocol: Protocol::Cooperative,
            all_silent: false,
            brokers: Ok([(1, "b:9092".into()), (2, "d:9092".into())].into()),
            apis: apis.into(),
            partitions: Ok(vec![partition(0), partition(1)]),
            coordinator: Ok(()),
            may_read: Access::Allowed,
            may_commit: Access::Allowed,
            group_state: Ok(None),
            committed: Ok(()),
            dead_letters: None,
        },
        sink_topic: None,
        registry: Vec::new(),
        clickhouse: ClickHouseFacts {
            address: "c:8123".into(),
            table: "db.t".into(),
            version: Ok("26.7".into()),
            tables: Ok(vec![TableFacts {
                name: "db.t".into(),
                engine: "MergeTree".into(),
                class: Some(EngineClass::Durable),
                window: Some(1_000),
                parts: 3,
                parts_to_delay: 1_000,
                parts_to_throw: 3_000,
                ..TableFacts::default()
            }]),
            row: Ok(()),
            may_insert: Access::Allowed,
            profile: Ok([("insert_deduplicate".to_owned(), "1".to_owned())].into()),
            start: Ok(()),
            addresses: Ok(vec![([127, 0, 0, 1].into(), Ok(()))]),
        },
        writer: Writer { max_age: Duration::from_secs(4) },
    }
}
