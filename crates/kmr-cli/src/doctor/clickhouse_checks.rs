//! Checks of ClickHouse: server, table, columns, permission, deduplication, parts. Pure.

use kmr_cli_support::numbers::grouped;

use super::check::{Check, State};
use super::durability_checks as durability;
use super::facts::{ClickHouseFacts, Facts, TableFacts, Writer};

/// The checks that decide whether the consumer starts.
pub(super) fn start_up_checks(facts: &Facts) -> Vec<Check> {
    let server = &facts.clickhouse;
    vec![version(server), table(server), columns(server), durability::start(server)]
}

/// All checks of ClickHouse.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let server = &facts.clickhouse;
    vec![
        version(server),
        durability::addresses(server),
        table(server),
        columns(server),
        durability::start(server),
        Check::permission(
            "insert",
            &server.may_insert,
            format!("grant INSERT on {}, and set readonly to 0", server.table),
        ),
        engine(server),
        durability::profile(server),
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
            "check the user and --clickhouse, which is the HTTP address",
        ),
    }
}

/// The tables, or the check that reports why they are unknown.
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
            let remedy = "create it (`kmr-demo create-table`), or correct --table and --database";
            Check::new("table", State::Fail, format!("{} does not exist", server.table), remedy)
        }
        Ok(tables) => {
            let views = tables.len() - 1;
            let downstream =
                if views == 0 { String::new() } else { format!(", {views} more downstream of its views") };
            Check::ok("table", format!("{}{downstream}", server.table))
        }
        Err(reason) => Check::unknown("table", reason),
    }
}

fn columns(server: &ClickHouseFacts) -> Check {
    const NAME: &str = "columns";
    match (known(NAME, server), &server.row) {
        (Err(unknown), _) => unknown,
        (Ok(_), Ok(())) => Check::ok(NAME, "names, types and defaults accept the row type"),
        (Ok(_), Err(reason)) => Check::new(
            NAME,
            State::Fail,
            reason,
            "change the table: `kmr-demo create-table` prints one that fits",
        ),
    }
}

fn engine(server: &ClickHouseFacts) -> Check {
    match known("engine", server) {
        Ok(tables) => durability::engine(server, tables),
        Err(unknown) => unknown,
    }
}

