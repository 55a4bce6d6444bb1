//! The error of a place in the file: its line, and the nearest name for a wrong one.

use std::path::Path;

/// How similar a name must be to be proposed, from 0 to 1.
const SIMILAR: f64 = 0.6;

/// The text of an error of the parser: `FILE:LINE:COLUMN: …`. It does not show the line itself,
/// which may hold a password.
pub(super) fn text(path: &Path, content: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', "; ");
    let message =
        nearest(&message).map_or(message.clone(), |name| format!("{message}; did you mean `{name}`?"));
    match error.span() {
        Some(span) => {
            let (line, column) = position(content, span.start);
            format!("{}:{line}:{column}: {message}", path.display())
        }
        None => format!("{}: {message}", path.display()),
    }
}

/// Line and column, both from 1.
pub(super) fn position(content: &str, at: usize) -> (usize, usize) {
    let before = content.get(..at).unwrap_or(content);
    let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The known name that is nearest to the unknown one, by serde's message: "unknown field `x`,
/// expected one of `a`, `b`".
fn nearest(message: &str) -> Option<&str> {
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (unknown, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2);
    let rated = known.map(|name| (strsim::jaro_winkler(unknown, name), name));
    let (rating, name) = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (rating >= SIMILAR).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_the_known_names_is_proposed() {
        let names = "expected one of `topics`, `brokers`, `group`";
        assert_eq!(nearest(&format!("unknown field `topic`, {names}")), Some("topics"));
        assert_eq!(nearest(&format!("unknown field `broker`, {names}")), Some("brokers"));
        assert_eq!(nearest(&format!("unknown field `qqq`, {names}")), None);
        assert_eq!(nearest("unknown variant `latst`, expected `latest` or `earliest`"), Some("latest"));
        assert_eq!(nearest("missing field `topics`"), None);
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(position("a\nüb = 1", 5), (2, 3));
        assert_eq!(position("", 0), (1, 1));
    }
}
