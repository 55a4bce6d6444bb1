//! Values in the file: texts with variables, secrets, times, sizes, settings.

use std::fmt;
use std::time::Duration;

use kmr_cli_support::units;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A text in which `${NAME}` is the value of an environment variable. A text `file:PATH` is the
/// content of that file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        expanded(&text, |name| std::env::var(name).ok()).map(Self).map_err(D::Error::custom)
    }
}

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Text);

impl Secret {
    pub(super) fn reveal(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
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

/// Replaces `${NAME}`, or reads the file of `file:PATH`. `$$` is a `$`.
fn expanded(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
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
    match result.strip_prefix("file:") {
        Some(path) if text.starts_with("file:") => content(path),
        _ => Ok(result),
    }
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

/// A time, as in `"500ms"`, `"4s"`, `"2m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        units::duration(text.as_str()).map(Self).map_err(D::Error::custom)
    }
}

/// A size in bytes, as in `"64MiB"` or `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Setting(text) = Setting::deserialize(deserializer)?;
        units::bytes(&text).map(Self).map_err(D::Error::custom)
    }
}

/// The value of a setting of librdkafka or ClickHouse: a text, a whole number, or a boolean.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Setting(String);

impl Setting {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// It may be a password.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl Visitor<'_> for Value {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, or a boolean")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Setting, E> {
                expanded(text, |name| std::env::var(name).ok()).map(Setting).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Setting, E> {
                Ok(Setting(number.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Setting, E> {
                Ok(Setting(number.to_string()))
            }

            /// serde's own message would show it.
            fn visit_f64<E: Error>(self, _: f64) -> Result<Setting, E> {
                Err(E::custom("it is a number with a point; write it as a text in quotes"))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Setting, E> {
                Ok(Setting(value.to_string()))
            }
        }

        deserializer.deserialize_any(Value)
    }
}

/// One text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts(pub(super) Vec<Text>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                let text = expanded(text, |name| std::env::var(name).ok()).map_err(E::custom)?;
                Ok(Texts(vec![Text(text)]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut values: A) -> Result<Texts, A::Error> {
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
    fn the_content_of_a_file_has_no_end_of_line_and_its_dollars_are_kept() {
        let path = std::env::temp_dir().join(format!("kmr-secret-{}", std::process::id()));
        std::fs::write(&path, "pa$$ ${HOST} \n").unwrap();
        let text = expand(&format!("file:{}", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.unwrap(), "pa$$ ${HOST} ");
        assert!(expand("file:/nonexistent/secret").unwrap_err().contains("/nonexistent/secret"));
    }

    #[test]
    fn secrets_and_settings_are_in_no_debug_output() {
        let text = format!("{:?} {:?}", Secret(Text("s3cret".into())), Setting("s3cret".into()));
        assert!(!text.contains("s3cret"), "{text}");
    }
}