fn windows(server: &ClickHouseFacts, writer: Writer) -> Check {
    const NAME: &str = "deduplication";
    let tables = match known(NAME, server) {
        Ok(tables) => tables,
        Err(unknown) => return unknown,
    };
    if let Some(setting) = server.disables_windows() {
        let remedy = "change it for the user: it disables all windows";
        return Check::new(NAME, State::Warn, setting, remedy);
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
                good.push(format!("{text} ({margin:.1} times the need of a retry)"));
            }
        }
    }
    if !none.is_empty() {
        let remedy = "ALTER TABLE … MODIFY SETTING non_replicated_deduplication_window = 10000 on each; repeated inserts \
                      double rows there";
        return Check::new(NAME, State::Warn, format!("no window: {}", none.join(", ")), remedy);
    }
    if !short.is_empty() {
        let remedy = format!(
            "raise the window above {needed}, the number of blocks that one writer adds while an insert is retried"
        );
        return Check::new(NAME, State::Warn, format!("window too short: {}", short.join(", ")), remedy);
    }
    match good[..] {
        [] => Check::new(
            NAME,
            State::Warn,
            "no table of the MergeTree family: repeated inserts double rows",
            "use a table of the MergeTree family",
        ),
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
        return Check::ok(NAME, "no table of the MergeTree family, so no limit of parts");
    };
    let TableFacts { name, parts, parts_to_delay, parts_to_throw, .. } = worst;
    let found = format!(
        "{name}: {} active in its fullest partition; inserts are delayed from {}, rejected from {}",
        grouped(*parts),
        grouped(*parts_to_delay),
        grouped(*parts_to_throw)
    );
    if parts >= parts_to_throw {
        let remedy = "ClickHouse rejects inserts now: wait for merges, or find out why they do not run (SYSTEM START MERGES, disk)";
        Check::new(NAME, State::Fail, found, remedy)
    } else if *parts * 2 >= *parts_to_delay {
        Check::new(
            NAME,
            State::Warn,
            found,
            "insert less often: raise --max-rows and --max-age, or run fewer writers",
        )
    } else {
        Check::ok(NAME, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Access;
    use super::super::sample_facts::facts;
    use super::*;

    fn checked(name: &str, change: impl FnOnce(&mut ClickHouseFacts)) -> (State, String) {
        let mut facts = facts();
        change(&mut facts.clickhouse);
        let check = checks(&facts).into_iter().find(|check| check.name == name).unwrap();
        (check.state, format!("{} → {}", check.found, check.remedy))
    }

    fn table(server: &mut ClickHouseFacts) -> &mut TableFacts {
        &mut server.tables.as_mut().unwrap()[0]
    }

    #[test]
    fn sample_facts_pass() {
        for check in checks(&facts()) {
            assert_eq!(check.state, State::Ok, "{check:?}");
        }
    }

    #[test]
    fn missing_servers_tables_and_columns_fail() {
        let (state, text) = checked("ClickHouse", |s| s.version = Err("closed".into()));
        assert!(state == State::Fail && text.contains("closed"), "{text}");
        let (state, text) = checked("table", |s| s.tables = Ok(Vec::new()));
        assert!(state == State::Fail && text.contains("db.t does not exist"), "{text}");
        let (state, text) = checked("columns", |s| s.row = Err("it has no column `offset`".into()));
        assert!(state == State::Fail && text.contains("no column `offset`"), "{text}");
        let (state, text) = checked("insert", |s| s.may_insert = Access::Denied);
        assert!(state == State::Fail && text.contains("INSERT on db.t"), "{text}");
        for name in ["table", "columns", "engine", "deduplication", "parts"] {
            assert_eq!(checked(name, |s| s.tables = Err("no answer".into())).0, State::Unknown, "{name}");
        }
    }

    #[test]
    fn engines_without_deduplication_warn() {
        let (state, text) = checked("deduplication", |s| table(s).engine = "Memory".into());
        assert!(state == State::Warn && text.contains("repeated inserts double rows"), "{text}");
        assert_eq!(checked("parts", |s| table(s).engine = "Memory".into()).0, State::Ok);
    }

    #[test]
    fn missing_and_short_windows_warn() {
        let (state, text) = checked("deduplication", |s| table(s).window = Some(0));
        assert!(state == State::Warn && text.contains("no window: db.t"), "{text}");
        let (state, text) = checked("deduplication", |s| table(s).window = Some(76));
        assert!(state == State::Warn && text.contains("too short") && text.contains("above 77"), "{text}");
        let (state, text) = checked("deduplication", |s| {
            s.profile = Ok([("deduplicate_insert".to_owned(), "disable".to_owned())].into());
        });
        assert!(state == State::Warn && text.contains("deduplicate_insert is disable"), "{text}");
        let downstream =
            TableFacts { name: "db.v".into(), engine: "SummingMergeTree".into(), ..TableFacts::default() };
        let (state, text) = checked("deduplication", |s| s.tables.as_mut().unwrap().push(downstream));
        assert!(state == State::Warn && text.contains("no window: db.v"), "{text}");
        let (_, text) = checked("deduplication", |s| table(s).partition_key = "toDate(timestamp)".into());
        assert!(text.contains("one for each value of toDate(timestamp)"), "{text}");
    }

    #[test]
    fn parts_warn_from_half_the_delay_on_and_fail_when_inserts_are_rejected() {
        let with = |parts| checked("parts", |s| table(s).parts = parts).0;
        assert_eq!([499, 500, 2_999, 3_000].map(with), [State::Ok, State::Warn, State::Warn, State::Fail]);
    }
}
