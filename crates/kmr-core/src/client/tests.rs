//! The client on librdkafka's in-process cluster, driven through the seam, without the graph: what
//! a simulated member hides.

mod bootstrap;
mod ends;
mod faults;
mod kit;
mod positions;
mod rereading;
mod rounds;
mod starts;
mod without_group;
