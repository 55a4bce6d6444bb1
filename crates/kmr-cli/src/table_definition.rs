//! Reads ClickHouse's definitions of tables: settings, TTL, and the target of a materialized view.
//! Pure.

/// The setting that bounds the deduplication window of an engine.
pub(crate) fn window_setting(engine: &str) -> Option<&'static str> {
    match engine {
        engine if !engine.ends_with("MergeTree") => None,
        engine if engine.starts_with("Replicated") || engine.starts_with("Shared") => {
            Some("replicated_deduplication_window")
        }
        _ => Some("non_replicated_deduplication_window"),
    }
}

/// A numeric setting at the end of `engine_full`.
pub(crate) fn setting(engine_full: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine_full.rsplit_once(" SETTINGS ")?;
    let value = settings.split(',').find_map(|setting| {
        let (key, value) = setting.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('\''))
    });
    value?.parse().ok()
}

/// The TTL of the table in `engine_full`, if it removes rows. ClickHouse removes expired rows also
/// while they are inserted, and counts them as written.
pub(crate) fn removing_ttl(engine_full: &str) -> Option<&str> {
    let (_, rest) = engine_full.split_once(" TTL ")?;
    let ttl = rest.split_once(" SETTINGS ").map_or(rest, |(ttl, _)| ttl);
    let moves = [" TO DISK ", " TO VOLUME ", " RECOMPRESS "].iter().any(|action| ttl.contains(action));
    (!moves || ttl.contains(" DELETE")).then_some(ttl)
}

/// The target of a materialized view: database and table of the `TO` clause of its
/// `create_table_query`. `None`: the view has a table of its own.
pub(crate) fn target(create: &str) -> Option<(Option<String>, String)> {
    let rest = create.strip_prefix("CREATE MATERIALIZED VIEW ")?;
    let (_, rest) = name(rest)?;
    // ON CLUSTER, UUID or REFRESH may precede TO; the list of columns follows it.
    let clause = &rest[..rest.find('(').unwrap_or(rest.len())];
    let at = clause.find(" TO ")? + " TO ".len();
    if clause.find(" AS ").is_some_and(|query| query < at) {
        return None;
    }
    Some(name(&rest[at..])?.0)
}

/// `db.table` or `table`, each optionally in backquotes, and the rest of the text.
fn name(text: &str) -> Option<((Option<String>, String), &str)> {
    let (first, rest) = identifier(text)?;
    match rest.strip_prefix('.') {
        Some(rest) => {
            let (second, rest) = identifier(rest)?;
            Some(((Some(first), second), rest))
        }
        None => Some(((None, first), rest)),
    }
}

fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '`' => return Some((name, &quoted[at + 1..])),
            c => name.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_table_are_found_by_their_whole_name() {
        let engine = "MergeTree PARTITION BY a ORDER BY (b, ' SETTINGS ') SETTINGS non_replicated_deduplication_window = 100, \
                      parts_to_throw_insert = 5";
        assert_eq!(setting(engine, "non_replicated_deduplication_window"), Some(100));
        assert_eq!(setting(engine, "parts_to_throw_insert"), Some(5));
        assert_eq!(setting(engine, "deduplication_window"), None);
        assert_eq!(setting("Memory", "x"), None);
    }

    #[test]
    fn a_ttl_that_moves_or_recompresses_removes_no_rows() {
        let of = |ttl: &str| format!("MergeTree ORDER BY a TTL {ttl} SETTINGS index_granularity = 8192");
        let days = "ts + toIntervalDay(1)";
        assert_eq!(removing_ttl(&of(days)), Some(days));
        assert_eq!(removing_ttl(&format!("MergeTree ORDER BY a TTL {days}")), Some(days));
        assert_eq!(removing_ttl(&of("ts TO DISK 'cold'")), None);
        assert_eq!(removing_ttl(&of("ts RECOMPRESS CODEC(ZSTD(9))")), None);
        assert!(removing_ttl(&of("ts TO VOLUME 'cold', ts + toIntervalYear(1) DELETE")).is_some());
        assert_eq!(removing_ttl("MergeTree ORDER BY a SETTINGS index_granularity = 8192"), None);
    }

    #[test]
    fn windows_depend_on_the_engine() {
        assert_eq!(window_setting("ReplicatedSummingMergeTree"), Some("replicated_deduplication_window"));
        assert_eq!(window_setting("SummingMergeTree"), Some("non_replicated_deduplication_window"));
        assert_eq!(window_setting("Distributed"), None);
    }

    #[test]
    fn targets_of_views_are_read() {
        let named = |database: &str, table: &str| Some((Some(database.to_owned()), table.to_owned()));
        let create = |rest: &str| target(&format!("CREATE MATERIALIZED VIEW db.v {rest}"));
        assert_eq!(create("TO db.daily (`day` Date, `n` UInt64) AS SELECT 1"), named("db", "daily"));
        assert_eq!(create("TO `my db`.`a\\`b` AS SELECT 1"), named("my db", "a`b"));
        assert_eq!(create("(`a` String) ENGINE = MergeTree ORDER BY a AS SELECT ' TO x.y'"), None);
        assert_eq!(create("ENGINE = MergeTree ORDER BY a AS SELECT a TO b"), None);
        assert_eq!(target("CREATE VIEW db.v AS SELECT 1"), None);
    }
}
