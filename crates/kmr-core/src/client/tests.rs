//! Tests of the client on librdkafka's in-process cluster. They call it through the traits of
//! `member`, without the graph, and cover what a simulated member hides.

mod bootstrap;
mod budget;
mod ends;
mod faults;
mod groups;
mod kit;
mod leaders;
mod positions;
mod rereading;
mod rounds;
mod starts;
mod strays;
mod unread;
mod without_group;
