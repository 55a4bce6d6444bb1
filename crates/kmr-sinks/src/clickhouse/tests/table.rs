//! A table of the tests: a server that stores what it is sent, knows tokens, and misbehaves as it is told.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::mock::{Received, Step, answer, description, read_request, written};

/// What becomes of one insert.
pub(super) enum Act {
    /// It is stored and acknowledged.
    Store,
    /// It is stored, and this is what the client gets to see.
    StoreAnd(Step),
    /// It is not stored, and this is the answer.
    Refuse(Step),
}

/// What the server knows.
#[derive(Default)]
pub(super) struct Contents {
    /// Ids of the rows that were stored, in order, doubles included.
    pub(super) ids: Vec<u64>,
    pub(super) tokens: BTreeSet<String>,
    /// Rows and statement of each insert, refused ones included.
    pub(super) inserts: Vec<(usize, String)>,
    pub(super) described: usize,
    /// Temporary tables that were asked for, and rows that were tried on them.
    pub(super) probes: Vec<usize>,
    pub(super) sessions: usize,
    /// What the next temporary tables come to.
    pub(super) no_sessions: Vec<Step>,
    /// Below 128, of the table partitions of the rows; none: it does not say.
    pub(super) hashes: Vec<u32>,
}

pub(super) struct Table {
    pub(super) url: String,
    pub(super) contents: Arc<Mutex<Contents>>,
}

/// An answer with ClickHouse's code.
pub(super) fn exception(code: u32, text: &str) -> Step {
    let code_text = code.to_string();
    let body = format!("Code: {code}. DB::Exception: {text} (version 26.7.2.1)\n");
    answer("500 Internal Server Error", &[("X-ClickHouse-Exception-Code", &code_text)], &body)
}

/// What a table with a constraint says to the row at this place of an insert.
pub(super) fn violated(at: usize) -> Step {
    let text = format!(
        "Constraint `small` for table db.lines (uuid) is violated at row {}. Expression: (id < 100). Column values: id = 500. \
         (VIOLATED_CONSTRAINT)",
        at + 1
    );
    exception(469, &text)
}

impl Table {
    /// A server that asks `decide` about each insert: its number from 0, and the ids of its rows.
    pub(super) async fn new(decide: impl FnMut(usize, &[u64]) -> Act + Send + 'static) -> Self {
        Self::described_as(vec![description()], decide).await
    }

    /// The same; the table is described as the first of `descriptions`, and the next time as the next.
    pub(super) async fn described_as(
        descriptions: Vec<Step>,
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
                    if request.body.starts_with(b"DESCRIBE") {
                        contents.described += 1;
                        descriptions[(contents.described - 1).min(descriptions.len() - 1)].clone()
                    } else if request
                        .body
                        .starts_with(b"CREATE TEMPORARY TABLE `kmr_probe` AS `db`.`lines` ENGINE = Null")
                    {
                        contents.sessions += 1;
                        contents.no_sessions.pop().unwrap_or_else(|| written(0))
                    } else if request.head.contains("kmr_probe") {
                        contents.probe(&request, &mut decide)
                    } else {
                        contents.insert(&request, &mut decide)
                    }
                };
                tokio::spawn(show(stream, step));
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
    /// Rows are tried on a temporary table: the same answer, and nothing is stored.
    fn probe(&mut self, request: &Received, decide: &mut impl FnMut(usize, &[u64]) -> Act) -> Step {
        assert!(
            request.head.contains("session_id=kmr-") && !request.head.contains("token"),
            "{}",
            request.head
        );
        let ids = ids(request);
        self.probes.push(ids.len());
        match decide(usize::MAX, &ids) {
            Act::Refuse(step) | Act::StoreAnd(step) => step,
            Act::Store => written(0),
        }
    }

    fn insert(&mut self, request: &Received, decide: &mut impl FnMut(usize, &[u64]) -> Act) -> Step {
        if request.body.starts_with(b"SELECT partition_key") {
            let key = if self.hashes.is_empty() { "" } else { "{\"partition_key\":\"id\"}\n" };
            return answer("200 OK", &[], key);
        }
        if request.head.contains("kmr_rows_format") {
            let bytes = self.hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            return answer("200 OK", &[], &String::from_utf8(bytes).unwrap());
        }
        let ids = ids(request);
        let parameter = |name: &str| {
            let (_, rest) = request.head.split_once(&format!("{name}=")).unwrap();
            rest[..rest.find(['&', ' ']).unwrap()].to_owned()
        };
        let number = self.inserts.len();
        self.inserts.push((ids.len(), parameter("query")));
        let step = match decide(number, &ids) {
            Act::Refuse(step) => return step,
            Act::Store => written(ids.len() as u64),
            Act::StoreAnd(step) => step,
        };
        if self.tokens.insert(parameter("insert_deduplication_token")) {
            self.ids.extend(ids);
        }
        step
    }
}

async fn show(mut stream: TcpStream, step: Step) {
    match step {
        Step::Answer(bytes) | Step::CutAnswer(bytes) => {
            // The client may be gone: that is its right.
            let _ = stream.write_all(&bytes).await;
        }
        Step::Silence | Step::Deaf => std::future::pending().await,
        Step::CutRequest => {}
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
