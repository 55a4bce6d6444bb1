//! Tests of the real graph on a scripted Kafka, in virtual time.

mod bounded;
mod circuit_breaker;
mod dead_letters;
mod exactly_once;
mod fair_shares;
mod folds;
mod kit;
mod lifecycle;
mod listeners;
mod mapping;
mod operator;
mod rebalances;
mod reconnects;
mod records;
mod renewals;
mod shutdowns;
mod unread;
mod watchdog;
