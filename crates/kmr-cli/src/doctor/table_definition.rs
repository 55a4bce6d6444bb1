//! Reads ClickHouse's definitions of tables: settings, and the target of a materialized view. Pure.

/// The setting that bounds the deduplication window of an engine.
pub(super) fn window_setting(engine: &str) -> Option<&'static str> {
    match engine {
        engine if !engine.ends_with("MergeTree") => None,
        engine if engine.starts_with("Replicated") || engine.starts_with("Shared") => {
            Some("replicated_deduplication_window")
        }
        _ => Some("non_replicated_deduplication_window"),
    }
}

/// A numeric setting at the end of `engine_full`.
pub(super) fn setting(engine_full: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine_full.rsplit_once(" SETTINGS ")?;
    let value = settings.split(',').find_map(|setting| {
        let (key, value) = setting.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('\''))
    });
    value?.parse().ok()
}

/// The target of a materialized view: database and table of the `TO` clause of its
/// `create_table_query`. `None`: the view has a table of its own.
pub(super) fn target(create: &str) -> Option<(Option<String>, String)> {
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
