//! Measures whether a record costs more with more partitions, topics or records.

use anyhow::{Context as _, Result};
use integration_tests::{Topic, log_line, unique};

use super::Line;
use crate::contenders::Contender;
use crate::figures::order;
use crate::options::Options;
use crate::servers::{Servers, fill};
use crate::shared::job::Work;
use crate::shared::meter::Measured;
use crate::table::MIN_ROUNDS;

/// A shape of topics, which is compared with one topic of 4 partitions.
struct Shape {
    name: &'static str,
    topics: usize,
    partitions: i32,
    times: u64,
}

const SHAPES: [Shape; 4] = [
    Shape { name: "1 topic, 4 partitions", topics: 1, partitions: 4, times: 1 },
    Shape { name: "1 topic, 64 partitions", topics: 1, partitions: 64, times: 1 },
    Shape { name: "8 topics, 4 partitions each", topics: 8, partitions: 4, times: 1 },
    Shape { name: "1 topic, 4 partitions, 10 times the records", topics: 1, partitions: 4, times: 10 },
];

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let mut scenes = Vec::new();
    for shape in &SHAPES {
        scenes.push((shape, prepare(shape, options, servers).await?));
    }
    let mut cpu = vec![Vec::new(); SHAPES.len()];
    // Few rounds, because one shape has ten times the records.
    for round in 1..=options.rounds().min(MIN_ROUNDS) {
        for at in order(round, scenes.len()) {
            let (shape, (pattern, records, _)) = &scenes[at];
            let job = servers.job(Work::W1, pattern, *records, options.lz4());
            let command = servers.command(Contender::KmrDrop, &job)?;
            let measured: Measured = servers.run(command, Work::W1, None).await.context(shape.name)?;
            log_line(format_args!(
                "growth, round {round}: {:44} {:.3} CPU-s/M",
                shape.name, measured.cpu_per_million
            ));
            cpu[at].push(measured.cpu_per_million);
        }
    }
    for (_, (_, _, topics)) in scenes {
        for topic in topics {
            topic.delete().await?;
        }
    }
    let mut lines = Vec::new();
    for (shape, figures) in SHAPES.iter().zip(&cpu) {
        lines.push(Line::median(format!("W0, {}: CPU-s per million", shape.name), figures, ""));
    }
    for (shape, figures) in SHAPES.iter().zip(&cpu).skip(1) {
        lines.push(
            Line::ratio(format!("W0, {}: ratio to the first", shape.name), figures, &cpu[0]).at_most(1.1),
        );
    }
    Ok(lines)
}

/// Creates the topics. Returns the pattern that matches them, their number of records, and the
/// topics.
async fn prepare(shape: &Shape, options: &Options, servers: &Servers) -> Result<(String, u64, Vec<Topic>)> {
    let records = options.records() * shape.times;
    let (prefix, mut topics) = (unique("bench_growth"), Vec::new());
    for number in 0..shape.topics {
        let name = format!("{prefix}_{number}");
        topics.push(servers.kafka.create_topic_named(&name, shape.partitions).await?);
    }
    for topic in &topics {
        fill(topic, records / shape.topics as u64).await?;
    }
    Ok((format!("^{prefix}_"), records / shape.topics as u64 * shape.topics as u64, topics))
}
