//! What a replay has done, as text and as JSON.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kmr_cli_support::numbers::{counted, grouped};
use serde_json::{Value, json};

use crate::terminal::{aligned, escaped};

/// How many rejected dead letters are named.
const NAMED: usize = 20;

/// What a replay has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    pub(super) dead_letter_topic: String,
    /// The group that has the progress.
    pub(super) name: String,
    pub(super) dry_run: bool,
    /// Sent records, by topic. What is not committed does not count.
    pub(super) replayed: BTreeMap<String, u64>,
    pub(super) filtered: u64,
    pub(super) rejected: u64,
    /// The first ones: position and reason.
    pub(super) named: Vec<(String, String)>,
    /// Dead letters that retention deleted before they were replayed.
    pub(super) deleted: u64,
    /// Ctrl-C came before the end.
    pub(super) interrupted: bool,
}

impl Summary {
    pub(super) fn reject(&mut self, position: String, why: String) {
        self.rejected += 1;
        if self.named.len() < NAMED {
            self.named.push((position, why));
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.replayed.values().sum()
    }

    /// 0, 1 if it was interrupted, 3 if dead letters were rejected.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match (self.interrupted, self.rejected) {
            (true, _) => 1,
            (false, 0) => 0,
            (false, _) => 3,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let verb = if self.dry_run { "would be replayed" } else { "replayed" };
        let mut lines = Vec::new();
        let rows: Vec<_> = self
            .replayed
            .iter()
            .map(|(topic, count)| vec![grouped(*count), format!("{verb} to {:?}", topic)])
            .collect();
        if !rows.is_empty() {
            lines.extend(aligned(&[">", ""], &rows).into_iter().skip(1));
        }
        for (position, why) in &self.named {
            lines.push(format!("rejected: {position}: {}", escaped(why.as_bytes())));
        }
        let unnamed = self.rejected - self.named.len() as u64;
        if unnamed > 0 {
            lines.push(format!("rejected: and {} more", grouped(unnamed)));
        }
        if self.deleted > 0 {
            lines.push(format!(
                "note: retention deleted {} of the dead-letter topic before they were replayed",
                counted(self.deleted, "offset")
            ));
        }
        if self.interrupted {
            lines.push("interrupted: the same command continues from the committed progress".to_owned());
        }
        let progress = if self.dry_run {
            "nothing was sent (--dry-run)".to_owned()
        } else {
            format!("progress in group {:?}", self.name)
        };
        lines.push(format!(
            "{:?}: {} {verb}, {} filtered, {} rejected; {progress}",
            self.dead_letter_topic,
            grouped(self.total()),
            grouped(self.filtered),
            grouped(self.rejected)
        ));
        lines.join("\n")
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let named: Vec<_> =
            self.named.iter().map(|(position, why)| json!({ "position": position, "reason": why })).collect();
        json!({
            "dead_letter_topic": self.dead_letter_topic,
            "group": self.name,
            "dry_run": self.dry_run,
            "replayed": self.total(),
            "by_topic": self.replayed,
            "filtered": self.filtered,
            "rejected": { "count": self.rejected, "first": named },
            "deleted_by_retention": self.deleted,
            "interrupted": self.interrupted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejectd_dead_letters_are_named_and_change_the_exit_code() {
        let mut summary = Summary {
            dead_letter_topic: "dead".to_owned(),
            name: "kmr-replay-dead".to_owned(),
            replayed: [("orders".to_owned(), 1_200)].into(),
            filtered: 30,
            ..Summary::default()
        };
        let code = |summary: &Summary| format!("{:?}", summary.exit_code());
        assert_eq!(
            summary.text(),
            "1,200  replayed to \"orders\"\n\
             \"dead\": 1,200 replayed, 30 filtered, 0 rejected; progress in group \"kmr-replay-dead\""
        );
        assert_eq!(code(&summary), format!("{:?}", ExitCode::SUCCESS));
        (0..NAMED + 2).for_each(|n| summary.reject(format!("0/{n}"), "range\u{1b}".to_owned()));
        let text = summary.text();
        assert!(text.contains("rejected: 0/19: range\\u{1b}\nrejected: and 2 more"), "{text}");
        assert_eq!(code(&summary), format!("{:?}", ExitCode::from(3)));
        assert_eq!(summary.json()["rejected"]["count"], 22);
        summary.interrupted = true;
        assert!(summary.text().contains("the same command continues"));
        assert_eq!(code(&summary), format!("{:?}", ExitCode::from(1)));
        let dry = Summary { dry_run: true, ..summary };
        assert!(dry.text().contains("1,200 would be replayed") && dry.text().contains("nothing was sent"));
    }
}
