//! `produce`: JSON messages to a topic, as many and as fast as asked for.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

#[path = "delivery_reports.rs"]
mod receipts;
mod topic;

use receipts::Receipts;

use crate::cli::ProduceArgs;
use crate::numbers::{grouped, per_second};
use crate::payload;
use crate::{output, run};

/// Messages between two looks at the clock and at the acknowledgements.
const STRIDE: u64 = 256;
/// Wait when the queue is full, or when it is too early for more.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for the last acknowledgements: librdkafka gives a message up after five minutes.
const FLUSH: Duration = Duration::from_secs(310);

/// Produces, and fails unless every message is acknowledged.
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
        // A retry does not put a message into the log twice: `verify` would not know it from another.
        ("enable.idempotence", "true"),
        ("compression.type", "lz4"),
        ("linger.ms", "5"),
        ("batch.num.messages", "20000"),
        ("message.max.bytes", "16000000"),
        ("queue.buffering.max.messages", "400000"),
        ("queue.buffering.max.kbytes", "131072"),
    ] {
        config.set(name, value);
    }
    for (name, value) in run::extra_settings(&args.kafka)? {
        config.set(name, value);
    }
    Ok(config)
}

/// How many messages may have been sent after `elapsed`.
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
        let receipts = Receipts::default();
        let producer: ThreadedProducer<Receipts> =
            self.config.create_with_context(receipts.clone()).context("making a producer")?;
        let (started, mut sent, mut malformed) = (Instant::now(), 0, 0);
        let mut buffer = Vec::new();
        while sent < count {
            receipts.check()?;
            let end = due(rate, started.elapsed(), count).min(sent + STRIDE);
            if end <= sent {
                std::thread::sleep(PAUSE);
            }
            for number in sent..end {
                malformed += u64::from(self.send(&producer, number, &mut buffer)?);
            }
            sent = end.max(sent);
        }
        producer.flush(FLUSH).context("waiting for the last acknowledgements")?;
        receipts.check()?;
        let took = started.elapsed();
        Ok(format!(
            "produced {} messages ({} malformed) to {} over {} partitions in {:.2} s: {} messages/s",
            grouped(receipts.acknowledged()),
            grouped(malformed),
            self.args.kafka.topic,
            self.partitions,
            took.as_secs_f64(),
            grouped(per_second(count, took))
        ))
    }

    /// Sends message `number`; whether it is a malformed one.
    fn send(
        &self,
        producer: &ThreadedProducer<Receipts>,
        number: u64,
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<bool> {
        // Both fit: a topic has at most i32::MAX partitions.
        let (partition, id) = ((number % self.partitions) as i32, number / self.partitions);
        let malformed = payload::is_malformed(partition, id, self.args.malformed);
        payload::write(buffer, id, malformed, self.args.size);
        let mut record =
            BaseRecord::<(), [u8]>::to(&self.args.kafka.topic).partition(partition).payload(buffer);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(malformed),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
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
