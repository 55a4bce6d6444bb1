//! Tables that add up folded rows, as in docs/folds.md: states that the server makes of arrays, and
//! deletions in a ReplacingMergeTree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use integration_tests::{ClickHouse, Database, Deadline, Kafka, Message, Topic, test_name, unique};
use kmr_core::fold::{Count, Merge as _};
use kmr_core::{BoxError, Fold, IntoPipeline, Record, processing_strategy};
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::{Deserialize, Serialize};

use crate::in_process::{consumer, run};

/// Consumes everything that is in the topic, in a batch per partition and hand-off.
async fn consume(topic: &Topic, group: &str, strategy: impl IntoPipeline) -> Result<()> {
    let mut running = run(consumer(topic, group, strategy.into_pipeline()).exactly_once())?;
    running.all_committed(topic, group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(60)).await?;
    Ok(())
}

fn writer<R: Row + Serialize + Send + 'static>(database: &Database, table: &str) -> ClickHouseWriter<R> {
    ClickHouseWriter::new(database.server().url(), table)
        .database(database.name())
        .max_age(Duration::from_millis(100))
}

const STATES: &str = "CREATE TABLE pages (page UInt32, visits SimpleAggregateFunction(sum, UInt64), \
    user_ids Array(UInt64) EPHEMERAL, \
    users AggregateFunction(uniq, UInt64) DEFAULT arrayReduce('uniqState', user_ids), \
    times Array(UInt32) EPHEMERAL, time_counts Array(UInt64) EPHEMERAL, \
    latency AggregateFunction(quantileExactWeighted, UInt32, UInt64) \
        DEFAULT arrayReduce('quantileExactWeightedState', times, time_counts), \
    terms Array(String) EPHEMERAL, term_counts Array(UInt64) EPHEMERAL, \
    top AggregateFunction(topKWeighted(3), String, UInt64) \
        DEFAULT arrayReduce('topKWeightedState(3)', terms, term_counts)) \
    ENGINE = AggregatingMergeTree ORDER BY page \
    SETTINGS non_replicated_deduplication_window = 1000";

/// The record number.
fn number(record: &Record<'_>) -> Result<u64, BoxError> {
    Ok(std::str::from_utf8(record.payload().ok_or("no payload")?)?.parse()?)
}

/// All visits of a page in a batch.
struct Page {
    page: u32,
    visits: Count,
    users: BTreeSet<u64>,
    times: BTreeMap<u32, u64>,
    terms: BTreeMap<String, u64>,
}

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct PageRow {
    page: u32,
    visits: Count,
    user_ids: Vec<u64>,
    times: Vec<u32>,
    time_counts: Vec<u64>,
    terms: Vec<String>,
    term_counts: Vec<u64>,
}

impl Page {
    fn of(n: u64) -> Self {
        let term = ["a", "a", "a", "a", "b", "b", "b", "c", "c", "d"][(n % 10) as usize].to_owned();
        Self {
            page: (n % 3) as u32,
            visits: Count::ONE,
            users: BTreeSet::from([n % 97]),
            times: BTreeMap::from([((n % 251) as u32, 1)]),
            terms: BTreeMap::from([(term, 1)]),
        }
    }

    fn merge(&mut self, later: Self) {
        self.visits.merge(later.visits);
        self.users.extend(later.users);
        later.times.into_iter().for_each(|(time, count)| *self.times.entry(time).or_default() += count);
        later.terms.into_iter().for_each(|(term, count)| *self.terms.entry(term).or_default() += count);
    }

    fn finish(self) -> Result<PageRow, BoxError> {
        let (times, time_counts) = self.times.into_iter().unzip();
        let (terms, term_counts) = self.terms.into_iter().unzip();
        let user_ids = self.users.into_iter().collect();
        Ok(PageRow { page: self.page, visits: self.visits, user_ids, times, time_counts, terms, term_counts })
    }
}

