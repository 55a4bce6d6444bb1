//! Texts: with the values of environment variables, or the content of a file; and secrets.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use super::HIDDEN;

/// A text in which `${NAME}` is the value of an environment variable. A text `file:PATH` is the
/// content of that file, and no output shows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text {
    value: String,
    /// The file whose content it is.
    file: Option<PathBuf>,
}

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        &self.value
    }

    /// The file whose content it is.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The text, unless it is the content of a file.
    pub(crate) fn shown(&self) -> &str {
        if self.file.is_some() { HIDDEN } else { &self.value }
    }

    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let value = expanded(text, |name| std::env::var(name).ok())?;
        Ok(Self { value, file: file_of(text)? })
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        Self { value: value.to_owned(), file: None }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).map_err(D::Error::custom)
    }
}

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Text);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        self.0.as_str()
    }

    /// The file whose content it is.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.0.file()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The value of another type is in serde's message.
        Text::deserialize(deserializer).map(Self).map_err(|error| {
            let text = error.to_string();
            D::Error::custom(if text.contains("expected a string") {
                "it must be a text in quotes"
            } else {
                &text
            })
        })
    }
}

/// One text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Texts(pub(crate) Vec<Text>);

impl Texts {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(Text::as_str)
    }

    /// The texts with commas between them, as they may be shown.
    pub(crate) fn shown(&self) -> String {
        self.0.iter().map(Text::shown).collect::<Vec<_>>().join(", ")
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![Text::read(text).map_err(E::custom)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = values.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }

        deserializer.deserialize_any(Values)
    }
}

/// How a text names a file.
const FILE: &str = "file:";

/// Where the parts of a text come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) variables: Vec<String>,
    pub(crate) file: Option<String>,
}

impl Origin {
    /// The origin of a text as it is written.
    pub(crate) fn of(text: &str) -> Self {
        let mut variables = Vec::new();
        let expanded = expanded_without_file(text, |name| {
            variables.push(name.to_owned());
            Some(format!("${{{name}}}"))
        });
        let file = expanded.ok().filter(|_| text.starts_with(FILE));
        Self { variables, file: file.and_then(|text| text.strip_prefix(FILE).map(str::to_owned)) }
    }
}

/// Replaces `${NAME}`, or reads the file of `file:PATH`. `$$` is a `$`.
pub(super) fn expanded(text: &str, variable: impl FnMut(&str) -> Option<String>) -> Result<String, String> {
    let result = expanded_without_file(text, variable)?;
    match result.strip_prefix(FILE) {
        Some(path) if text.starts_with(FILE) => content(path),
        _ => Ok(result),
    }
}

/// The file of `file:PATH`.
pub(super) fn file_of(text: &str) -> Result<Option<PathBuf>, String> {
    if !text.starts_with(FILE) {
        return Ok(None);
    }
    let path = expanded_without_file(text, |name| std::env::var(name).ok())?;
    Ok(path.strip_prefix(FILE).map(PathBuf::from))
}

fn expanded_without_file(
    text: &str,
    mut variable: impl FnMut(&str) -> Option<String>,
) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            after
        } else if let Some(name) = after.strip_prefix('{') {
            let (name, after) = name.split_once('}').ok_or("`${` has no `}`; write `$$` for a `$`")?;
            let value =
                variable(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
            result.push_str(&value);
            after
        } else {
            result.push('$');
            after
        };
    }
    result.push_str(rest);
    Ok(result)
}

/// The content of a file, without the end of its last line.
fn content(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the file `{path}`, named by `file:`, cannot be read: {error}"))?;
    Ok(text
        .strip_suffix('\n')
        .map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line))
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        expanded(text, |name| (name == "HOST").then(|| "broker-1".to_owned()))
    }

    #[test]
    fn variables_are_replaced_and_a_missing_one_is_named() {
        assert_eq!(expand("${HOST}:9092,x${HOST}").unwrap(), "broker-1:9092,xbroker-1");
        assert_eq!(expand("a$$b$c$").unwrap(), "a$b$c$");
        assert!(expand("${PORT}").unwrap_err().contains("`PORT` is not set"));
        assert!(expand("${HOST").unwrap_err().contains("`$$`"));
    }

    #[test]
    fn the_content_of_a_file_has_no_end_of_line_its_dollars_are_kept_and_it_is_hidden() {
        let path = std::env::temp_dir().join(format!("kmr-secret-{}", std::process::id()));
        std::fs::write(&path, "pa$$ ${HOST} \n").unwrap();
        let name = format!("file:{}", path.display());
        let (text, read) = (expand(&name), Text::read(&name));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.unwrap(), "pa$$ ${HOST} ");
        let read = read.unwrap();
        assert_eq!((read.as_str(), read.shown()), ("pa$$ ${HOST} ", HIDDEN));
        assert_eq!(format!("{read:?}"), format!("{HIDDEN:?}"));
        assert!(expand("file:/nonexistent/secret").unwrap_err().contains("/nonexistent/secret"));
    }

    #[test]
    fn the_origin_of_a_text_is_its_variables_and_its_file() {
        let origin = |variables: &[&str], file: Option<&str>| Origin {
            variables: variables.iter().map(|name| (*name).to_owned()).collect(),
            file: file.map(str::to_owned),
        };
        assert_eq!(Origin::of("${A}:9092,$${B}"), origin(&["A"], None));
        assert_eq!(Origin::of("file:${DIR}/x"), origin(&["DIR"], Some("${DIR}/x")));
        assert_eq!(Origin::of("plain"), Origin::default());
    }

    #[test]
    fn secrets_are_in_no_debug_output() {
        let text = format!("{:?}", Secret(Text::from("s3cret")));
        assert!(!text.contains("s3cret"), "{text}");
    }
}
