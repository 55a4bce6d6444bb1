//! Compares exactly-once mode with at-least-once mode, into the same table.

use anyhow::Result;
use integration_tests::log_line;

use super::Line;
use crate::contenders::{Contender, SMALL_BLOCKS};
use crate::figures::order;
use crate::options::Options;
use crate::servers::{Servers, table_of};
use crate::shared::job::Work;
use crate::shared::meter::Measured;

/// Ten times the rate before blocks grew with the backlog.
const SMALL_BLOCKS_RATE: f64 = 40_000.0;

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let records = options.records();
    let topic = servers.topic("bench_exactly_once", options.partitions, records).await?;
    // The table has a window only here, for both modes. Elsewhere rows equal to those of an earlier
    // run would be deduplicated.
    let table = table_of(Work::W1);
    let window = format!("ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 1000");
    servers.database.exec(&window).await?;
    let modes = [
        ("at least once", Contender::Kmr),
        ("exactly once", Contender::KmrExactlyOnce),
        ("small blocks", Contender::KmrSmallBlocks),
    ];
    let mut runs: [Vec<Measured>; 3] = Default::default();
    for round in 1..=options.rounds() {
        for at in order(round, modes.len()) {
            let (name, contender) = modes[at];
            let job = servers.job(Work::W1, topic.name(), records, options.lz4());
            let command = servers.command(contender, &job)?;
            let (measured, _) = servers.run_billed(command, &job, Some(records)).await?;
            log_line(format_args!(
                "exactly once, round {round}: {name:14} {:.3} CPU-s/M",
                measured.cpu_per_million
            ));
            runs[at].push(measured);
        }
    }
    topic.delete().await?;
    let window = format!("ALTER TABLE {table} RESET SETTING non_replicated_deduplication_window");
    servers.database.exec(&window).await?;
    let of = |figure: fn(&Measured) -> f64| runs.each_ref().map(|runs| runs.iter().map(figure).collect());
    let [least, exactly, small]: [Vec<f64>; 3] = of(|run| run.cpu_per_million);
    let [least_rate, exactly_rate, small_rate]: [Vec<f64>; 3] = of(|run| run.rate);
    let small_blocks = format!("W1, exactly once, max_rows of {SMALL_BLOCKS}");
    Ok(vec![
        Line::median("W1, at least once: CPU-s per million", &least, ""),
        Line::median("W1, exactly once: CPU-s per million", &exactly, ""),
        Line::ratio("ratio", &exactly, &least).at_most(1.25),
        Line::median("W1, at least once", &least_rate, "records/s"),
        Line::median("W1, exactly once", &exactly_rate, "records/s"),
        Line::median(format!("{small_blocks}: CPU-s per million"), &small, ""),
        Line::median(small_blocks, &small_rate, "records/s").at_least(SMALL_BLOCKS_RATE),
    ])
}
