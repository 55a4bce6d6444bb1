//! `run`: the pipelines of a file, until a signal. SIGHUP reads the file again.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kmr_cli_support::errors::one_line;
use kmr_cli_support::numbers::grouped;
use kmr_cli_support::output;
use kmr_core::{ConsumerHandle, Stats, error_chain};
use kmr_status::{RunningServer, StatusServer};
use tokio::signal::unix::{SignalKind, signal};

use super::consumer::consumer;
use super::file::{Pipeline, Status};
use super::load::load;
use super::supervisor::{Factory, Ready, Supervisor};
use super::{Outcome, RunArgs};

/// Runs all pipelines. If one fails, the others are drained.
pub(crate) async fn run(args: RunArgs) -> Outcome {
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut supervisor = Supervisor::new(Consumers);
    supervisor.start(load(&args.file)?).await?;
    while !supervisor.is_done() {
        tokio::select! {
            ended = supervisor.next_end() => supervisor.ended(ended).await,
            // Each consumer receives these, too. A pipeline that waits for its start does not.
            _ = interrupt.recv() => supervisor.stop(),
            _ = terminate.recv() => supervisor.stop(),
            _ = hangup.recv() => reload(&mut supervisor, &args.file).await,
        }
    }
    match supervisor.into_failures().as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        failures => bail!("stopped, because {} of the pipelines failed", failures.len()),
    }
}

/// Changes to the file as it is now. If it is wrong, everything continues as before.
async fn reload(supervisor: &mut Supervisor<Consumers>, path: &Path) {
    let reloaded = match load(path) {
        Ok(file) => supervisor.reload(file).await,
        Err(error) => Err(error),
    };
    match reloaded {
        Ok(()) => output::note(&format!("reloaded {}", path.display())),
        Err(error) => {
            output::note(&format!(
                "error: {} was not reloaded, and the pipelines continue as they were: {}",
                path.display(),
                one_line(&error)
            ));
        }
    }
}

/// Makes consumers of pipelines.
struct Consumers;

impl Factory for Consumers {
    fn check(&self, name: &str, pipeline: &Pipeline) -> anyhow::Result<()> {
        consumer(name, pipeline).map(drop)
    }

    async fn prepare(&self, name: &str, pipeline: &Pipeline) -> anyhow::Result<Ready> {
        let consumer = consumer(name, pipeline)?;
        let (handle, stopped) = (consumer.handle(), consumer.handle());
        let server = serve(name, &pipeline.status, &handle).await?;
        let name = name.to_owned();
        Ok(Ready {
            run: Box::pin(async move {
                let ended = Box::pin(consumer.run()).await;
                ended.map(drop).map_err(|error| error_chain(&error))
            }),
            stop: Box::new(move || stopped.stop()),
            end: Box::new(move || {
                if let Some(server) = server {
                    server.stop();
                }
                output::note(&summary(&name, &handle.stats()));
            }),
        })
    }
}

/// How often a status server tries to get its address. The one of the pipeline's predecessor
/// releases it a moment after it was stopped.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Starts the status server, if the pipeline has one.
async fn serve(
    name: &str,
    status: &Status,
    handle: &ConsumerHandle,
) -> anyhow::Result<Option<RunningServer>> {
    let Some(address) = &status.address else { return Ok(None) };
    let mut tries = 1;
    let server = loop {
        let server = StatusServer::new(handle.clone()).bind(address.as_str());
        let server = match &status.token_file {
            Some(path) => server.actions_token_file(path.as_str()),
            None => server,
        };
        match server.spawn().await {
            Ok(server) => break server,
            Err(error) if tries == TRIES => return Err(error.into()),
            Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
        }
        tries += 1;
    };
    output::note(&format!("status page of `{name}`: http://{}/", server.address()));
    Ok(Some(server))
}

fn summary(name: &str, stats: &Stats) -> String {
    let delivered = stats.rows.iter().filter(|(stage, _)| *stage != "reduce_err").map(|(_, rows)| rows).sum();
    format!(
        "pipeline `{name}`: {} records, {} rows delivered, {} dead letters, {} commits",
        grouped(stats.records),
        grouped(delivered),
        grouped(stats.dead_letters),
        grouped(stats.commits)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_rows_and_not_dead_letters() {
        let mut stats = Stats::default();
        stats.records = 3_001;
        stats.dead_letters = 1;
        stats.rows = [("reduce 1".to_owned(), 3_000), ("reduce_err".to_owned(), 1)].into();
        let expected = "pipeline `events`: 3,001 records, 3,000 rows delivered, 1 dead letters, 0 commits";
        assert_eq!(summary("events", &stats), expected);
    }
}
