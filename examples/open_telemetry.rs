//! One trace from a producer through kmr to the next topic, with OpenTelemetry.
//!
//! A record's header `traceparent` names the span of its producer. The mapper starts a span of its
//! own below it, and passes that on with the message. A delivery stores many records, so it belongs
//! to none of their traces: it links all of them.
//!
//! The exporter prints each span. In a service, replace it by that of `opentelemetry-otlp`.
//!
//! ```sh
//! cargo run -p kmr-examples --example open_telemetry
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, OwnedRecord, Record, TraceContext, processing_strategy};
use kmr_examples::{expect_same, read_topic, run_to_end};
use kmr_sinks::{KafkaMessage, KafkaWriter};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The same context in OpenTelemetry's types.
fn span_context(context: &TraceContext) -> SpanContext {
    let trace = TraceId::from_bytes(context.trace_id().to_be_bytes());
    let span = SpanId::from_bytes(context.span_id().to_be_bytes());
    let flags = TraceFlags::new(u8::from(context.is_sampled()));
    let state = context.state().and_then(|state| state.parse::<TraceState>().ok());
    SpanContext::new(trace, span, flags, true, state.unwrap_or_default())
}

/// A mapper with a span of its own, which the next topic's consumer continues.
fn price(record: &Record<'_>) -> Result<KafkaMessage, BoxError> {
    let span = tracing::info_span!("price an order", "messaging.kafka.offset" = record.offset());
    if let Some(context) = record.trace_context() {
        // Without a subscriber there is no span, which must not fail the record.
        let _ = span.set_parent(Context::new().with_remote_span_context(span_context(&context)));
    }
    let _entered = span.enter();
    let order: u64 = std::str::from_utf8(record.payload().ok_or("a tombstone")?)?.parse()?;
    let own = span.context().span().span_context().clone();
    let flags = own.trace_flags().to_u8();
    let traceparent = format!("00-{}-{}-{flags:02x}", own.trace_id(), own.span_id());
    Ok(KafkaMessage::new((order * 3).to_string()).with_header("traceparent", traceparent))
}

fn copy(record: &Record<'_>) -> Result<OwnedRecord, BoxError> {
    Ok(record.to_owned())
}

/// Turns the field `links` of `kmr.deliver` into OpenTelemetry's links.
struct DeliveryLinks;

struct Links(Vec<SpanContext>);

impl Visit for Links {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "links" {
            let links = format!("{value:?}");
            let contexts = links.split(' ').filter_map(|link| TraceContext::parse(link.as_bytes()));
            self.0.extend(contexts.map(|context| span_context(&context)));
        }
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for DeliveryLinks {
    fn on_new_span(
        &self,
        attributes: &Attributes<'_>,
        id: &Id,
        context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        if attributes.metadata().name() == "kmr.deliver"
            && let Some(span) = context.span(id)
        {
            let mut links = Links(Vec::new());
            attributes.record(&mut links);
            span.extensions_mut().insert(links);
        }
    }

    /// The span is the current one from here on.
    fn on_enter(&self, id: &Id, context: tracing_subscriber::layer::Context<'_, S>) {
        let links = context.span(id).and_then(|span| span.extensions_mut().remove::<Links>());
        for link in links.into_iter().flat_map(|links| links.0) {
            Span::current().add_link(link);
        }
    }
}

/// Starts tracing: spans of this program and of kmr.
fn start_tracing() -> SdkTracerProvider {
    let service = Resource::builder().with_attribute(KeyValue::new("service.name", "prices")).build();
    let exporter = opentelemetry_stdout::SpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).with_resource(service).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("prices"));
    let filter = Targets::new()
        .with_target("open_telemetry", LevelFilter::INFO)
        .with_target("kmr::span", LevelFilter::DEBUG);
    tracing_subscriber::registry().with(filter).with(layer).with(DeliveryLinks).init();
    provider
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("orders", 1)?;
    cluster.create_topic("prices", 1)?;
    // A real producer has OpenTelemetry write this header.
    let traceparent = |n: u64| format!("00-{:032x}-{n:016x}-01", 0xace_0000 + u128::from(n));
    let order = |n: u64| {
        let record = NewRecord::new(0).with_payload(n.to_string());
        record.with_header("traceparent", Some(traceparent(n).into_bytes()))
    };
    cluster.produce("orders", (1..=3).map(order))?;

    let provider = start_tracing();
    let config = cluster.client_config("prices");
    let consumer = Consumer::builder()
        .topics(["orders"])
        .config(config.clone())
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({
            map => price,
            reduce => KafkaWriter::<KafkaMessage>::new(config, "prices").max_age(Duration::from_millis(50)),
        }))
        .build()?;
    run_to_end(consumer, &cluster, &["orders"]).await?;
    provider.shutdown()?;

    let prices = read_topic(&cluster, "prices", copy).await?;
    let traces: Vec<u128> =
        prices.iter().filter_map(|price| Some(price.trace_context()?.trace_id())).collect();
    println!("traces of the prices: {traces:x?}");
    expect_same("the traces of the orders continue", &traces, &vec![0xace_0001, 0xace_0002, 0xace_0003])?;
    let parents: Vec<u64> =
        prices.iter().filter_map(|price| Some(price.trace_context()?.span_id())).collect();
    expect_same("with spans of their own", &parents.iter().any(|span| (1..=3).contains(span)), &false)
}
