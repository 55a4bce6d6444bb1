//! Measures the total processor time of a group in 1, 2 and 4 processes for the same records.

use anyhow::{Result, ensure};
use integration_tests::{Deadline, Process, Signal, Topic, log_line, wait_until};

use super::Line;
use crate::contenders::Contender;
use crate::contenders::live::LiveRun;
use crate::figures::{median, order};
use crate::options::Options;
use crate::servers::{Servers, output};
use crate::shared::job::Work;
use crate::table::MIN_ROUNDS;

/// Numbers of processes. The topic has at least 4 partitions, so that each process has one.
const PROCESSES: [usize; 3] = [1, 2, 4];

/// Makes runs long, so that joins and rebalances are a small part of them.
const TIMES: u64 = 10;

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let records = options.records() * TIMES;
    let topic = servers.topic("bench_scale_out", options.partitions.max(4), records).await?;
    let mut cpu = vec![Vec::new(); PROCESSES.len()];
    for round in 1..=options.rounds().min(MIN_ROUNDS) {
        for at in order(round, PROCESSES.len()) {
            let processes = PROCESSES[at];
            let used = group(processes, records, &topic, options, servers).await?;
            log_line(format_args!("scale-out, round {round}: {processes} processes {used:.3} CPU-s/M"));
            cpu[at].push(used);
        }
    }
    topic.delete().await?;
    let mut lines = Vec::new();
    for (processes, used) in PROCESSES.into_iter().zip(&cpu) {
        lines.push(Line::median(format!("W0, {processes} processes: CPU-s per million, together"), used, ""));
    }
    // Flat is between any two of them, not only to one process.
    cpu.sort_by(|this, that| median(this.clone()).total_cmp(&median(that.clone())));
    if let [least, .., most] = &cpu[..] {
        lines.push(Line::ratio("most to least", most, least).at_most(1.15));
    }
    Ok(lines)
}

/// CPU-seconds for a million records, of all members of one group together.
async fn group(
    processes: usize,
    records: u64,
    topic: &Topic,
    options: &Options,
    servers: &Servers,
) -> Result<f64> {
    let job = servers.job(Work::W1, topic.name(), records, options.lz4());
    let members = (0..processes).map(|_| servers.spawn(Contender::KmrMember, &job));
    let members: Vec<Process> = members.collect::<Result<_>>()?;
    wait_until(Deadline::seconds(300), "all records are committed", async || {
        Ok(topic.lag(&job.group).await.is_ok_and(|lag| lag == 0))
    })
    .await?;
    let (mut cpu, mut mapped) = (0.0, 0);
    for mut member in members {
        member.signal(Signal::Terminate)?;
        let run: LiveRun = output(member).await?;
        cpu += run.cpu.as_secs_f64();
        mapped += run.records;
    }
    // A rebalance can cause some records to be mapped twice.
    ensure!(mapped >= records, "{mapped} of {records} records are mapped");
    Ok(cpu * 1e6 / mapped as f64)
}
