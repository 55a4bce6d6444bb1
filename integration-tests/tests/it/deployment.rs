//! What `deploy/` and `docker/kmr` have: the image at work, and files that their readers accept.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::{
    BuiltImage, ClickHouse, Deadline, Kafka, Message, Process, Signal, free_port, test_name, unique,
    wait_until,
};

use serde::Deserialize;

use crate::programs::{kmr_program, kmr_with};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository.
fn text_of(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| format!("cannot read {path}"))
}

/// The image of `kmr`, with the program that the other tests run.
async fn image() -> Result<BuiltImage> {
    let context = tempfile_directory("kmr-image")?;
    let program = kmr_program().await?;
    std::fs::copy(program, context.join("kmr")).context("cannot copy kmr")?;
    let dockerfile = repository().join("docker/kmr/Dockerfile");
    let image = BuiltImage::build("kmr-test/kmr:prebuilt", &dockerfile, "prebuilt", &context).await;
    std::fs::remove_dir_all(&context)?;
    image
}

/// A new directory for temporary files.
fn tempfile_directory(name: &str) -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(unique(name));
    std::fs::create_dir(&directory)?;
    Ok(directory)
}

/// Runs docker for its output.
async fn docker(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    let mut process = Process::spawn(command)?;
    let status = process.wait(Deadline::seconds(30)).await?;
    ensure!(status.success(), "docker {arguments:?}: {}", process.stderr());
    Ok(process.stdout().trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_runs_the_pipeline_of_compose_and_ends_in_order() -> Result<()> {
    let (image, name) = (image().await?, unique(test_name!()));
    let topic = Kafka::shared().await?.create_topic(&name, 4).await?;
    let database = ClickHouse::shared().await?.database(&name).await?;
    let table = text_of("deploy/compose/table.sql")?;
    database.exec(table.trim().trim_end_matches(';')).await?;

    let port = free_port()?;
    let directory = tempfile_directory("kmr-config")?;
    let file = text_of("deploy/compose/kmr.toml")?
        .replace("topics = \"measurements\"", &format!("topics = \"{}\"", topic.name()))
        .replace("measurements-to-clickhouse", &name)
        .replace("table =", &format!("database = \"{}\"\ntable =", database.name()))
        .replace("0.0.0.0:9464", &format!("127.0.0.1:{port}"));
    std::fs::write(directory.join("kmr.toml"), file)?;
    let kafka = format!("KAFKA={}", Kafka::shared().await?.bootstrap());
    let clickhouse = format!("CLICKHOUSE={}", database.server().url());
    let (status, mount) =
        (format!("KMR_STATUS_URL=127.0.0.1:{port}"), format!("{}:/etc/kmr:ro", directory.display()));
    let options =
        ["--env", &kafka, "--env", &clickhouse, "--env", &status, "--volume", &mount, "--read-only"];
    let mut container =
        Process::spawn(image.run(&name, &[&options[..], &["--health-interval", "1s"]].concat())?)?;

    let message = |id: u64| {
        let text = format!(r#"{{"id":{id},"metric":"cpu.load","value":{id}.5,"pad":"x"}}"#);
        Message::new(text).partition((id % 4) as i32)
    };
    topic.produce((0..1_000).map(message)).await?;
    wait_until(Deadline::seconds(60), "all records are committed", async || {
        ensure!(!container.stderr().contains("error:"), "{}", container.stderr());
        Ok(topic.lag(&name).await? == 0)
    })
    .await
    .with_context(|| container.stderr())?;
    assert_eq!(
        database.number("SELECT uniqExact(kafka_partition, kafka_offset) FROM measurements").await?,
        1_000
    );
    assert_eq!(database.number("SELECT count() FROM measurements WHERE value = id + 0.5").await?, 1_000);

    wait_until(Deadline::seconds(30), "the health check passes", async || {
        Ok(docker(&["inspect", "--format", "{{.State.Health.Status}}", &name]).await? == "healthy")
    })
    .await?;
    assert_eq!(docker(&["exec", &name, "id", "-u"]).await?, "10001");
    let first = docker(&["exec", &name, "cat", "/proc/1/comm"]).await?;
    assert_eq!(first, "kmr", "process 1 receives SIGTERM");

    topic.produce([message(1_000)]).await?;
    let status = container.end(Signal::Terminate, Deadline::seconds(60)).await?;
    let text = container.stderr();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("pipeline `measurements`: "), "{text}");
    integration_tests::log_line(format_args!("the image has {} MB", image.bytes().await? / 1_000_000));
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_fails_without_a_consumer() -> Result<()> {
    let port = free_port()?.to_string();
    let url = format!("127.0.0.1:{port}");
    let (code, output) = kmr_with(&["probe", "live"], &[("KMR_STATUS_URL", &url)]).await?;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.starts_with(&format!("{url}: ")) && output.contains("status server"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipelines_of_compose_and_kubernetes_are_valid() -> Result<()> {
    let directory = tempfile_directory("kmr-files")?;
    let secret = directory.join("clickhouse-password");
    std::fs::write(&secret, "secret\n")?;
    let compose = text_of("deploy/compose/kmr.toml")?;
    for (name, text) in [("compose", compose), ("kubernetes", config_map()?)] {
        let path = directory.join(format!("{name}.toml"));
        let here = format!("file:{}", secret.display());
        std::fs::write(&path, text.replace("file:/run/secrets/kmr/clickhouse-password", &here))?;
        let variables =
            [("KAFKA", "kafka:9092"), ("CLICKHOUSE", "http://clickhouse:8123"), ("POD_NAME", "kmr-0")];
        let path = path.to_str().context("UTF-8")?;
        let (code, output) = kmr_with(&["check", path], &variables).await?;
        assert_eq!(code, Some(0), "{name}: {output}");
        assert!(output.contains("exactly once"), "{name}: {output}");
    }
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// The pipeline file in the ConfigMap of deploy/kubernetes/kmr.yaml.
fn config_map() -> Result<String> {
    let text = text_of("deploy/kubernetes/kmr.yaml")?;
    let block = text.split_once("kmr.toml: |\n").context("no ConfigMap")?.1;
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    Ok(lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect())
}

#[test]
fn the_files_for_kubernetes_have_only_fields_of_their_kinds() -> Result<()> {
    let (mut kinds, mut faults) = (Vec::new(), Vec::new());
    for file in ["deploy/kubernetes/kmr.yaml", "deploy/kubernetes/keda.yaml"] {
        for document in text_of(file)?.split("\n---\n") {
            let kind = serde_norway::from_str::<Kind>(document)?;
            let unknown = unknown_fields(&kind, document).with_context(|| format!("{file}: {kind:?}"))?;
            faults.extend(unknown.into_iter().map(|field| format!("{file}: {}: {field}", kind.kind)));
            kinds.push(kind.kind);
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(kinds, ["ConfigMap", "Service", "StatefulSet", "PodDisruptionBudget", "ScaledObject"]);
    let misspelt = "apiVersion: v1\nkind: Service\nspec:\n  selectors: {}\n";
    let kind = serde_norway::from_str::<Kind>(misspelt)?;
    assert_eq!(unknown_fields(&kind, misspelt)?, ["spec.?.selectors"]);
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    kind: String,
}

/// The fields of a document that its kind does not have. A required one that is missing, or a value
/// of another type, is an error.
fn unknown_fields(kind: &Kind, document: &str) -> Result<Vec<String>> {
    use k8s_openapi::api::{apps, core, policy};
    match (kind.api_version.as_str(), kind.kind.as_str()) {
        ("v1", "ConfigMap") => ignored::<core::v1::ConfigMap>(document),
        ("v1", "Service") => ignored::<core::v1::Service>(document),
        ("apps/v1", "StatefulSet") => ignored::<apps::v1::StatefulSet>(document),
        ("policy/v1", "PodDisruptionBudget") => ignored::<policy::v1::PodDisruptionBudget>(document),
        ("keda.sh/v1alpha1", "ScaledObject") => ignored::<keda::ScaledObject>(document),
        _ => bail!("no such kind is known"),
    }
}

fn ignored<T: serde::de::DeserializeOwned>(document: &str) -> Result<Vec<String>> {
    let mut unknown = Vec::new();
    let reader = serde_norway::Deserializer::from_str(document);
    let _: T = serde_ignored::deserialize(reader, |path| unknown.push(path.to_string()))?;
    unknown.retain(|field| !["apiVersion", "kind"].contains(&field.as_str()));
    Ok(unknown)
}

/// The part of KEDA's ScaledObject that a Prometheus trigger uses (keda.sh/v1alpha1).
#[expect(dead_code, reason = "only the names and types of the fields count")]
mod keda {
    use std::collections::BTreeMap;

    use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde::Deserialize;

    #[derive(Deserialize)]
    pub(super) struct ScaledObject {
        metadata: ObjectMeta,
        spec: Spec,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        scale_target_ref: ScaleTarget,
        polling_interval: Option<i32>,
        cooldown_period: Option<i32>,
        initial_cooldown_period: Option<i32>,
        idle_replica_count: Option<i32>,
        min_replica_count: Option<i32>,
        max_replica_count: Option<i32>,
        fallback: Option<Fallback>,
        advanced: Option<Advanced>,
        triggers: Vec<Trigger>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ScaleTarget {
        api_version: Option<String>,
        kind: Option<String>,
        name: String,
        env_source_container_name: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fallback {
        failure_threshold: i32,
        replicas: i32,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Advanced {
        horizontal_pod_autoscaler_config: Option<HorizontalPodAutoscaler>,
        restore_to_original_replica_count: Option<bool>,
    }

    #[derive(Deserialize)]
    struct HorizontalPodAutoscaler {
        name: Option<String>,
        behavior: Option<HorizontalPodAutoscalerBehavior>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Trigger {
        r#type: String,
        name: Option<String>,
        metric_type: Option<String>,
        use_cached_metrics: Option<bool>,
        /// All values are texts.
        metadata: BTreeMap<String, String>,
    }
}
