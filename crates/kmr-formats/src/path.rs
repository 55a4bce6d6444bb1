//! Paths to a value in a record, as errors name them: `$.items[2].id`.

use std::fmt::Write as _;

/// The longest key in a path, characters. A path is for people.
const LONGEST_KEY: usize = 100;

/// Adds a key to a path.
pub(crate) fn push_key(path: &mut String, key: &str) {
    let is_plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let cut: String = key.chars().take(LONGEST_KEY).collect();
    // Writing to a String does not fail.
    let _ = if is_plain { write!(path, ".{cut}") } else { write!(path, "[{cut:?}]") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_a_path_are_quoted_and_cut() {
        let mut path = "$".to_owned();
        push_key(&mut path, "a_b");
        push_key(&mut path, "a b");
        push_key(&mut path, &"x".repeat(500));
        assert_eq!(path, format!("$.a_b[\"a b\"].{}", "x".repeat(100)));
    }
}
