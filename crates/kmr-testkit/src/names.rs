//! Names of topics, groups and databases: readable, and unique across tests, runs and machines.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest readable part of a name. Kafka allows 249 characters in all.
const READABLE_CHARS: usize = 100;

/// The name of the enclosing test function, without its modules.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        $crate::__private::caller_of(std::any::type_name_of_val(&here))
    }};
}

/// Returns the name of a test from the full path of a function inside it.
#[doc(hidden)]
pub fn caller_of(path: &'static str) -> &'static str {
    let test = path.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    test.rsplit("::").next().unwrap_or(test)
}

/// Returns a unique name that starts with `readable`. It is valid as a topic, group, transactional
/// id and ClickHouse identifier: `[A-Za-z0-9_]`, and the first character is not a digit.
pub fn unique(readable: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clean: String = readable
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .take(READABLE_CHARS)
        .collect();
    let prefix = if clean.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "t" };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{clean}_{:x}_{:x}_{count}", since_epoch.as_millis(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::unique;

    #[test]
    fn names_are_identifiers_and_differ() {
        let (first, second) = (unique("2 odd-names"), unique("2 odd-names"));
        assert!(first.starts_with("t2_odd_names_"));
        assert!(first.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        assert_ne!(first, second);
    }

    #[tokio::test]
    async fn test_name_is_the_name_of_the_function() {
        assert_eq!(test_name!(), "test_name_is_the_name_of_the_function");
    }
}
