//! The blocks of the guide that are no Rust: pipeline files, and commands of `kmr`.

use std::path::Path;

use clap::Parser as _;

use super::load;
use crate::cli::Cli;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/src");

/// A block of code, with its page and the number of its first line.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let pages = std::fs::read_dir(GUIDE).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        let mut open: Option<Block> = None;
        for (line, number) in text.lines().zip(1..) {
            match (&mut open, line.strip_prefix("```")) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, Some(language)) => {
                    let place = format!("{}:{}", page.display(), number + 1);
                    open = Some(Block { place, language: language.to_owned(), text: String::new() });
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", page.display());
    }
    blocks
}

#[test]
fn pipeline_files_of_the_guide_are_accepted() {
    let is_file = |block: &Block| block.language == "toml" && block.text.contains(".source]");
    let files: Vec<Block> = blocks().into_iter().filter(is_file).collect();
    assert!(files.len() >= 5, "{} files", files.len());
    for Block { place, text, .. } in files {
        if let Err(error) = load::parse(Path::new("kmr.toml"), &text) {
            panic!("{place}: {error:#}");
        }
    }
}

#[test]
fn commands_of_the_guide_are_accepted() {
    let scripts: Vec<Block> = blocks().into_iter().filter(|block| block.language == "sh").collect();
    let mut commands = 0;
    for Block { place, text, .. } in scripts {
        let variable = |line: &str| line.starts_with("export KMR_DEAD_LETTER_TOPIC=");
        let has_topic = text.lines().any(variable);
        for line in text.lines().filter(|line| line.starts_with("kmr ")) {
            let mut words = words(line);
            if has_topic && words.get(1).is_some_and(|word| word == "dlq") {
                words.extend(["--dead-letter-topic", "orders.dead"].map(str::to_owned));
            }
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{place}: {line}: {error}");
            }
            commands += 1;
        }
    }
    assert!(commands >= 10, "{commands} commands");
}

/// The words of a command. Quotes keep spaces.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut is_quoted) = (vec![String::new()], false);
    for next in line.chars() {
        match (next, words.last_mut()) {
            ('"', _) => is_quoted = !is_quoted,
            (' ', _) if !is_quoted => words.push(String::new()),
            (_, Some(word)) => word.push(next),
            (_, None) => {}
        }
    }
    words
}
