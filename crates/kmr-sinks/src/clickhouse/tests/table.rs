//! A fake table: a server that stores rows, knows tokens, and fails on demand.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::mock::{
    ENGINE_REQUEST, MockStep, Received, asks_for_settings, description, read_request, response,
    settings_in_force, written,
};

/// The effect of one insert.
pub(super) enum Act {
    /// The rows are stored and acknowledged.
    Store,
    /// The rows are stored, but this is the response.
    StoreBut(MockStep),
    /// The rows are not stored, and this is the response.
    Reject(MockStep),
}

/// The state of the server.
#[derive(Default)]
pub(super) struct Contents {
    /// Ids of the stored rows, in order, with duplicates.
    pub(super) ids: Vec<u64>,
    pub(super) tokens: BTreeSet<String>,
    /// Rows and statement of each insert, including rejected ones.
    pub(super) inserts: Vec<(usize, String)>,
    /// The head of each insert.
    pub(super) heads: Vec<String>,
    /// Lines of `system.tables`, which each question for a table is answered with.
    pub(super) system_tables: &'static str,
    pub(super) described: usize,
    /// Number of rows of each probe on a temporary table.
    pub(super) probes: Vec<usize>,
    /// Number of created temporary tables.
    pub(super) sessions: usize,
    /// Responses to the next creations of a temporary table, instead of success.
    pub(super) session_failures: Vec<MockStep>,
    /// Hashes, below 128, of the rows' table partitions; empty if the server cannot compute them.
    pub(super) hashes: Vec<u32>,
    /// The table's engine; MergeTree, if not set.
    pub(super) engine: Option<&'static str>,
    /// A header that every request needs; others are rejected and counted.
    pub(super) required: Option<String>,
    pub(super) denied: usize,
    /// Settings that a proxy removes.
    pub(super) removed: &'static [&'static str],
}

pub(super) struct Table {
    pub(super) url: String,
    pub(super) contents: Arc<Mutex<Contents>>,
}

/// A response with an exception of this code.
pub(super) fn exception(code: u32, text: &str) -> MockStep {
    let code_text = code.to_string();
    let body = format!("Code: {code}. DB::Exception: {text} (version 26.7.2.1)\n");
    response("500 Internal Server Error", &[("X-ClickHouse-Exception-Code", &code_text)], &body)
}

/// The response to an insert whose row at this index violates a constraint.
pub(super) fn violated(at: usize) -> MockStep {
    let text = format!(
        "Constraint `small` for table db.lines (uuid) is violated at row {}. Expression: (id < 100). Column values: id = 500. \
         (VIOLATED_CONSTRAINT)",
        at + 1
    );
    exception(469, &text)
}

impl Table {
    /// A server that calls `decide` for each insert, with its number from 0 and the ids of its
    /// rows.
    pub(super) async fn new(decide: impl FnMut(usize, &[u64]) -> Act + Send + 'static) -> Self {
        Self::described_as(vec![description()], decide).await
    }

    /// Like [`new`](Self::new), with one of `descriptions` for each description of the table.
    pub(super) async fn described_as(
        descriptions: Vec<MockStep>,
        mut decide: impl FnMut(usize, &[u64]) -> Act + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let contents: Arc<Mutex<Contents>> = Arc::default();
        let shared = Arc::clone(&contents);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                let step = {
                    let mut contents = shared.lock().unwrap();
                    if contents.denies(&request.head) {
                        exception(516, "me: Authentication failed")
                    } else if request.body.starts_with(ENGINE_REQUEST.as_bytes()) {
                        response("200 OK", &[], contents.system_tables)
                    } else if asks_for_settings(&request.head, &request.body) {
                        response("200 OK", &[], &settings_in_force(&request.head, contents.removed))
                    } else if request.body.starts_with(b"DESCRIBE") {
                        contents.described += 1;
                        descriptions[(contents.described - 1).min(descriptions.len() - 1)].clone()
                    } else if request
                        .body
                        .starts_with(b"CREATE TEMPORARY TABLE `kmr_probe` AS `db`.`lines` ENGINE = Null")
                    {
                        contents.sessions += 1;
                        contents.session_failures.pop().unwrap_or_else(|| written(0))
                    } else if request.head.contains("kmr_probe") {
                        contents.probe(&request, &mut decide)
                    } else {
                        contents.insert(&request, &mut decide)
                    }
                };
                tokio::spawn(perform(stream, step));
            }
        });
        Self { url, contents }
    }

    /// The stored ids in order.
    pub(super) fn sorted_ids(&self) -> Vec<u64> {
        let mut ids = self.contents.lock().unwrap().ids.clone();
        ids.sort_unstable();
        ids
    }

    pub(super) fn inserts(&self) -> usize {
        self.contents.lock().unwrap().inserts.len()
    }
}

