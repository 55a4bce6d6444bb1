//! Judges the server and the table. Pure.

use super::facts::{ClickHouseFacts, Facts, TableFacts, Writer};
use super::judge_kafka::access;
use super::report::{Check, State};
use crate::numbers::grouped;

/// One row for each thing that was looked at.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let server = &facts.clickhouse;
    vec![
        version(server),
        table(server),
        columns(server),
        access(
            "insert",
            &server.may_insert,
            format!("grant INSERT on {}; readonly has to be 0", server.table),
        ),
        engine(server),
        windows(server, facts.writer),
        parts(server),
    ]
}

fn version(server: &ClickHouseFacts) -> Check {
    match &server.version {
        Ok(version) => Check::ok("ClickHouse", format!("{version} at {}", server.address)),
        Err(reason) => Check::new(
            "ClickHouse",
            State::Fail,
            reason,
            "check --clickhouse, which is the HTTP address, and the user",
        ),
    }
}

/// The tables, or the check that says why there are none.
fn known<'a>(name: &'static str, server: &'a ClickHouseFacts) -> Result<&'a [TableFacts], Check> {
    match &server.tables {
        Ok(tables) if tables.is_empty() => Err(Check::unknown(name, "there is no table")),
        Ok(tables) => Ok(tables),
        Err(reason) => Err(Check::unknown(name, reason)),
    }
}

fn table(server: &ClickHouseFacts) -> Check {
    match &server.tables {
        Ok(tables) if tables.is_empty() => {
            let remedy = "create it with `kmr-demo create-table`, or correct --table and --database";
            Check::new("table", State::Fail, format!("{} does not exist", server.table), remedy)
        }
        Ok(tables) => {
            let views = tables.len() - 1;
            let behind = if views == 0 { String::new() } else { format!(", {views} more behind its views") };
            Check::ok("table", format!("{}{behind}", server.table))
        }
        Err(reason) => Check::unknown("table", reason),
    }
}

fn columns(server: &ClickHouseFacts) -> Check {
    const NAME: &str = "columns";
    match (known(NAME, server), &server.row) {
        (Err(unknown), _) => unknown,
        (Ok(_), Ok(())) => Check::ok(NAME, "a row can be written: names, types, defaults"),
        (Ok(_), Err(reason)) => Check::new(
            NAME,
            State::Fail,
            reason,
            "change the table: `kmr-demo create-table` prints one that fits",
        ),
    }
}

fn engine(server: &ClickHouseFacts) -> Check {
    const NAME: &str = "engine";
    let tables = match known(NAME, server) {
        Ok(tables) => tables,
        Err(unknown) => return unknown,
    };
    let odd: Vec<String> = tables
        .iter()
        .filter(|table| table.stores_rows() && !table.is_merge_tree())
        .map(|table| format!("{}: {}", table.name, table.engine_name()))
        .collect();
    match odd[..] {
        [] => Check::ok(NAME, tables[0].engine_name()),
        _ => Check::new(
            NAME,
            State::Warn,
            odd.join(", "),
            "only tables of the MergeTree family recognise an insert that is sent again, and say here what they do",
        ),
    }
}

