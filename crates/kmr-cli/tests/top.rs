//! `kmr top` as its users start it: on a pipe, and in a terminal that `script` provides.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may fail in any way")]

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use kmr_cli_support::testing::{self, Output};

const KMR: &str = env!("CARGO_BIN_EXE_kmr");
/// No program listens on this port.
const NOTHING: &str = "127.0.0.1:9";

fn top(args: &[&str]) -> Output {
    testing::run(KMR, &[&["top"], args].concat()).unwrap()
}

#[test]
fn without_a_terminal_a_server_that_is_unreachable_is_plain_text() {
    let output = top(&[NOTHING]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), ""));
    assert!(
        output.stdout.contains("at 127.0.0.1:9: unreachable\n  unreachable: Connection refused"),
        "{}",
        output.stdout
    );
    assert!(!output.stdout.contains('\u{1b}'), "{}", output.stdout);
    let output = top(&["--json", NOTHING, "127.0.0.1:9", "http://localhost:9"]);
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(json["consumers"].as_array().unwrap().len(), 2, "the same address twice is one: {json}");
}

#[test]
fn wrong_flags_end_with_code_2() {
    for (args, expected) in [
        (&["ftp://host"][..], "scheme"),
        (&["http://user:hidden@host"], "password"),
        (&["--interval", "1ms"], "200ms"),
        (&["--token", "x"], "--token-file"),
    ] {
        let output = top(args);
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(expected), "{args:?}: {}", output.stderr);
        assert!(output.stdout.is_empty(), "{}", output.stdout);
    }
}

#[test]
fn help_names_what_it_needs_to_know() {
    let help = top(&["--help"]).stdout;
    for word in
        ["127.0.0.1:9464", "KMR_STATUS_URL", "KMR_STATUS_TOKEN", "--once", "plain text", "confirmation"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
}

/// `kmr top` in a terminal of 100 columns and 30 rows. When it has ended, a shell prints its exit
/// code and the settings of the terminal.
struct Terminal {
    script: Child,
    output: Receiver<String>,
    /// All that was read.
    text: String,
}

impl Terminal {
    fn start() -> Self {
        let kmr = format!("sh -c 'echo pid=$$; exec {KMR} top {NOTHING}'");
        let command = format!("stty rows 30 cols 100; {kmr}; echo code=$?; stty -a");
        let mut script = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = script.stdout.take().unwrap();
        let (read, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut bytes) {
                let _ = read.send(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
        });
        Self { script, output, text: String::new() }
    }

    /// Reads until a word has come. Words are not joined: what does not change on the screen, such
    /// as a space, is not written again.
    fn until(&mut self, word: &str) {
        while !self.text.contains(word) {
            let Ok(more) = self.output.recv_timeout(Duration::from_secs(30)) else {
                panic!("{word:?} in {:?}", self.text);
            };
            self.text += &more;
        }
    }

    fn pid(&self) -> String {
        let (_, rest) = self.text.split_once("pid=").unwrap();
        rest.chars().take_while(char::is_ascii_digit).collect()
    }

    /// Checks that the terminal is as it was.
    fn ended(mut self) {
        self.until("code=0");
        self.until("icanon");
        self.until(" echo ");
        let (shown, after) = self.text.split_once("\u{1b}[?1049l").unwrap();
        assert!(shown.contains("\u{1b}[?1049h") && after.contains("\u{1b}[?25h"), "{:?}", self.text);
        assert!(!self.text.contains("-icanon") && !self.text.contains("-echo "), "{:?}", self.text);
        drop(self.script.stdin.take());
        self.script.wait().unwrap();
    }
}

impl Drop for Terminal {
    /// Its end closes the terminal, which ends `kmr` if a test failed.
    fn drop(&mut self) {
        let _ = self.script.kill();
    }
}

#[test]
fn signals_end_it_and_restore_the_terminal() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let mut terminal = Terminal::start();
        terminal.until("refused"); // words: quoted
        let killed = Command::new("kill").args([signal, &terminal.pid()]).status().unwrap();
        assert!(killed.success());
        terminal.ended();
    }
}

#[test]
fn keys_reach_it() {
    for key in [&b"?q q"[..], b"\x03"] {
        let mut terminal = Terminal::start();
        terminal.until("refused"); // words: quoted
        terminal.script.stdin.as_mut().unwrap().write_all(key).unwrap();
        terminal.ended();
    }
}
