//! The text files of the repository, read once for all checks.

use std::path::Path;

use anyhow::{Context, Result};

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Markdown,
    /// A language whose comments start with `#`: TOML, YAML, shell, a Dockerfile.
    Hash,
    /// JSON, without comments.
    Json,
    /// Something that a link can lead to. The checks do not read it.
    Other,
}

/// A file, by its path from the root with `/` between the parts.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) language: Language,
    pub(crate) text: String,
}

/// Hidden folders with files of ours. All others belong to tools.
const HIDDEN_FOLDERS: [&str; 2] = [".cargo", ".ci"];

/// All files below `root`, sorted by path. Git is not asked: an exported tree has none, and root
/// may not read another user's clone.
///
/// # Errors
///
/// When a folder or a file cannot be read.
pub(crate) fn read_all(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let kind = entry.file_type()?;
            if kind.is_dir() && is_ours(&name) {
                folders.push(path);
            } else if kind.is_file() {
                files.push(read(root, &path)?);
            }
        }
    }
    files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

fn is_ours(folder: &str) -> bool {
    // `book` is the built guide.
    folder != "target" && folder != "book" && (!folder.starts_with('.') || HIDDEN_FOLDERS.contains(&folder))
}

fn read(root: &Path, path: &Path) -> Result<SourceFile> {
    let relative = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    let language = language(&relative);
    let text = match language {
        Language::Other => String::new(),
        _ => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
    };
    Ok(SourceFile { path: relative, language, text })
}

fn language(path: &str) -> Language {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("rs") => Language::Rust,
        Some("md") => Language::Markdown,
        Some("toml" | "yaml" | "yml" | "sh" | "properties") => Language::Hash,
        Some("json") => Language::Json,
        None if path.starts_with(".ci/") || path.starts_with("docker/") => Language::Hash,
        _ => Language::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_follow_from_names() {
        assert_eq!(language("crates/a/src/lib.rs"), Language::Rust);
        assert_eq!(language("README.md"), Language::Markdown);
        assert_eq!(language(".ci/run"), Language::Hash);
        assert_eq!(language("docker/kafka/Dockerfile"), Language::Hash);
        assert_eq!(language("docker/clickhouse/entrypoint"), Language::Hash);
        assert_eq!(language("docs/profile.svg"), Language::Other);
        assert_eq!(language("LICENSE-MIT"), Language::Other);
    }

    #[test]
    fn build_folders_and_hidden_ones_are_left_out() {
        assert!(is_ours("docs") && is_ours(".cargo"));
        assert!(!is_ours("target") && !is_ours(".git"));
    }
}
