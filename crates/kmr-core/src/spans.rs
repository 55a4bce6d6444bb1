//! Every span of this crate. Names and fields are stable: docs/log-events.md lists them.
//!
//! All have the target `kmr::span` and the level debug. Unless a subscriber asks for them, a span
//! costs one comparison, and no header of a record is read. None is per record.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tracing::{Span, debug_span};

use crate::member::{OffsetCommit, Rebalance};
use crate::record::TopicPartition;
use crate::stage::Stage;
use crate::trace_context::TraceContext;

/// Maximum number of links of a delivery, as OpenTelemetry's default.
const MAX_LINKS: usize = 128;

/// A poll that returned records, while they are sent to the map tasks of their partitions.
pub(crate) fn fetch(partitions: usize) -> Span {
    debug_span!(target: "kmr::span", parent: None, "kmr.fetch", partitions)
}

/// A map task that runs its stages until it has to wait.
pub(crate) fn map(partition: &TopicPartition) -> Span {
    debug_span!(target: "kmr::span", parent: None, "kmr.map", %partition)
}

/// A call of a reducer: it accepts rows, or closes a batch.
pub(crate) fn reduce(stage: &Stage) -> Span {
    debug_span!(target: "kmr::span", parent: None, "kmr.reduce", %stage)
}

/// One attempt to deliver a batch. `links` has the trace contexts of its records.
pub(crate) fn deliver(stage: &Stage, rows: usize, attempt: u32, links: &Links) -> Span {
    debug_span!(target: "kmr::span", parent: None, "kmr.deliver", %stage, rows, attempt, %links)
}

/// A commit, until the broker has answered.
pub(crate) fn commit(offsets: &[OffsetCommit]) -> Span {
    debug_span!(target: "kmr::span", parent: None, "kmr.commit", partitions = offsets.len())
}

/// A rebalance, until it is answered.
pub(crate) fn rebalance(rebalance: &Rebalance) -> Span {
    let Rebalance { id, change, partitions, .. } = rebalance;
    debug_span!(target: "kmr::span", parent: None, "kmr.rebalance", id, ?change, partitions = partitions.len())
}

/// The distinct trace contexts of the records of some rows, at most [`MAX_LINKS`]. Empty unless a
/// subscriber asks for spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(Option<Arc<BTreeSet<String>>>);

impl Links {
    /// Whether a subscriber asks for the spans that have links.
    pub(crate) fn are_enabled() -> bool {
        tracing::span_enabled!(target: "kmr::span", tracing::Level::DEBUG)
    }

    pub(crate) fn add(&mut self, context: &TraceContext) {
        let links = Arc::make_mut(self.0.get_or_insert_default());
        if links.len() < MAX_LINKS {
            links.insert(context.to_string());
        }
    }

    /// The links of several parts of a batch.
    pub(crate) fn joined<'l>(parts: impl Iterator<Item = &'l Links>) -> Links {
        let all = parts.filter_map(|links| links.0.as_deref()).flatten();
        let joined: BTreeSet<String> = all.take(MAX_LINKS).cloned().collect();
        Links((!joined.is_empty()).then(|| Arc::new(joined)))
    }
}

/// Each as a `traceparent`, with spaces between.
impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = self.0.iter().flat_map(|links| links.iter());
        links.enumerate().try_for_each(|(at, link)| write!(f, "{}{link}", if at == 0 { "" } else { " " }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(span: u64) -> TraceContext {
        TraceContext::parse(format!("00-{:032x}-{span:016x}-01", 7).as_bytes()).unwrap()
    }

    #[test]
    fn links_are_distinct_and_limited() {
        assert_eq!(Links::default().to_string(), "");
        let (mut one, mut many) = (Links::default(), Links::default());
        [1, 2, 1].map(context).iter().for_each(|context| one.add(context));
        assert_eq!(one.to_string(), format!("{} {}", context(1), context(2)));
        (1..300).map(context).for_each(|context| many.add(&context));
        assert_eq!(many.to_string().split(' ').count(), MAX_LINKS);
        let joined = Links::joined([Links::default(), one, many].iter());
        assert!(joined.to_string().split(' ').count() <= MAX_LINKS);
        assert!(Links::joined([Links::default()].iter()).0.is_none());
    }
}
