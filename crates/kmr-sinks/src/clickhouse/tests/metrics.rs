//! The writer's metrics in the scrape of its consumer, compared with docs/metrics.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{Consumer, MetricsFormat, Record, Strategy};

use super::mock::{Mock, description, response, written};
use super::{EXCEPTION, Line, writer};
use crate::clickhouse::ClickHouseError;

/// Types and labels of the metrics whose names start with `kmr_clickhouse_`, by name.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

fn documented() -> Families {
    let page = include_str!("../../../../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `kmr_clickhouse_"));
    let family = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
    };
    rows.map(family).collect()
}

fn scraped(text: &str) -> Families {
    let own = |line: &&str| line.trim_start_matches("# TYPE ").starts_with("kmr_clickhouse_");
    let mut families = Families::new();
    for line in text.lines().filter(own) {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            continue;
        }
        let (name, labels) = line.split_once('{').unwrap();
        let part_of = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let labels = labels.split("=\"").filter_map(|part| part.rsplit(['"', ',', '{']).next());
        let labels = labels.filter(|label| !label.is_empty() && *label != "le" && !label.starts_with('}'));
        families.get_mut(part_of.unwrap_or(name)).unwrap().1.extend(labels.map(str::to_owned));
    }
    families
}

fn line(record: &Record<'_>) -> Result<Line, ClickHouseError> {
    Ok(Line { id: record.offset().unsigned_abs(), text: "x".into() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_has_the_writers_metrics_of_the_table_and_no_others() {
    let overloaded =
        response("500 Internal Server Error", &[(EXCEPTION, "241")], "Code: 241. DB::Exception: Memory");
    let mock = Mock::without_system_tables(vec![description(), overloaded, written(2)]).await;
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("lines", 1).unwrap();
    cluster.produce("lines", (0..2).map(|_| NewRecord::new(0).with_payload("x"))).unwrap();
    let consumer = Consumer::builder()
        .topics(["lines"])
        .config(cluster.client_config("g"))
        .strategy(Strategy::new().map(line).reduce(writer(&mock.url).max_rows(2)))
        .build()
        .unwrap();
    let (handle, running) = (consumer.handle(), tokio::spawn(consumer.run()));
    let started = Instant::now();
    while handle.stats().rows.is_empty() {
        assert!(
            started.elapsed() < Duration::from_secs(30) && !running.is_finished(),
            "nothing was inserted"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let text = handle.metrics(MetricsFormat::Prometheus).await;
    assert_eq!(scraped(&text), documented(), "{text}");
    for (series, value) in [
        (
            "kmr_clickhouse_inserts_total{stage=\"reduce 1\",table=\"`db`.`lines`\",outcome=\"retryable\",code=\"241\"}",
            1,
        ),
        (
            "kmr_clickhouse_inserts_total{stage=\"reduce 1\",table=\"`db`.`lines`\",outcome=\"accepted\",code=\"\"}",
            1,
        ),
        ("kmr_clickhouse_inserted_rows_total{stage=\"reduce 1\",table=\"`db`.`lines`\"}", 2),
        ("kmr_clickhouse_insert_duration_seconds_count{stage=\"reduce 1\",table=\"`db`.`lines`\"}", 2),
        ("kmr_delivery_attempts_total{stage=\"reduce 1\",outcome=\"retryable\",code=\"241\"}", 1),
        ("kmr_delivery_attempts_total{stage=\"reduce 1\",outcome=\"delivered\",code=\"\"}", 1),
    ] {
        assert!(text.contains(&format!("{series} {value}\n")), "{series} is not {value} in {text}");
    }
    handle.stop();
    running.await.unwrap().unwrap();
}
