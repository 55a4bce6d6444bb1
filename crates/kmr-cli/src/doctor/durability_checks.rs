//! Checks of ClickHouse: which rows survive a kill of the server (engines, the user's profile),
//! whether the writer starts, and the server's addresses. Pure.

use kmr_cli_support::numbers::grouped;
use kmr_sinks::clickhouse::EngineClass;

use super::check::{Check, State};
use super::facts::{ClickHouseFacts, TableFacts};

/// The engines of the table and of the targets of its views. The worst one decides.
pub(super) fn engine(server: &ClickHouseFacts, tables: &[TableFacts]) -> Check {
    const NAME: &str = "engine";
    let mut found: Vec<Finding> =
        tables.iter().enumerate().filter_map(|(at, table)| finding(table, at, tables)).collect();
    found.extend(spooled(tables));
    let Some(worst) = found.iter().max_by_key(|finding| finding.severity()) else {
        let own = tables.first().map_or("", |table| table.engine_name());
        let found = format!("{own}: rows are on disk before {} acknowledges them", server.address);
        return Check::ok(NAME, found + &expiry(tables));
    };
    let text: Vec<_> = found.iter().map(|finding| finding.text.as_str()).collect();
    Check::new(NAME, worst.state, text.join("; "), worst.remedy)
}

/// What a TTL does to rows that arrive late.
fn expiry(tables: &[TableFacts]) -> String {
    let expires = |table: &TableFacts| {
        let ttl = table.ttl.as_ref()?;
        Some(format!("; {} removes rows that are expired when they arrive (TTL {ttl})", table.name))
    };
    tables.iter().filter_map(expires).collect()
}

struct Finding {
    state: State,
    text: String,
    remedy: &'static str,
}

impl Finding {
    fn severity(&self) -> u8 {
        match self.state {
            State::Ok => 0,
            State::Warn => 1,
            State::Unknown => 2,
            State::Fail => 3,
        }
    }
}

/// Why rows of a table may be lost or doubled. `at`: its index, 0 for the consumer's own table.
fn finding(table: &TableFacts, at: usize, tables: &[TableFacts]) -> Option<Finding> {
    let engine = table.engine_name();
    // The rows of a view's target are also in the table itself.
    let loss = if at == 0 { State::Fail } else { State::Warn };
    let (state, what, remedy) = match table.class {
        None => (State::Unknown, "is the target of a view, and was not found", "grant SHOW TABLES on it"),
        Some(_) if table.is_merge_tree() => return None,
        Some(EngineClass::Durable) => (
            State::Warn,
            "stores rows, but recognises no repeated insert",
            "use a table of the MergeTree family",
        ),
        Some(EngineClass::Buffered) => (
            loss,
            "holds rows in memory: a kill of ClickHouse loses committed rows",
            "insert into the table that it reads",
        ),
        Some(EngineClass::Forgetting) if engine == "Null" => {
            let is_kept = tables.iter().any(|other| other.class.is_some() && !other.is_volatile());
            if at > 0 || is_kept {
                return None;
            }
            (
                loss,
                "keeps no rows, and no view of it writes to a durable table",
                "use a table that stores rows",
            )
        }
        Some(EngineClass::Forgetting) => (
            loss,
            "keeps rows in memory only: a kill of ClickHouse loses committed rows",
            "use a table of the MergeTree family",
        ),
        Some(EngineClass::Forwarding) if matches!(engine, "Distributed" | "Remote" | "RemoteSecure") => (
            State::Warn,
            "passes rows to the tables of its shards before it acknowledges them; these are not checked here",
            "run kmr doctor against a shard's own table",
        ),
        Some(EngineClass::Forwarding) => (
            State::Warn,
            "passes rows on; what it acknowledges is as safe as in the other table or system",
            "check that the destination keeps what it accepts; repeated inserts double rows there",
        ),
        Some(EngineClass::ReadOnly) => {
            (State::Fail, "accepts no inserts", "insert into the table that it reads")
        }
        Some(_) => {
            (State::Unknown, "is an engine that kmr does not know", "use a table of the MergeTree family")
        }
    };
    Some(Finding { state, text: format!("{}: {engine} {what}", table.name), remedy })
}

/// Rows of Distributed tables that other inserts left in their spool.
fn spooled(tables: &[TableFacts]) -> impl Iterator<Item = Finding> {
    tables.iter().filter(|table| table.spooled > 0).map(|table| Finding {
        state: State::Warn,
        text: format!("{}: {} files wait for their shard", table.name, grouped(table.spooled)),
        remedy: "other clients insert in the background; check the shard (system.distribution_queue)",
    })
}

/// Settings of the profile that kmr does not pin.
pub(super) fn profile(server: &ClickHouseFacts) -> Check {
    const NAME: &str = "profile";
    let profile = match &server.profile {
        Ok(profile) => profile,
        Err(reason) => return Check::unknown(NAME, reason),
    };
    let is_on = |name: &str| profile.get(name).is_some_and(|value| value != "0");
    let loses: Vec<_> =
        ["ignore_materialized_views_with_dropped_target_table", "materialized_views_ignore_errors"]
            .into_iter()
            .filter(|name| is_on(name))
            .collect();
    match loses[..] {
        [] => Check::ok(NAME, "no setting changes what an insert means; kmr pins the others"),
        _ => Check::new(
            NAME,
            State::Warn,
            format!("{} is 1: rows that a view rejects are missing in its target", loses.join(", ")),
            "set it to 0 for the user",
        ),
    }
}

