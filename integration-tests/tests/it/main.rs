//! kmr on real Kafka and real ClickHouse: one binary, so that its tests share the servers.
//!
//! Modules are listed in the order in which a failure should be looked at: what the harness cannot
//! do, no other test can.

mod harness;

mod in_process;
mod load;
mod programs;
mod scene;

mod clickhouse_faults;
mod clickhouse_refusals;
mod clickhouse_types;

mod bad_input;
mod clean_run;
mod content;
mod dead_letters;
mod demo;
mod doctor;
mod exactly_once;
mod faults;
mod gaps;
mod kafka_sink;
mod memory;
mod offsets;
mod outage;
mod rebalance;
mod restarts;
mod schema_changes;
mod secured_clickhouse;
mod verify;
