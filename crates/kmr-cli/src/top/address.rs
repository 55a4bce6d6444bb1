//! The address of a status server, as an operator writes it.

use hyper::Uri;

use super::status::Text;

/// The port of a status server that chose none.
const PORT: u16 = 9464;

/// Where a status server is: `http://host:port`, and the path below which it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without a slash at the end.
    base: String,
    shown: Text,
}

impl Address {
    /// Reads `http://host:port/path`, `host:port` or `host`.
    ///
    /// # Errors
    ///
    /// A text for the user. It does not repeat `text`, which may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let has_scheme = text.contains("://");
        let full = if has_scheme { text.to_owned() } else { format!("http://{text}") };
        let example = "write it as http://127.0.0.1:9464";
        let uri: Uri = full.parse().map_err(|error| format!("it is no URL ({error}); {example}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(format!("kmr does not support https here yet; {example}")),
            _ => return Err(format!("its scheme is not http; {example}")),
        }
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if authority.contains('@') {
            return Err("it has a user or a password, and kmr sends none; leave them out".to_owned());
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(format!("it has no host; {example}"));
        }
        if authority.len() > host.len() && uri.port_u16().is_none() {
            return Err(format!("its port is no number up to 65535; {example}"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(format!("it has a query or a fragment; {example}"));
        }
        let port = if has_scheme || uri.port().is_some() { String::new() } else { format!(":{PORT}") };
        let path = uri.path().trim_end_matches('/');
        let base = format!("{}://{authority}{port}{path}", uri.scheme_str().unwrap_or("http"));
        let shown = Text::new(base.strip_prefix("http://").unwrap_or(&base));
        Ok(Self { base, shown })
    }

    /// The URL of a path, as in `/status`.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The address without `http://`.
    pub(crate) fn text(&self) -> &str {
        self.shown.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_operators_write_them() {
        for (text, status) in [
            ("http://127.0.0.1:9464", "http://127.0.0.1:9464/status"),
            ("http://127.0.0.1:9464/", "http://127.0.0.1:9464/status"),
            ("localhost", "http://localhost:9464/status"),
            ("pod-1.kmr:8080", "http://pod-1.kmr:8080/status"),
            ("http://pod", "http://pod/status"),
            ("[::1]:9464", "http://[::1]:9464/status"),
            ("http://app:80/kmr/", "http://app:80/kmr/status"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.at("/status"), status, "{text}");
            assert!(!address.text().contains("http://"), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_named_without_its_password() {
        for (text, expected) in [
            ("", "no URL"),
            ("http://", "no URL"),
            ("ftp://host:1", "scheme"),
            ("http://user:hidden@host:9464", "password"),
            ("http://host:9464/?token=hidden", "query"),
            ("host:99999999", "port"),
            ("a b", "no URL"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hidden"), "{text}: {error}");
        }
    }
}
