//! The page: three files of our own, compiled in. They load nothing from elsewhere.

use axum::extract::OriginalUri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const ICON: &str = include_str!("page/icon.svg");

/// Stands for the base of relative addresses.
const BASE: &str = "{base}";

/// A page without a slash at its end, as of a nested router, is the last segment of its own base.
pub(crate) async fn page(OriginalUri(uri): OriginalUri) -> Response {
    let segment = uri.path().rsplit('/').next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    let base = match segment {
        "" => "./".to_owned(),
        segment if segment.bytes().all(is_plain) => format!("{segment}/"),
        _ => "./".to_owned(),
    };
    file("text/html; charset=utf-8", HTML.replace(BASE, &base))
}

pub(crate) async fn css() -> Response {
    file("text/css; charset=utf-8", CSS)
}

pub(crate) async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

pub(crate) async fn icon() -> Response {
    file("image/svg+xml", ICON)
}

fn file(content_type: &'static str, body: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the whole page.
    const LIMIT: usize = 40_000;

    #[test]
    fn the_page_is_small_and_loads_nothing_from_elsewhere() {
        let bytes = HTML.len() + CSS.len() + SCRIPT.len() + ICON.len();
        assert!(bytes < LIMIT, "{bytes} bytes");
        for file in [HTML, CSS, SCRIPT] {
            let elsewhere = file.match_indices("://").map(|(at, _)| &file[at.saturating_sub(5)..at + 20]);
            let elsewhere: Vec<&str> = elsewhere.filter(|found| !found.contains("www.w3.org")).collect();
            assert!(elsewhere.is_empty(), "{elsewhere:?}");
        }
        assert!(!HTML.contains("<style") && !HTML.contains("style=") && !HTML.contains("<script>"));
    }

    /// Text of a record, an error or a topic must never become markup.
    #[test]
    fn the_script_writes_text_and_no_markup() {
        for call in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"] {
            assert!(!SCRIPT.contains(call), "{call}");
        }
    }
}
