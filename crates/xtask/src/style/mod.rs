//! Checks of the house: line width of comments, links between documents, quotes of the code in
//! documents, the table of log events, the index of the guide, names in the files for deployment,
//! the words in use, import circles.
//!
//! Each reads the repository's files as text, so that all of them take less time than one
//! compilation.

mod columns;
mod deployment;
mod files;
mod guide_index;
mod imports;
mod links;
mod log_events;
mod markdown;
mod quotes;
mod rust;
mod word_list;
mod words;

use std::fmt;

use anyhow::Result;

use self::files::SourceFile;
use crate::root;

/// What a check objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// From the root of the repository.
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// A check by its name in the summary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    find: fn(&[SourceFile]) -> Vec<Finding>,
}

pub(crate) const COLUMNS: Check = Check { name: "columns", find: columns::check };
pub(crate) const DEPLOYMENT: Check = Check { name: "deployment", find: deployment::check };
pub(crate) const GUIDE_INDEX: Check = Check { name: "index of the guide", find: guide_index::check };
pub(crate) const IMPORTS: Check = Check { name: "import circles", find: imports::check };
pub(crate) const LINKS: Check = Check { name: "links", find: links::check };
pub(crate) const LOG_EVENTS: Check = Check { name: "log events", find: log_events::check };
pub(crate) const QUOTES: Check = Check { name: "quotes", find: quotes::check };
pub(crate) const WORDS: Check = Check { name: "words", find: words::check };

impl Check {
    /// Prints what it finds, and gives the number.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub(crate) fn run(self) -> Result<usize> {
        let findings = (self.find)(&files::read_all(root())?);
        for finding in &findings {
            println!("{finding}");
        }
        Ok(findings.len())
    }
}

/// Prints the count of each word that kmr does not use; with `verbose` also the places.
///
/// # Errors
///
/// When the files cannot be read.
pub(crate) fn count_words(verbose: bool) -> Result<()> {
    words::report(&files::read_all(root())?, verbose);
    Ok(())
}
