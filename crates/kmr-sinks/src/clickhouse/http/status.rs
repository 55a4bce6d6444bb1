//! What an HTTP status means that comes without an exception of ClickHouse. Most are of a proxy.

/// A body of this size is not accepted. Nothing of it was forwarded.
pub(crate) const CONTENT_TOO_LARGE: u16 = 413;

/// The meaning of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// Whether a retry of the same request may succeed.
    pub(crate) retryable: bool,
    /// The remedy, in a few words.
    pub(crate) remedy: &'static str,
}

/// The meaning of a status other than 200.
pub(crate) fn meaning(status: u16) -> Meaning {
    let fatal = |remedy| Meaning { retryable: false, remedy };
    let temporary = |remedy| Meaning { retryable: true, remedy };
    match status {
        300..=399 => fatal("it redirects: use the final address"),
        400 => fatal(
            "check that the address is ClickHouse's HTTP interface, and that it has https:// if that port uses TLS",
        ),
        401 => fatal("check .user() and .password(), or .bearer_token(), and those of any proxy in between"),
        403 => {
            fatal("check .user() and .password(), or .bearer_token(), and the rules of any proxy in between")
        }
        404 | 410 => fatal(
            "check that the address is ClickHouse's HTTP interface, with the path that a proxy in between needs",
        ),
        405 => fatal("allow POST in the proxy in between, or use ClickHouse's own address"),
        407 => fatal("a proxy in between needs credentials of its own: use ClickHouse's own address"),
        411 | 412 | 417 | 501 | 505 | 510 => {
            fatal("it cannot handle kmr's requests: use ClickHouse's own address")
        }
        CONTENT_TOO_LARGE => fatal(
            "it limits the size of a body: lower .max_bytes(), or raise that limit (nginx: client_max_body_size)",
        ),
        414 => fatal(
            "it limits the length of a request line: shorten the values of .setting(), or raise that limit (nginx: \
             large_client_header_buffers)",
        ),
        415 => fatal("it does not accept compressed bodies: use .compression(Compression::None)"),
        431 => fatal(
            "it limits the size of headers: shorten .bearer_token() or .password(), or raise that limit (nginx: \
             large_client_header_buffers)",
        ),
        511 => fatal("this network requires a login before it forwards requests"),
        // Another connection may reach another server, or come in time.
        408 | 421 | 425 | 429 => temporary("a retry may succeed"),
        402..=499 => fatal("check that the address is ClickHouse's HTTP interface"),
        502..=504 => temporary(
            "a retry may succeed; if not, see the log of the proxy: it does not reach ClickHouse, or its timeout is shorter than \
             an insert",
        ),
        _ => temporary("a retry may succeed; if not, see the log of the server or of the proxy in between"),
    }
}
