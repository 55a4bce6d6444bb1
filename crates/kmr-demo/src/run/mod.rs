//! `run`: a real Kafka into ClickHouse, until a signal or until nothing comes any more.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kmr_core::{ClientConfig, Consumer, Watchdog};

mod pipeline;
mod probe;
mod row;
mod summary;
mod watch;

pub(crate) use row::IngestRow;
use summary::Summary;
use watch::Watch;

use crate::cli::{KafkaArgs, Protocol, RunArgs, SummaryFormat};
use crate::clickhouse_client::environment;
use crate::output;

/// The Kafka user's name and password come from the environment alone: arguments are visible to everybody on the machine.
const KAFKA_USER: &str = "KMR_KAFKA_USER";
const KAFKA_PASSWORD: &str = "KMR_KAFKA_PASSWORD";

/// How often the watch looks: the resolution of the time that the summary's rate stands on.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the consumer, and sums up what it did however it ended.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let consumer = consumer(&args)?;
    let handle = consumer.handle();
    let mut watch = Watch::new(args.until_idle);
    let mut look = tokio::time::interval(LOOK);
    let mut running = tokio::spawn(consumer.run());
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended.context("the consumer's task")?,
            _ = look.tick() => if watch.look(&handle.stats(), Instant::now()) {
                tracing::info!("no record came for {:?}", args.until_idle);
                handle.stop();
            },
        }
    };
    let stats = handle.stats();
    watch.look(&stats, Instant::now());
    let summary = Summary::new(&stats, watch.active());
    // A consumer that did not get as far as the group has nothing to sum up: its error says it all.
    if ended.is_ok() || stats.rebalances > 0 {
        output::note(&summary.line());
    }
    if args.summary == SummaryFormat::Json {
        output::result(&summary.json().to_string());
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// The consumer that `args` describe; nothing is connected yet.
pub(crate) fn consumer(args: &RunArgs) -> anyhow::Result<Consumer> {
    let builder = Consumer::builder();
    let builder = if args.exactly_once { builder.exactly_once() } else { builder };
    let consumer = builder
        .topics([args.kafka.topic.as_str()])
        .config(config(args)?)
        .memory_budget(args.tuning.memory_budget)
        .commit_interval(args.tuning.commit_interval)
        .drain_timeout(args.tuning.drain_timeout)
        .connect_timeout(args.tuning.connect_timeout)
        .watchdog(Watchdog::default().with_exit_when_stuck(true))
        .strategy(pipeline::pipeline(args)?)
        .build()?;
    Ok(consumer)
}

/// The client's settings: the arguments' own, then what `--set` says, then the credentials.
pub(crate) fn config(args: &RunArgs) -> anyhow::Result<ClientConfig> {
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

/// `--set` and the credentials, for every client of Kafka in this program.
pub(crate) fn extra_settings(args: &KafkaArgs) -> anyhow::Result<Vec<(String, String)>> {
    let mut settings = args.settings.clone();
    if settings.iter().any(|(name, _)| name == "sasl.password") {
        bail!(
            "sasl.password is visible to everybody on this machine as an argument; set {KAFKA_PASSWORD} instead"
        );
    }
    for (name, variable) in [("sasl.username", KAFKA_USER), ("sasl.password", KAFKA_PASSWORD)] {
        if let Some(value) = environment(variable) {
            settings.push((name.to_owned(), value));
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config_of(args: &[&str]) -> anyhow::Result<ClientConfig> {
        match Cli::try_parse_from(["kmr-demo", "run"].iter().chain(args))?.command {
            Some(Command::Run(args)) => config(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_set_wins_over_the_arguments() {
        let config = config_of(&["--protocol", "consumer", "--set", "client.id=mine"]).unwrap();
        assert_eq!(config.get("group.protocol"), Some("consumer"));
        assert_eq!(config.get("client.id"), Some("mine"));
        assert_eq!(config.get("bootstrap.servers"), Some("127.0.0.1:9092"));
    }

    #[test]
    fn a_password_as_an_argument_is_refused_and_not_repeated() {
        let error = config_of(&["--set", "sasl.password=hunter2"]).unwrap_err().to_string();
        assert!(error.contains(KAFKA_PASSWORD) && !error.contains("hunter2"), "{error}");
    }
}
