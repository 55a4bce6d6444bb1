//! `produce`: a number of JSON messages to a topic, at a limited or unlimited rate.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use kmr_cli_support::kafka::extra_settings;
use kmr_cli_support::kafka_access::create_client;
use kmr_cli_support::numbers::{grouped, per_second};
use kmr_cli_support::output;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

mod args;
mod delivery_reports;
mod topic;

pub(crate) use args::ProduceArgs;
use delivery_reports::DeliveryReports;

use crate::payload;

/// Messages between two checks of the clock and of the delivery reports.
const STRIDE: u64 = 256;
/// Pause while the queue is full, or while the rate allows no more.
const PAUSE: Duration = Duration::from_millis(5);
/// Timeout for the last delivery reports: librdkafka fails a message after five minutes.
const FLUSH: Duration = Duration::from_secs(310);

/// Produces. Fails unless every message is acknowledged.
pub(crate) async fn produce(args: ProduceArgs) -> anyhow::Result<ExitCode> {
    let config = config(&args)?;
    let partitions = topic::ensure(&config, &args).await?;
    let line = tokio::task::spawn_blocking(move || Production { args, config, partitions }.run());
    output::note(&line.await.context("the producing thread")??);
    Ok(ExitCode::SUCCESS)
}

fn config(args: &ProduceArgs) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new();
    for (name, value) in [
        ("bootstrap.servers", args.kafka.broker.as_str()),
        ("client.id", "kmr-demo-produce"),
        // A retry must not append a message twice: the audit could not distinguish it from another.
        ("enable.idempotence", "true"),
        ("compression.codec", "lz4"),
        ("linger.ms", "5"),
        ("batch.num.messages", "20000"),
        ("message.max.bytes", "16000000"),
        ("queue.buffering.max.messages", "400000"),
        ("queue.buffering.max.kbytes", "131072"),
    ] {
        config.set(name, value);
    }
    for (name, value) in extra_settings(&args.kafka)? {
        // The other name of a setting above. librdkafka applies two names in no fixed order.
        let name = if name == "compression.type" { "compression.codec" } else { &name };
        config.set(name, value);
    }
    Ok(config)
}

/// Number of messages that the rate allows after `elapsed`.
fn due(rate: Option<u64>, elapsed: Duration, count: u64) -> u64 {
    rate.map_or(count, |rate| ((elapsed.as_secs_f64() * rate as f64) as u64).min(count))
}

struct Production {
    args: ProduceArgs,
    config: ClientConfig,
    partitions: u64,
}

impl Production {
    fn run(&self) -> anyhow::Result<String> {
        let ProduceArgs { count, rate, .. } = self.args;
        let reports = DeliveryReports::default();
        let producer: ThreadedProducer<DeliveryReports> = create_client(&self.config, reports.clone())?;
        let (started, mut sent, mut malformed) = (Instant::now(), 0, 0);
        let mut buffer = Vec::new();
        while sent < count {
            reports.check()?;
            let end = due(rate, started.elapsed(), count).min(sent + STRIDE);
            if end <= sent {
                std::thread::sleep(PAUSE);
            }
            for number in sent..end {
                malformed += u64::from(self.send(&producer, number, &mut buffer)?);
            }
            sent = end.max(sent);
        }
        producer.flush(FLUSH).context("waiting for the last delivery reports")?;
        reports.check()?;
        let took = started.elapsed();
        Ok(format!(
            "produced {} messages ({} malformed) to {} over {} partitions in {:.2} s: {} messages/s",
            grouped(reports.acknowledged()),
            grouped(malformed),
            self.args.kafka.topic,
            self.partitions,
            took.as_secs_f64(),
            grouped(per_second(count, took))
        ))
    }

    /// Sends message `number`. Returns whether it is malformed.
    fn send(
        &self,
        producer: &ThreadedProducer<DeliveryReports>,
        number: u64,
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<bool> {
        // Both fit: a topic has at most i32::MAX partitions.
        let (partition, id) = ((number % self.partitions) as i32, number / self.partitions);
        let malformed = payload::is_malformed(partition, id, self.args.malformed_ratio);
        payload::write(buffer, id, malformed, self.args.size);
        let mut record =
            BaseRecord::<(), [u8]>::to(&self.args.kafka.topic).partition(partition).payload(buffer);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(malformed),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    std::thread::sleep(PAUSE);
                }
                Err((error, _)) => return Err(error).context("sending a message"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept() {
        let second = Duration::from_secs(1);
        assert_eq!(due(None, Duration::ZERO, 100), 100);
        assert_eq!(due(Some(50), second, 1_000), 50);
        assert_eq!(due(Some(50), second * 100, 1_000), 1_000);
        assert_eq!(due(Some(50), Duration::ZERO, 1_000), 0);
    }
}
