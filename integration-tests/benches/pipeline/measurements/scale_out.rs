//! The same group in 1, 2 and 4 processes: what all of them use together for the same records.

use anyhow::{Result, ensure};
use integration_tests::{Deadline, Process, Signal, Topic, log_line, wait_until};

use super::Line;
use crate::contenders::Contender;
use crate::contenders::live::Lived;
use crate::figures::{median, order};
use crate::options::Options;
use crate::servers::{Servers, said};
use crate::shared::job::Work;
use crate::table::FEWEST_ROUNDS;

/// As many as the most processes: with fewer partitions some would have nothing to do.
const PROCESSES: [usize; 3] = [1, 2, 4];

/// Joining and its rebalances are to be a small part of a run.
const TIMES: u64 = 10;

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let records = options.records() * TIMES;
    let topic = servers.topic("bench_scale_out", options.partitions.max(4), records).await?;
    let mut cpu = vec![Vec::new(); PROCESSES.len()];
    for round in 1..=options.rounds().min(FEWEST_ROUNDS) {
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
    wait_until(Deadline::seconds(300), "all is committed", async || {
        Ok(topic.lag(&job.group).await.is_ok_and(|lag| lag == 0))
    })
    .await?;
    let (mut cpu, mut mapped) = (0.0, 0);
    for mut member in members {
        member.signal(Signal::Terminate)?;
        let lived: Lived = said(member).await?;
        cpu += lived.cpu.as_secs_f64();
        mapped += lived.records;
    }
    // A rebalance may have had some mapped twice; fewer would be a loss.
    ensure!(mapped >= records, "{mapped} of {records} records");
    Ok(cpu * 1e6 / mapped as f64)
}
