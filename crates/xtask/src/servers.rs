//! Servers to try things on by hand, at the addresses where the demo looks.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::engine::{self, Engine, docker};
use crate::images::{self, Images};
use crate::process::answer;

const KAFKA: &str = "kmr-kafka";
const CLICKHOUSE: &str = "kmr-clickhouse";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(90);

/// Engine and images, left in place.
///
/// # Errors
///
/// With what is missing.
pub(crate) fn prepare_and_leave() -> Result<Images> {
    Engine::get_and_leave()?;
    images::ensure_all()
}

/// Starts both servers.
///
/// # Errors
///
/// When a server is not ready in time, or its port is taken.
pub(crate) fn up() -> Result<()> {
    let images = prepare_and_leave()?;
    if is_up(KAFKA) {
        println!("Kafka is up already");
    } else {
        run(&kafka(&images.kafka))?;
    }
    if is_up(CLICKHOUSE) {
        println!("ClickHouse is up already");
    } else {
        run(&clickhouse(&images.clickhouse))?;
    }
    let tool = "/opt/kafka/bin/kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --list";
    wait_ready(KAFKA, &["exec", KAFKA, "sh", "-c", tool])?;
    wait_ready_clickhouse()?;
    println!("Kafka at 127.0.0.1:9092, ClickHouse at http://127.0.0.1:8123");
    println!("The tests use servers of their own; for these instead:");
    println!("  export KMR_TEST_KAFKA=127.0.0.1:9092 KMR_TEST_CLICKHOUSE=http://127.0.0.1:8123");
    Ok(())
}

/// Removes both servers, and stops the engine if it was started by this command.
///
/// # Errors
///
/// When the engine returns an error.
pub(crate) fn down() -> Result<()> {
    if engine::version().is_some() {
        let mut remove = docker(&["rm", "--force", "--volumes", KAFKA, CLICKHOUSE]);
        // Newer clients do not mind a container that is not there, older ones do.
        match answer(&mut remove, COMMAND_LIMIT) {
            Err(error) if !error.to_string().contains("No such container") => return Err(error),
            _ => println!("servers removed"),
        }
    }
    engine::stop_left()
}

/// The same settings as in docker/compose.yaml, on the host's network: no port is open to others.
fn kafka(image: &str) -> Vec<String> {
    let settings = [
        "NODE_ID=1",
        "PROCESS_ROLES=broker,controller",
        "LISTENERS=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
        "ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:9092",
        "LISTENER_SECURITY_PROTOCOL_MAP=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "CONTROLLER_LISTENER_NAMES=CONTROLLER",
        "CONTROLLER_QUORUM_VOTERS=1@127.0.0.1:9093",
        "LOG_DIRS=/tmp/kafka-data",
        "OFFSETS_TOPIC_REPLICATION_FACTOR=1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR=1",
        "TRANSACTION_STATE_LOG_MIN_ISR=1",
        "MESSAGE_MAX_BYTES=16777216",
        "GROUP_INITIAL_REBALANCE_DELAY_MS=0",
        // As the official image has it by default: the demo's `produce` need not create its topic.
        "AUTO_CREATE_TOPICS_ENABLE=true",
        "HEAP_OPTS=-Xmx1g -Xms256m",
    ];
    let mut arguments = words(&["run", "--detach", "--name", KAFKA, "--network", "host"]);
    for setting in settings {
        arguments.extend(["--env".to_owned(), format!("KAFKA_{setting}")]);
    }
    arguments.push(image.to_owned());
    arguments
}

fn clickhouse(image: &str) -> Vec<String> {
    let publish = ["--publish", "127.0.0.1:8123:8123", "--env", "CLICKHOUSE_SKIP_USER_SETUP=1"];
    let mut arguments = words(&["run", "--detach", "--name", CLICKHOUSE]);
    arguments.extend(words(&publish));
    arguments.push(image.to_owned());
    arguments
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn run(arguments: &[String]) -> Result<()> {
    let name = arguments.iter().skip_while(|word| *word != "--name").nth(1).cloned().unwrap_or_default();
    // One that has stopped is in the way.
    let _ = answer(&mut docker(&["rm", "--force", "--volumes", &name]), COMMAND_LIMIT);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    answer(&mut docker(&arguments), COMMAND_LIMIT).with_context(|| format!("starting {name}"))?;
    Ok(())
}

fn is_up(name: &str) -> bool {
    let mut command = docker(&["inspect", "--format", "{{.State.Running}}", name]);
    answer(&mut command, COMMAND_LIMIT).is_ok_and(|running| running == "true")
}

fn wait_ready(name: &str, probe: &[&str]) -> Result<()> {
    wait(name, || answer(&mut docker(probe), COMMAND_LIMIT).is_ok())
}

fn wait_ready_clickhouse() -> Result<()> {
    wait(CLICKHOUSE, || {
        // bash speaks TCP, which spares a program for HTTP
        let ask = "exec 3<>/dev/tcp/127.0.0.1/8123 && printf 'GET /ping HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q Ok <&3";
        answer(Command::new("bash").args(["-c", ask]), Duration::from_secs(5)).is_ok()
    })
}

fn wait(name: &str, ready: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !ready() {
        if !is_up(name) || started.elapsed() > START_LIMIT {
            let log = answer(&mut docker(&["logs", "--tail", "15", name]), COMMAND_LIMIT).unwrap_or_default();
            bail!(
                "{name} is not ready after {:.0} s; its log ends with:\n{log}",
                started.elapsed().as_secs_f64()
            );
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}
