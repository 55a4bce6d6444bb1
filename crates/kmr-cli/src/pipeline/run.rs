//! `run`: the pipelines of a file, until a signal.

use std::error::Error;
use std::process::ExitCode;

use anyhow::{Context, bail};
use kmr_cli_support::numbers::grouped;
use kmr_cli_support::output;
use kmr_core::{ConsumerHandle, Stats, error_chain};
use kmr_status::StatusServer;
use tokio::task::JoinSet;

use super::consumer::consumer;
use super::file::Status;
use super::load::load;
use super::{Outcome, RunArgs};

/// Runs all pipelines. If one fails, the others are drained.
pub(crate) async fn run(args: RunArgs) -> Outcome {
    let file = load(&args.file)?;
    let mut handles: Vec<(String, ConsumerHandle)> = Vec::new();
    let mut running = JoinSet::new();
    let mut consumers = Vec::new();
    for (name, pipeline) in &file {
        let consumer = consumer(name, pipeline).with_context(|| format!("pipeline `{name}`"))?;
        handles.push((name.clone(), consumer.handle()));
        consumers.push((name.clone(), consumer));
    }
    for ((name, pipeline), (_, handle)) in file.iter().zip(&handles) {
        serve(name, &pipeline.status, handle).await.with_context(|| format!("pipeline `{name}`"))?;
    }
    for (name, consumer) in consumers {
        running.spawn(async move { (name, consumer.run().await) });
    }
    let failures = wait(running, || handles.iter().for_each(|(_, handle)| handle.stop())).await;
    for (name, handle) in &handles {
        output::note(&summary(name, &handle.stats()));
    }
    match failures.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        failures => bail!("stopped, because {} of {} pipelines failed", failures.len(), handles.len()),
    }
}

/// Waits until all pipelines have ended, and returns their failures. At each one it calls `stop`,
/// which drains the others.
async fn wait<T: 'static, E: Error + 'static>(
    mut running: JoinSet<(String, Result<T, E>)>,
    stop: impl Fn(),
) -> Vec<String> {
    let mut failures = Vec::new();
    while let Some(ended) = running.join_next().await {
        let failure = match ended {
            Ok((_, Ok(_))) => continue,
            Ok((name, Err(error))) => format!("pipeline `{name}`: {}", error_chain(&error)),
            // A fault of kmr: its tasks report panics as errors.
            Err(error) => format!("the task of a pipeline: {error}"),
        };
        // At once, because the drain can take minutes.
        output::note(&format!("error: {failure}"));
        failures.push(failure);
        stop();
    }
    failures
}

/// Starts the status server, if the pipeline has one. It ends with the process.
async fn serve(name: &str, status: &Status, handle: &ConsumerHandle) -> anyhow::Result<()> {
    let Some(address) = &status.address else { return Ok(()) };
    let server = StatusServer::new(handle.clone()).bind(address.as_str());
    let server = match &status.token_file {
        Some(path) => server.actions_token_file(path.as_str()),
        None => server,
    };
    let server = server.spawn().await?;
    output::note(&format!("status page of `{name}`: http://{}/", server.address()));
    Ok(())
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Of the others, one is still running, and ends because it is stopped.
    #[tokio::test]
    async fn a_failure_and_a_panic_drain_the_others_and_are_both_reported() {
        let (stops, (stop, mut stopped)) = (AtomicU32::new(0), tokio::sync::watch::channel(()));
        let mut running: JoinSet<(String, Result<(), std::io::Error>)> = JoinSet::new();
        running.spawn(async { ("broken".to_owned(), Err(std::io::Error::other("no table"))) });
        running.spawn(async { unreachable!("a fault of kmr") });
        running.spawn(async move {
            let _ = stopped.changed().await;
            ("good".to_owned(), Ok(()))
        });
        let failures = wait(running, || {
            stops.fetch_add(1, Ordering::Relaxed);
            stop.send_replace(());
        });
        let text = failures.await.join("; ");
        assert!(text.contains("pipeline `broken`: no table") && text.contains("panicked"), "{text}");
        assert_eq!(stops.into_inner(), 2);
    }

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