fn windows(server: &ClickHouseFacts, writer: Writer) -> Check {
    const NAME: &str = "deduplication";
    let tables = match known(NAME, server) {
        Ok(tables) => tables,
        Err(unknown) => return unknown,
    };
    if server.deduplicates == Some(false) {
        let remedy = "set insert_deduplicate to 1 for the user: without it no window has any effect";
        return Check::new(NAME, State::Warn, "insert_deduplicate is 0", remedy);
    }
    let needed = writer.blocks_of_a_retry();
    let (mut none, mut short, mut good) = (Vec::new(), Vec::new(), Vec::new());
    for table in tables.iter().filter(|table| table.is_merge_tree()) {
        let window = table.window.unwrap_or(0);
        let text = match table.partition_key.as_str() {
            "" => format!("{}: {} blocks", table.name, grouped(window)),
            key => format!(
                "{}: {} blocks, one for each value of {key} in an insert",
                table.name,
                grouped(window)
            ),
        };
        match window {
            0 => none.push(table.name.clone()),
            window if window < needed => short.push(text),
            window => {
                let margin = window as f64 / needed as f64;
                good.push(format!("{text} ({margin:.1} times what a retry needs)"));
            }
        }
    }
    if !none.is_empty() {
        let remedy = "ALTER TABLE … MODIFY SETTING non_replicated_deduplication_window = 10000 on each: inserts that are sent \
                      again double rows there";
        return Check::new(NAME, State::Warn, format!("no window: {}", none.join(", ")), remedy);
    }
    if !short.is_empty() {
        let remedy = format!(
            "raise the window above {needed}: one writer adds as many blocks while an insert is retried"
        );
        return Check::new(NAME, State::Warn, format!("forgets soon: {}", short.join(", ")), remedy);
    }
    match good[..] {
        [] => Check::unknown(NAME, "no table of the MergeTree family"),
        _ => Check::ok(NAME, good.join(", ")),
    }
}

