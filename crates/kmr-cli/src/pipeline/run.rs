//! `run`: the pipelines of a file, until a signal.

use std::process::ExitCode;

use anyhow::{Context, bail};
use kmr_cli_support::numbers::grouped;
use kmr_cli_support::output;
use kmr_core::{ConsumerHandle, error_chain};
use kmr_status::StatusServer;
use tokio::task::JoinSet;

use super::consumer::consumer;
use super::file::Status;
use super::load::load;
use super::{Result, RunArgs};

/// Runs all pipelines. If one fails, the others are drained.
pub(crate) async fn run(args: RunArgs) -> Result {
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
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (name, ended) = ended.context("the task of a pipeline")?;
        if let Err(error) = ended {
            output::note(&format!("error: pipeline `{name}`: {}", error_chain(&error)));
            failed.push(name);
            handles.iter().for_each(|(_, handle)| handle.stop());
        }
    }
    for (name, handle) in &handles {
        output::note(&summary(name, handle));
    }
    if !failed.is_empty() {
        bail!("stopped because of `{}`", failed.join("`, `"));
    }
    Ok(ExitCode::SUCCESS)
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

fn summary(name: &str, handle: &ConsumerHandle) -> String {
    let stats = handle.stats();
    let delivered = stats.rows.get("reduce").copied().unwrap_or(0);
    format!(
        "pipeline `{name}`: {} records, {} rows delivered, {} dead letters, {} commits",
        grouped(stats.records),
        grouped(delivered),
        grouped(stats.dead_letters),
        grouped(stats.commits)
    )
}
