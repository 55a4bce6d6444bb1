//! The real graph on a scripted member, in virtual time: what happens to records and offsets in each order of events.

mod bounded;
mod breaker;
mod dead_letters;
mod exactly_once;
mod kit;
mod lifecycle;
mod listeners;
mod mapping;
mod operator;
mod rebalances;
mod rebuilds;
mod records;
mod shares;
mod watchdog;
