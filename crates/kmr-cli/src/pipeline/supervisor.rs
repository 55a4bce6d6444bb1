//! The pipelines that run: starts them, replaces those that change, drains those that are removed.
//!
//! 1. A pipeline whose section did not change is not touched.
//! 2. Of one name, one pipeline runs at a time. A changed one starts when its predecessor has
//!    drained, committed and left its group, so it continues where that one ended.
//! 3. After a stop request or a failure, no pipeline starts.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use anyhow::Context;
use kmr_cli_support::output;
use tokio::task::{JoinError, JoinSet};

use super::file::{File, Pipeline};

/// A pipeline that is ready to run.
pub(super) struct Ready {
    /// Runs it to its end. The error is a text.
    pub(super) run: Pin<Box<dyn Future<Output = Result<(), String>> + Send>>,
    /// Asks it to drain and end.
    pub(super) stop: Box<dyn Fn() + Send>,
    /// Is called when it has ended.
    pub(super) end: Box<dyn FnOnce() + Send>,
}

/// Makes pipelines ready.
pub(super) trait Factory {
    /// Checks that the pipeline can be made, and connects to nothing.
    ///
    /// # Errors
    /// A setting that the consumer rejects.
    fn check(&self, name: &str, pipeline: &Pipeline) -> anyhow::Result<()>;

    /// Makes the pipeline ready to run.
    ///
    /// # Errors
    /// A setting that the consumer rejects, or a status server that cannot start.
    fn prepare(&self, name: &str, pipeline: &Pipeline) -> impl Future<Output = anyhow::Result<Ready>> + Send;
}

struct Running {
    pipeline: Pipeline,
    stop: Box<dyn Fn() + Send>,
    end: Box<dyn FnOnce() + Send>,
    then: Then,
}

/// What follows when a pipeline has ended.
enum Then {
    /// It ended by itself, or by a stop request.
    Nothing,
    /// It was drained, because its section is gone or has changed.
    Start(Option<Box<Pipeline>>),
}

/// The end of a pipeline's task.
type Ended = Result<(String, Result<(), String>), JoinError>;

pub(super) struct Supervisor<L> {
    factory: L,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<(String, Result<(), String>)>,
    is_stopping: bool,
    failures: Vec<String>,
}

impl<L: Factory> Supervisor<L> {
    pub(super) fn new(factory: L) -> Self {
        let (running, tasks, failures) = (BTreeMap::new(), JoinSet::new(), Vec::new());
        Self { factory, running, tasks, is_stopping: false, failures }
    }

    /// Starts all pipelines of a file, or none.
    ///
    /// # Errors
    /// One of them cannot be made ready.
    pub(super) async fn start(&mut self, file: File) -> anyhow::Result<()> {
        let mut prepared = Vec::new();
        for (name, pipeline) in file {
            let ready = self.factory.prepare(&name, &pipeline).await;
            prepared.push((ready.with_context(|| format!("pipeline `{name}`"))?, name, pipeline));
        }
        for (ready, name, pipeline) in prepared {
            self.spawn(name, pipeline, ready);
        }
        Ok(())
    }

