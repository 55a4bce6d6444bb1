//! The consumer of `kmr-demo run`: a topic into a ClickHouse table, as the flags describe it.
//!
//! `kmr-demo run` runs it. `kmr doctor` and `kmr check` build it without connecting, to check
//! the settings, and check the table against its row type.

use std::time::Duration;

use kmr_core::{ClientConfig, Consumer, Reducer, Watchdog, error_chain};

mod args;
mod pipeline;
mod probe;
mod row;

pub use args::{Protocol, RunArgs, SummaryFormat};
pub use row::IngestRow;

use crate::kafka::extra_settings;

/// The consumer that `args` describe; it does not connect before it runs.
///
/// # Errors
///
/// A flag or setting that the consumer rejects.
pub fn consumer(args: &RunArgs) -> anyhow::Result<Consumer> {
    let builder = Consumer::builder();
    let builder = if args.exactly_once { builder.exactly_once() } else { builder };
    let builder = if args.until_idle.is_some() { builder.report_ends() } else { builder };
    let consumer = builder
        .topics([args.kafka.topic.as_str()])
        .config(client_config(args)?)
        .memory_budget(args.tuning.memory_budget)
        .commit_interval(args.tuning.commit_interval)
        .drain_timeout(args.tuning.drain_timeout)
        .connect_timeout(args.tuning.connect_timeout)
        .watchdog(Watchdog::default().with_exit_when_stuck(true))
        .strategy(pipeline::pipeline(args)?)
        .build()?;
    Ok(consumer)
}

/// Starts the writer of `args` as the consumer does, and stops there: it describes the table and
/// tries the settings of inserts, and writes nothing. `timeout` bounds the wait for the server.
///
/// # Errors
///
/// The error with which the consumer would stop.
pub async fn start_writer(args: &RunArgs, timeout: Duration) -> anyhow::Result<()> {
    let mut writer = pipeline::clickhouse_writer(args).start_timeout(timeout);
    let start = async {
        writer.start().await?;
        if args.exactly_once { writer.start_exactly_once().await } else { Ok(()) }
    };
    start.await.map_err(|error| anyhow::anyhow!("{}", error_chain(&*error)))
}

/// The client's settings: those of the flags, then `--set`, then the credentials.
///
/// # Errors
///
/// When `--set` holds a password.
pub fn client_config(args: &RunArgs) -> anyhow::Result<ClientConfig> {
    let config = ClientConfig::new()
        .set("bootstrap.servers", &args.kafka.broker)
        .set("group.id", &args.group)
        .set("client.id", "kmr-demo");
    let config = match args.protocol {
        Protocol::Eager => config.set("partition.assignment.strategy", "range"),
        Protocol::Cooperative => config.set("partition.assignment.strategy", "cooperative-sticky"),
        Protocol::Consumer => config.set("group.protocol", "consumer"),
    };
    Ok(extra_settings(&args.kafka)?.into_iter().fold(config, |config, (name, value)| config.set(name, value)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        run: RunArgs,
    }

    fn config_of(args: &[&str]) -> anyhow::Result<ClientConfig> {
        client_config(&Flags::try_parse_from(["kmr-demo"].iter().chain(args))?.run)
    }

    #[test]
    fn settings_of_set_override_the_flags() {
        let config = config_of(&["--protocol", "consumer", "--set", "client.id=mine"]).unwrap();
        assert_eq!(config.get("group.protocol"), Some("consumer"));
        assert_eq!(config.get("client.id"), Some("mine"));
        assert_eq!(config.get("bootstrap.servers"), Some("127.0.0.1:9092"));
    }
}