/// Distinct users, 90th percentile of the times, and the most frequent terms, of one page.
#[derive(Debug, PartialEq, Eq, clickhouse::Row, Deserialize)]
struct Statistics {
    page: u32,
    visits: u64,
    users: u64,
    latency: u32,
    top: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_makes_the_states_of_its_functions_of_folded_arrays() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    database.exec(STATES).await?;
    let (group, rounds, each) = (unique(test_name!()), 3, 2_000_u64);
    for round in 0..rounds {
        let numbers = round * each..(round + 1) * each;
        let message = |n: u64| Message::new(n.to_string()).partition(i32::from(n % 5 < 2));
        topic.produce(numbers.map(message)).await?;
        let fold = Fold::by_key(|n: &u64| n % 3, Page::of, Page::merge);
        let fold = fold.finish_into(Page::finish, writer::<PageRow>(&database, "pages"));
        consume(&topic, &group, processing_strategy!({ map => number, reduce => fold })).await?;
    }
    let states = "SELECT page, sum(visits) AS visits, uniqMerge(users) AS users, \
                  quantileExactWeightedMerge(0.9)(latency) AS latency, topKWeightedMerge(3)(top) AS top \
                  FROM pages GROUP BY page ORDER BY page";
    let values = format!(
        "SELECT toUInt32(number % 3) AS page, count() AS visits, uniq(number % 97) AS users, \
         quantileExactWeighted(0.9)(toUInt32(number % 251), 1) AS latency, topK(3)(substring('aaaabbbccd', number % 10 + 1, 1)) AS top \
         FROM numbers({}) GROUP BY page ORDER BY page",
        rounds * each
    );
    let found: Vec<Statistics> = database.client().query(states).fetch_all().await?;
    let expected: Vec<Statistics> = database.client().query(&values).fetch_all().await?;
    assert_eq!(found, expected);
    assert_eq!((found.len(), &found[0].top), (3, &["a", "b", "c"].map(str::to_owned).to_vec()));
    let rows = database.count("pages").await?;
    assert!((3..=rounds * each / 10).contains(&rows), "{rows} rows are hardly folded");
    Ok(())
}

/// A customer, by the last record of its key. A record without a payload deletes it.
#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Customer {
    id: u64,
    name: String,
    version: u64,
    is_deleted: u8,
}

fn customer(record: &Record<'_>) -> Result<Customer, BoxError> {
    let id = std::str::from_utf8(record.key().ok_or("no key")?)?.parse()?;
    let version = u64::try_from(record.offset())?;
    let (name, is_deleted) = match record.payload() {
        Some(name) => (std::str::from_utf8(name)?.to_owned(), 0),
        None => (String::new(), 1),
    };
    Ok(Customer { id, name, version, is_deleted })
}

#[derive(Debug, PartialEq, Eq, clickhouse::Row, Deserialize)]
struct Name {
    id: u64,
    name: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_deletes_its_key_from_a_replacing_table_and_an_old_row_does_not_bring_it_back()
-> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let create = "CREATE TABLE customers (id UInt64, name String, version UInt64, is_deleted UInt8) \
                  ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY id \
                  SETTINGS non_replicated_deduplication_window = 1000";
    database.exec(create).await?;
    database.exec("SYSTEM STOP MERGES customers").await?;
    let group = unique(test_name!());
    let pipeline = || {
        let last = Fold::last_by_key(|customer: &Customer| customer.id);
        let last = last.into(writer::<Customer>(&database, "customers"));
        processing_strategy!({ map => customer, reduce => last })
    };
    let named = |id: u64, name: &str| Message::new(name).key(id.to_string()).partition(0);
    let deleted = |id: u64| Message::tombstone(id.to_string()).partition(0);

    // In one block: 1 is renamed, 2 is deleted, 3 is deleted and comes back.
    let first =
        [named(1, "a"), named(2, "b"), named(3, "c"), named(1, "A"), deleted(3), deleted(2), named(3, "C")];
    topic.produce(first).await?;
    consume(&topic, &group, pipeline()).await?;
    // Across blocks: 1 is deleted, 2 comes back.
    topic.produce([deleted(1), named(2, "B"), named(4, "d")]).await?;
    consume(&topic, &group, pipeline()).await?;

    let name = |id, name: &str| Name { id, name: name.to_owned() };
    let expected = [name(2, "B"), name(3, "C"), name(4, "d")];
    let merged = async || -> Result<Vec<Name>> {
        let query = "SELECT id, name FROM customers FINAL ORDER BY id";
        Ok(database.client().query(query).fetch_all().await?)
    };
    assert_eq!(merged().await?, expected);
    // What it does not promise: the rows of earlier blocks are there, until merges replace them.
    let stored = database.count("customers").await?;
    assert!(stored > 4, "{stored} rows: those of both blocks");
    assert_eq!(database.number("SELECT count() FROM customers WHERE id = 1 AND is_deleted = 0").await?, 1);

    // All records again, as after a reset of offsets: the older rows have lower versions.
    consume(&topic, &unique(test_name!()), pipeline()).await?;
    assert_eq!(merged().await?, expected);
    database.exec("SYSTEM START MERGES customers").await?;
    database.exec("OPTIMIZE TABLE customers FINAL").await?;
    assert_eq!(merged().await?, expected);
    assert_eq!(
        database.number("SELECT count() FROM customers WHERE is_deleted = 1").await?,
        1,
        "1 is marked"
    );
    Ok(())
}