    /// Whether all pipelines have ended.
    pub(super) fn is_done(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The failures so far.
    pub(super) fn into_failures(self) -> Vec<String> {
        self.failures
    }

    /// Waits until a pipeline ends. Pending if none runs.
    ///
    /// # Cancel safety
    /// Dropping the future loses no end of a pipeline.
    pub(super) async fn next_end(&mut self) -> Ended {
        match self.tasks.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Reports the end of a pipeline and starts its successor. After a failure, all others drain.
    pub(super) async fn ended(&mut self, ended: Ended) {
        let (name, result) = match ended {
            Ok(ended) => ended,
            // A fault of kmr: its tasks report panics as errors.
            Err(error) => return self.fail(format!("the task of a pipeline: {error}")),
        };
        let Some(Running { end, then, .. }) = self.running.remove(&name) else { return };
        end();
        match (result, then) {
            (Err(error), _) => self.fail(format!("pipeline `{name}`: {error}")),
            (Ok(()), Then::Start(Some(pipeline))) if !self.is_stopping => {
                self.replace(name, *pipeline).await;
            }
            (Ok(()), _) => {}
        }
    }

    /// Changes to the pipelines of another file. If one of them cannot be made, nothing changes.
    ///
    /// # Errors
    /// A setting that a consumer rejects.
    pub(super) async fn reload(&mut self, file: File) -> anyhow::Result<()> {
        for (name, pipeline) in &file {
            self.factory.check(name, pipeline).with_context(|| format!("pipeline `{name}`"))?;
        }
        if self.is_stopping {
            return Ok(());
        }
        for (name, running) in &mut self.running {
            let wanted = file.get(name);
            let is_same = matches!(running.then, Then::Nothing) && wanted == Some(&running.pipeline);
            if !is_same {
                let action = if wanted.is_some() {
                    "changed: drains it, and starts it again"
                } else {
                    "removed: drains it"
                };
                output::note(&format!("pipeline `{name}`: {action}"));
                running.then = Then::Start(wanted.cloned().map(Box::new));
                (running.stop)();
            }
        }
        for (name, pipeline) in file {
            if !self.running.contains_key(&name) && !self.is_stopping {
                output::note(&format!("pipeline `{name}`: new, starts"));
                self.replace(name, pipeline).await;
            }
        }
        Ok(())
    }

    /// Drains all pipelines.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.running.values().for_each(|running| (running.stop)());
    }

    async fn replace(&mut self, name: String, pipeline: Pipeline) {
        match self.factory.prepare(&name, &pipeline).await {
            Ok(ready) => self.spawn(name, pipeline, ready),
            Err(error) => self.fail(format!("pipeline `{name}`: {error:#}")),
        }
    }

    fn spawn(&mut self, name: String, pipeline: Pipeline, ready: Ready) {
        let Ready { run, stop, end } = ready;
        self.running.insert(name.clone(), Running { pipeline, stop, end, then: Then::Nothing });
        self.tasks.spawn(async move { (name, run.await) });
    }

    fn fail(&mut self, failure: String) {
        // At once, because the drain can take minutes.
        output::note(&format!("error: {failure}"));
        self.failures.push(failure);
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;

    use super::super::load::parse;
    use super::*;

    /// Pipelines that end when they are stopped. The log has what happened.
    #[derive(Clone, Default)]
    struct Fakes(Arc<Mutex<Vec<String>>>);

    impl Fakes {
        fn log(&self, event: String) {
            self.0.lock().unwrap().push(event);
        }

        fn taken(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl Factory for Fakes {
        fn check(&self, _: &str, pipeline: &Pipeline) -> anyhow::Result<()> {
            anyhow::ensure!(pipeline.source.group.as_str() != "wrong", "a wrong group");
            Ok(())
        }

        async fn prepare(&self, name: &str, pipeline: &Pipeline) -> anyhow::Result<Ready> {
            let group = pipeline.source.group.as_str().to_owned();
            let (stopped, mut stop) = watch::channel(false);
            let (log, title) = (self.clone(), format!("{name}/{group}"));
            self.log(format!("start {title}"));
            let run = async move {
                match group.as_str() {
                    "broken" => return Err("no table".to_owned()),
                    "panics" => unreachable!("a fault of kmr"),
                    _ => {}
                }
                let _ = stop.wait_for(|stopped| *stopped).await;
                Ok(())
            };
            Ok(Ready {
                run: Box::pin(run),
                stop: Box::new(move || {
                    stopped.send_replace(true);
                }),
                end: Box::new(move || log.log(format!("end {title}"))),
            })
        }
    }

    fn file(pipelines: &[(&str, &str)]) -> File {
        let section = |(name, group): &(&str, &str)| {
            format!(
                "[{name}]\nsource = {{ brokers = \"b\", topics = \"t\", group = \"{group}\" }}\nstdout = {{}}\n"
            )
        };
        parse(Path::new("kmr.toml"), &pipelines.iter().map(section).collect::<String>()).unwrap()
    }

    async fn started(pipelines: &[(&str, &str)]) -> (Fakes, Supervisor<Fakes>) {
        let fakes = Fakes::default();
        let mut supervisor = Supervisor::new(fakes.clone());
        supervisor.start(file(pipelines)).await.unwrap();
        (fakes, supervisor)
    }

    async fn next(supervisor: &mut Supervisor<Fakes>) {
        let ended = supervisor.next_end().await;
        supervisor.ended(ended).await;
    }

    #[tokio::test]
    async fn a_changed_pipeline_starts_after_its_predecessor_and_others_are_not_touched() {
        let (fakes, mut supervisor) = started(&[("a", "1"), ("b", "1"), ("c", "1")]).await;
        assert_eq!(fakes.taken(), ["start a/1", "start b/1", "start c/1"]);
        supervisor.reload(file(&[("a", "2"), ("b", "1"), ("d", "1")])).await.unwrap();
        assert_eq!(fakes.taken(), ["start d/1"]);
        next(&mut supervisor).await;
        next(&mut supervisor).await;
        let mut events = fakes.taken();
        assert!(events.iter().position(|e| e == "end a/1") < events.iter().position(|e| e == "start a/2"));
        events.sort();
        assert_eq!(events, ["end a/1", "end c/1", "start a/2"]);
        assert_eq!(supervisor.running.keys().collect::<Vec<_>>(), ["a", "b", "d"]);
    }

    #[tokio::test]
    async fn a_second_reload_during_a_drain_decides_what_follows() {
        let (fakes, mut supervisor) = started(&[("a", "1"), ("b", "1")]).await;
        supervisor.reload(file(&[("a", "2"), ("b", "1")])).await.unwrap();
        supervisor.reload(file(&[("a", "1"), ("b", "1")])).await.unwrap();
        next(&mut supervisor).await;
        assert_eq!(fakes.taken(), ["start a/1", "start b/1", "end a/1", "start a/1"]);
    }

    #[tokio::test]
    async fn a_file_that_a_consumer_rejects_changes_nothing() {
        let (fakes, mut supervisor) = started(&[("a", "1"), ("b", "1")]).await;
        let error = supervisor.reload(file(&[("a", "2"), ("c", "wrong")])).await.unwrap_err();
        assert!(format!("{error:#}").contains("pipeline `c`: a wrong group"));
        assert_eq!(fakes.taken(), ["start a/1", "start b/1"]);
        assert!(supervisor.running.values().all(|running| matches!(running.then, Then::Nothing)));
    }

    #[tokio::test]
    async fn nothing_starts_after_a_stop_request() {
        let (fakes, mut supervisor) = started(&[("a", "1")]).await;
        supervisor.reload(file(&[("a", "2")])).await.unwrap();
        supervisor.stop();
        supervisor.reload(file(&[("a", "3"), ("b", "1")])).await.unwrap();
        next(&mut supervisor).await;
        assert!(supervisor.is_done() && supervisor.into_failures().is_empty());
        assert_eq!(fakes.taken(), ["start a/1", "end a/1"]);
    }

    #[tokio::test]
    async fn a_failure_and_a_panic_drain_the_others_and_are_both_reported() {
        let (_, mut supervisor) = started(&[("a", "1"), ("b", "broken"), ("c", "panics")]).await;
        while !supervisor.is_done() {
            next(&mut supervisor).await;
        }
        let failures = supervisor.into_failures();
        let text = failures.join("; ");
        assert_eq!(failures.len(), 2, "{text}");
        assert!(text.contains("pipeline `b`: no table") && text.contains("panicked"), "{text}");
    }
}