fn parts(server: &ClickHouseFacts) -> Check {
    const NAME: &str = "parts";
    let tables = match known(NAME, server) {
        Ok(tables) => tables,
        Err(unknown) => return unknown,
    };
    let ratio = |table: &&TableFacts| table.parts as f64 / table.parts_to_throw.max(1) as f64;
    let merged = tables.iter().filter(|table| table.is_merge_tree());
    let Some(worst) = merged.max_by(|a, b| ratio(a).total_cmp(&ratio(b))) else {
        return Check::unknown(NAME, "no table of the MergeTree family");
    };
    let TableFacts { name, parts, parts_to_delay, parts_to_throw, .. } = worst;
    let found = format!(
        "{name}: {} active in its fullest partition; delayed from {}, refused from {}",
        grouped(*parts),
        grouped(*parts_to_delay),
        grouped(*parts_to_throw)
    );
    if parts >= parts_to_throw {
        let remedy = "inserts are refused now: wait for merges, or find out what stops them (SYSTEM START MERGES, disk)";
        Check::new(NAME, State::Fail, found, remedy)
    } else if *parts * 2 >= *parts_to_delay {
        Check::new(
            NAME,
            State::Warn,
            found,
            "insert less often: larger --max-records and --max-age, fewer writers",
        )
    } else {
        Check::ok(NAME, found)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::facts::{Access, KafkaFacts, PartitionFacts, SettingsFacts};
    use super::*;
    use crate::cli::Protocol;

    /// Facts that nothing is wrong with.
    pub(in super::super) fn facts() -> Facts {
        let partition = |id| PartitionFacts {
            id,
            has_leader: true,
            replicas: 1,
            in_sync: 1,
            log: Some((10, 20)),
            committed: Some(15),
        };
        let apis = ["Fetch", "Metadata", "ConsumerGroupHeartbeat"].map(|name| (name.to_owned(), (0, 12)));
        Facts {
            settings: SettingsFacts::default(),
            kafka: KafkaFacts {
                address: "b:9092".into(),
                topic: "events".into(),
                group: "g".into(),
                protocol: Protocol::Cooperative,
                brokers: Ok(vec!["b:9092".into()]),
                apis: apis.into(),
                partitions: Ok(vec![partition(0), partition(1)]),
                may_read: Access::Allowed,
                may_commit: Access::Allowed,
                group_state: Ok(None),
                committed: Ok(()),
            },
            clickhouse: ClickHouseFacts {
                address: "c:8123".into(),
                table: "db.t".into(),
                version: Ok("26.7".into()),
                tables: Ok(vec![TableFacts {
                    name: "db.t".into(),
                    engine: "MergeTree".into(),
                    window: Some(1_000),
                    parts: 3,
                    parts_to_delay: 1_000,
                    parts_to_throw: 3_000,
                    ..TableFacts::default()
                }]),
                row: Ok(()),
                may_insert: Access::Allowed,
                deduplicates: Some(true),
            },
            writer: Writer { max_age: Duration::from_secs(4) },
        }
    }

    fn judged(name: &str, change: impl FnOnce(&mut ClickHouseFacts)) -> (State, String) {
        let mut facts = facts();
        change(&mut facts.clickhouse);
        let check = checks(&facts).into_iter().find(|check| check.name == name).unwrap();
        (check.state, format!("{} → {}", check.found, check.remedy))
    }

    fn table(server: &mut ClickHouseFacts) -> &mut TableFacts {
        &mut server.tables.as_mut().unwrap()[0]
    }

    #[test]
    fn good_facts_are_fine() {
        for check in checks(&facts()) {
            assert_eq!(check.state, State::Ok, "{check:?}");
        }
    }

    #[test]
    fn servers_tables_and_columns_that_are_not_there_fail() {
        let (state, text) = judged("ClickHouse", |s| s.version = Err("refused".into()));
        assert!(state == State::Fail && text.contains("refused"), "{text}");
        let (state, text) = judged("table", |s| s.tables = Ok(Vec::new()));
        assert!(state == State::Fail && text.contains("db.t does not exist"), "{text}");
        let (state, text) = judged("columns", |s| s.row = Err("it has no column `offset`".into()));
        assert!(state == State::Fail && text.contains("no column `offset`"), "{text}");
        let (state, text) = judged("insert", |s| s.may_insert = Access::Denied);
        assert!(state == State::Fail && text.contains("INSERT on db.t"), "{text}");
        for name in ["table", "columns", "engine", "deduplication", "parts"] {
            assert_eq!(judged(name, |s| s.tables = Err("no answer".into())).0, State::Unknown, "{name}");
        }
    }

    #[test]
    fn engines_that_recognise_nothing_warn() {
        let (state, text) = judged("engine", |s| table(s).engine = "Memory".into());
        assert!(state == State::Warn && text.contains("db.t: Memory"), "{text}");
        assert_eq!(judged("deduplication", |s| table(s).engine = "Memory".into()).0, State::Unknown);
        assert_eq!(judged("parts", |s| table(s).engine = "Memory".into()).0, State::Unknown);
        assert_eq!(judged("engine", |s| table(s).engine = "Null".into()).0, State::Ok);
    }

    #[test]
    fn windows_that_are_missing_or_short_warn() {
        let (state, text) = judged("deduplication", |s| table(s).window = Some(0));
        assert!(state == State::Warn && text.contains("no window: db.t"), "{text}");
        let (state, text) = judged("deduplication", |s| table(s).window = Some(76));
        assert!(state == State::Warn && text.contains("forgets soon") && text.contains("above 77"), "{text}");
        let (state, text) = judged("deduplication", |s| s.deduplicates = Some(false));
        assert!(state == State::Warn && text.contains("insert_deduplicate is 0"), "{text}");
        let behind =
            TableFacts { name: "db.v".into(), engine: "SummingMergeTree".into(), ..TableFacts::default() };
        let (state, text) = judged("deduplication", |s| s.tables.as_mut().unwrap().push(behind));
        assert!(state == State::Warn && text.contains("no window: db.v"), "{text}");
        let (_, text) = judged("deduplication", |s| table(s).partition_key = "toDate(timestamp)".into());
        assert!(text.contains("one for each value of toDate(timestamp)"), "{text}");
    }

    #[test]
    fn parts_warn_from_half_the_delay_on_and_fail_where_inserts_are_refused() {
        let with = |parts| judged("parts", |s| table(s).parts = parts).0;
        assert_eq!([499, 500, 2_999, 3_000].map(with), [State::Ok, State::Warn, State::Warn, State::Fail]);
    }
}
