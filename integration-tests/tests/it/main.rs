//! Tests of kmr on real Kafka and real ClickHouse, in one binary so that they share the servers.
//!
//! If several tests fail, start with those of `harness` and `testkit`: all others depend on them.

mod harness;
mod testkit;
mod testkit_example;

// Helpers without tests.
mod in_process;
mod load;
mod programs;
mod scene;
mod served;
mod writer;

// The ClickHouse sink without a consumer.
mod clickhouse_errors;
mod clickhouse_faults;
mod clickhouse_proxies;
mod clickhouse_ranges;
mod clickhouse_rejections;
mod clickhouse_types;
mod engines;
mod json_rows;
mod json_tables;
mod profiles;

// The whole pipeline.
mod bad_input;
mod chaos;
mod clean_run;
mod compressed;
mod content;
mod credentials;
mod dead_letter_replay;
mod dead_letter_topic;
mod dead_letters;
mod demo;
mod deployment;
mod doctor;
mod exactly_once;
mod faults;
mod fold_tables;
mod formats;
mod gaps;
mod kafka_sink;
mod lag;
mod memory;
mod offsets;
mod outage;
mod pipeline_file;
mod pipeline_fold;
mod rebalance;
mod restarts;
mod rolling;
mod schema_changes;
mod secured_clickhouse;
mod status_page;
mod top;
mod unreachable_leaders;
mod verify;
mod verify_sum;
mod without_group;