/// Whether the consumer's own writer starts. It tries the settings of its inserts.
pub(super) fn start(server: &ClickHouseFacts) -> Check {
    match &server.start {
        Ok(()) => Check::ok("writer", "starts; the user may set what its inserts need"),
        Err(reason) if server.version.is_err() => Check::unknown("writer", reason),
        Err(reason) if server.row.as_ref().is_err_and(|row| reason.contains(row.as_str())) => {
            Check::new("writer", State::Fail, "does not start, see columns", "correct the columns first")
        }
        Err(reason) => Check::new("writer", State::Fail, reason, "the consumer would stop with this error"),
    }
}

/// Whether every address of the server's name accepts connections.
pub(super) fn addresses(server: &ClickHouseFacts) -> Check {
    const NAME: &str = "addresses";
    let addresses = match &server.addresses {
        Ok(addresses) => addresses,
        Err(reason) => {
            return Check::new(NAME, State::Fail, reason, "correct --clickhouse or the name service");
        }
    };
    let family = |address: &std::net::IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let show = |address: &std::net::IpAddr| format!("{} {address}", family(address));
    let dead: Vec<_> = addresses
        .iter()
        .filter_map(|(address, reached)| Some(format!("{}: {}", show(address), reached.as_ref().err()?)))
        .collect();
    let all: Vec<_> = addresses.iter().map(|(address, _)| show(address)).collect();
    match dead.len() {
        0 => Check::ok(NAME, all.join(", ")),
        count if count == addresses.len() => {
            Check::new(NAME, State::Fail, dead.join("; "), "start the server, or correct --clickhouse")
        }
        _ => Check::new(
            NAME,
            State::Warn,
            format!("{}; not reachable: {}", all.join(", "), dead.join("; ")),
            "remove the address from the name, or let the server listen on it: connecting may try it first",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::facts;
    use super::*;

    fn table(name: &str, engine: &str) -> TableFacts {
        TableFacts {
            name: name.into(),
            engine: engine.into(),
            class: Some(EngineClass::of(engine, engine)),
            ..TableFacts::default()
        }
    }

    fn checked(tables: &[TableFacts]) -> (State, String) {
        let check = engine(&facts().clickhouse, tables);
        (check.state, format!("{} → {}", check.found, check.remedy))
    }

    #[test]
    fn a_writer_that_does_not_start_says_why_once() {
        let mut server = facts().clickhouse;
        server.start = Err("table db.t has no column `offset`".to_owned());
        assert!(start(&server).found.contains("has no column"));
        server.row = Err("has no column `offset`".to_owned());
        let check = start(&server);
        assert!(check.state == State::Fail && !check.found.contains("has no column"), "{}", check.found);
    }

    #[test]
    fn a_ttl_is_named() {
        let ttl = Some("ts + toIntervalDay(1)".to_owned());
        let (state, text) = checked(&[TableFacts { ttl, ..table("db.t", "MergeTree") }]);
        assert!(state == State::Ok && text.contains("db.t removes rows that are expired"), "{text}");
        assert!(!checked(&[table("db.t", "MergeTree")]).1.contains("expired"));
    }

    #[test]
    fn engines_that_lose_or_reject_rows_fail() {
        for (engine, state, text) in [
            ("MergeTree", State::Ok, "on disk"),
            ("Log", State::Warn, "no repeated insert"),
            ("Distributed", State::Warn, "passes rows to the tables of its shards"),
            ("Kafka", State::Warn, "passes rows on"),
            ("Buffer", State::Fail, "in memory"),
            ("Memory", State::Fail, "in memory only"),
            ("Null", State::Fail, "keeps no rows"),
            ("View", State::Fail, "accepts no inserts"),
            ("FromTheFuture", State::Unknown, "does not know"),
        ] {
            let (found, shown) = checked(&[table("db.t", engine)]);
            assert!(found == state && shown.contains(text) && shown.contains(engine), "{engine}: {shown}");
        }
    }

    #[test]
    fn targets_of_views_warn_and_null_tables_depend_on_them() {
        let (own, null) = (table("db.t", "MergeTree"), table("db.t", "Null"));
        let memory = table("db.recent", "Memory");
        let (state, text) = checked(&[own.clone(), memory.clone()]);
        assert!(state == State::Warn && text.contains("db.recent: Memory"), "{text}");
        assert_eq!(checked(&[null.clone(), own]).0, State::Ok);
        let (state, text) = checked(&[null, memory]);
        assert!(state == State::Fail && text.contains("db.t: Null keeps no rows"), "{text}");
        let lost = TableFacts { name: "db.gone".into(), ..TableFacts::default() };
        assert_eq!(checked(&[table("db.t", "MergeTree"), lost]).0, State::Unknown);
        let (state, text) = checked(&[TableFacts { spooled: 3, ..table("db.t", "Distributed") }]);
        assert!(state == State::Warn && text.contains("3 files wait"), "{text}");
    }

    #[test]
    fn profiles_writers_and_addresses_are_named() {
        let mut server = facts().clickhouse;
        server.profile = Ok([("materialized_views_ignore_errors".to_owned(), "1".to_owned())].into());
        assert!(profile(&server).state == State::Warn, "{:?}", profile(&server));
        server.start = Err("Setting async_insert should not be changed".into());
        let check = start(&server);
        assert!(check.state == State::Fail && check.found.contains("async_insert"), "{check:?}");
        let (v4, v6) = ([127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into());
        server.addresses = Ok(vec![(v6, Err("unreachable".into())), (v4, Ok(()))]);
        let check = addresses(&server);
        assert!(check.state == State::Warn && check.found.contains("IPv6 ::1: unreachable"), "{check:?}");
        server.addresses = Ok(vec![(v6, Err("unreachable".into()))]);
        assert_eq!(addresses(&server).state, State::Fail);
    }
}
