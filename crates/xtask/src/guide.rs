//! Builds the guide (docs/guide) with mdBook, and checks the links of the built pages.
//!
//! mdBook is installed as a program below the target directory, once. As a library it would be
//! compiled before every other command of xtask (docs/decisions/guide.md). The tests of
//! kmr-examples compile the blocks of code, and those of kmr-cli read the pipeline files and
//! commands.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{answer, logged, state_directory};
use crate::root;

/// The version of mdBook. Another one may render other anchors.
const VERSION: &str = "0.5.4";

/// The guide, from the root.
const GUIDE: &str = "docs/guide";

/// Builds the guide and returns the number of findings.
///
/// # Errors
///
/// When mdBook cannot be installed, or does not build the guide.
pub(crate) fn build() -> Result<usize> {
    let mdbook = mdbook()?;
    let guide = root().join(GUIDE);
    let mut command = Command::new(mdbook);
    logged(command.arg("build").arg(&guide), Duration::from_secs(120), "mdbook.log")?;
    let mut pages = Pages::read(&guide.join("book"))?;
    let mut findings = pages.unlisted(&guide.join("src"))?;
    findings.extend(pages.check()?);
    for finding in &findings {
        println!("{finding}");
    }
    println!("guide: {} pages in {GUIDE}/book", pages.texts.len());
    Ok(findings.len())
}

/// The program, installed if it is missing.
fn mdbook() -> Result<PathBuf> {
    let tools = state_directory().join("tools");
    let program = tools.join("bin/mdbook");
    let installed = answer(Command::new(&program).arg("--version"), Duration::from_secs(20));
    if installed.is_ok_and(|version| version.contains(VERSION)) {
        return Ok(program);
    }
    println!("installing mdBook {VERSION}, once");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Not optimised: it has twenty pages to build. In a directory of its own, which cargo removes.
    cargo.args(["install", "mdbook", "--locked", "--debug", "--no-default-features", "--features", "search"]);
    cargo.args(["--version", VERSION, "--root"]).arg(&tools);
    cargo.env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_DEV_DEBUG", "0");
    logged(&mut cargo, Duration::from_secs(3600), "mdbook-install.log").context("installing mdBook")?;
    Ok(program)
}

/// The built pages, by their file names.
struct Pages {
    folder: PathBuf,
    texts: BTreeMap<String, String>,
}

impl Pages {
    fn read(folder: &Path) -> Result<Self> {
        let mut texts = BTreeMap::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // The page of a web server for addresses that do not exist. Its links are absolute.
            if name.ends_with(".html") && name != "404.html" {
                texts.insert(name.clone(), std::fs::read_to_string(folder.join(name))?);
            }
        }
        Ok(Self { folder: folder.to_path_buf(), texts })
    }

    /// Sources that no page was made of, because the summary does not list them.
    fn unlisted(&self, sources: &Path) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        for entry in std::fs::read_dir(sources)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(page) = name.strip_suffix(".md").filter(|page| *page != "SUMMARY") else { continue };
            if !self.texts.contains_key(&format!("{page}.html")) {
                findings.push(format!("{GUIDE}/src/{name}: SUMMARY.md does not list it"));
            }
        }
        Ok(findings)
    }

    /// Checks every link. mdBook turns `.md` into `.html` also where it leads out of the guide:
    /// such a link is corrected in the page.
    fn check(&mut self) -> Result<Vec<String>> {
        let ids: BTreeMap<String, HashSet<String>> =
            self.texts.iter().map(|(name, text)| (name.clone(), values(text, " id=\"").collect())).collect();
        let mut findings = Vec::new();
        for (name, text) in &mut self.texts {
            let mut corrected = text.clone();
            let links: HashSet<String> = values(text, " href=\"").chain(values(text, " src=\"")).collect();
            for link in links {
                match target(&self.folder, &ids, name, &link) {
                    Target::Found => {}
                    Target::Source(source) => {
                        corrected =
                            corrected.replace(&format!("href=\"{link}\""), &format!("href=\"{source}\""));
                    }
                    Target::Missing(why) => findings.push(format!("{GUIDE}/src/{name}: {link}: {why}")),
                }
            }
            if corrected != *text {
                std::fs::write(self.folder.join(name), &corrected)?;
                *text = corrected;
            }
        }
        findings.sort();
        Ok(findings)
    }
}

/// What a link leads to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Found,
    /// A document outside of the guide, by its own name.
    Source(String),
    Missing(&'static str),
}

fn target(folder: &Path, ids: &BTreeMap<String, HashSet<String>>, page: &str, link: &str) -> Target {
    if link.contains("://") || link.starts_with("mailto:") || link.starts_with("data:") {
        return Target::Found;
    }
    let (file, anchor) = link.split_once('#').map_or((link, ""), |(file, anchor)| (file, anchor));
    let file = file.split('?').next().unwrap_or_default();
    let name = if file.is_empty() { page } else { file };
    if let Some(ids) = ids.get(name) {
        let is_known = anchor.is_empty() || ids.contains(anchor);
        return if is_known { Target::Found } else { Target::Missing("no heading has this anchor") };
    }
    if folder.join(file).exists() {
        return Target::Found;
    }
    let stem = file.strip_suffix(".html").unwrap_or(file);
    let readme = stem.strip_suffix("index").map(|folder| format!("{folder}README.md"));
    let source = [Some(format!("{stem}.md")), readme].into_iter().flatten();
    match source.into_iter().find(|source| folder.join(source).exists()) {
        Some(source) if anchor.is_empty() => Target::Source(source),
        // The step `style` checks that the document has the heading.
        Some(source) => Target::Source(format!("{source}#{anchor}")),
        None => Target::Missing("there is no such file"),
    }
}

/// The values of an attribute.
fn values<'t>(html: &'t str, attribute: &'t str) -> impl Iterator<Item = String> + 't {
    let parts = html.split(attribute).skip(1);
    parts.filter_map(|rest| rest.split_once('"')).map(|(value, _)| value.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_pages_headings_and_documents() {
        let folder = root().join(GUIDE).join("book");
        let ids = BTreeMap::from([("a.html".to_owned(), HashSet::from(["one".to_owned()]))]);
        let find = |link: &str| target(&folder, &ids, "a.html", link);
        assert_eq!(find("a.html#one"), Target::Found);
        assert_eq!(find("#one"), Target::Found);
        assert_eq!(find("https://kafka.apache.org"), Target::Found);
        assert!(matches!(find("a.html#two"), Target::Missing(_)));
        assert!(matches!(find("b.html"), Target::Missing(_)));
    }

    #[test]
    fn links_out_of_the_guide_get_their_own_name_again() {
        // Any folder of this depth: the guide need not be built.
        let folder = root().join(GUIDE).join("src");
        let find = |link: &str| target(&folder, &BTreeMap::new(), "a.html", link);
        assert_eq!(find("../../folds.html#limits"), Target::Source("../../folds.md#limits".to_owned()));
        assert_eq!(find("../../../README.html"), Target::Source("../../../README.md".to_owned()));
        assert_eq!(find("../../../docs/index.html"), Target::Source("../../../docs/README.md".to_owned()));
        assert!(matches!(find("../../gone.html"), Target::Missing(_)));
    }

    #[test]
    fn values_of_an_attribute() {
        let html = r#"<a href="x.html?a=1&amp;b"> <h2 id="one">"#;
        assert_eq!(values(html, " href=\"").collect::<Vec<_>>(), ["x.html?a=1&b"]);
        assert_eq!(values(html, " id=\"").collect::<Vec<_>>(), ["one"]);
    }
}