impl Contents {
    /// A probe: the same response as for an insert, and nothing is stored.
    fn probe(&mut self, request: &Received, decide: &mut impl FnMut(usize, &[u64]) -> Act) -> MockStep {
        assert!(
            request.head.contains("session_id=kmr-") && !request.head.contains("token"),
            "{}",
            request.head
        );
        let ids = ids(request);
        self.probes.push(ids.len());
        match decide(usize::MAX, &ids) {
            Act::Reject(step) | Act::StoreBut(step) => step,
            Act::Store => written(0),
        }
    }

    fn denies(&mut self, head: &str) -> bool {
        let denies = self.required.as_ref().is_some_and(|header| !head.contains(&format!("{header}\r\n")));
        self.denied += usize::from(denies);
        denies
    }

    fn insert(&mut self, request: &Received, decide: &mut impl FnMut(usize, &[u64]) -> Act) -> MockStep {
        if request.body.starts_with(b"SELECT partition_key") {
            let key = if self.hashes.is_empty() { "" } else { "id" };
            let engine = self.engine.unwrap_or("MergeTree");
            let layout =
                format!(r#"{{"partition_key":"{key}","engine":"{engine}","engine_full":"{engine}"}}"#);
            return response("200 OK", &[], &layout);
        }
        if request.body.starts_with(b"SELECT database, name, engine") {
            return response("200 OK", &[], self.system_tables);
        }
        if request.head.contains("output_format_json_quote_64bit_integers=0") {
            return response("200 OK", &[], ""); // another question about system tables
        }
        if request.head.contains("kmr_rows_format") {
            let bytes = self.hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            return response("200 OK", &[], &String::from_utf8(bytes).unwrap());
        }
        let ids = ids(request);
        let parameter = |name: &str| {
            let (_, rest) = request.head.split_once(&format!("{name}=")).unwrap();
            rest[..rest.find(['&', ' ']).unwrap()].to_owned()
        };
        let number = self.inserts.len();
        self.inserts.push((ids.len(), parameter("query")));
        self.heads.push(request.head.clone());
        let step = match decide(number, &ids) {
            Act::Reject(step) => return step,
            Act::Store => written(ids.len() as u64),
            Act::StoreBut(step) => step,
        };
        if self.tokens.insert(parameter("insert_deduplication_token")) {
            self.ids.extend(ids);
        }
        step
    }
}

async fn perform(mut stream: TcpStream, step: MockStep) {
    match step {
        MockStep::Respond(bytes) | MockStep::Truncate(bytes) => {
            // The client may have closed the connection.
            let _ = stream.write_all(&bytes).await;
        }
        MockStep::NoResponse | MockStep::NoRead => std::future::pending().await,
        MockStep::CloseEarly => {}
    }
}

/// The ids of a body of rows `id UInt64, text String`.
fn ids(request: &Received) -> Vec<u64> {
    let mut body = Vec::new();
    if request.head.contains("content-encoding: lz4") {
        lz4_flex::frame::FrameDecoder::new(&request.body[..]).read_to_end(&mut body).unwrap();
    } else {
        body.clone_from(&request.body);
    }
    let header = b"\x02\x02id\x04text\x06UInt64\x06String";
    let mut rest = body.strip_prefix(header).expect("a body starts with its header");
    let mut ids = Vec::new();
    while !rest.is_empty() {
        ids.push(u64::from_le_bytes(rest[..8].try_into().unwrap()));
        let length = usize::from(rest[8]);
        assert!(length < 128, "texts of the tests are short");
        rest = &rest[9 + length..];
    }
    ids
}
