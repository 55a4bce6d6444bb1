//! Settings of librdkafka and ClickHouse, by their names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::HIDDEN;
use super::text::{expanded, file_of};

/// The value of a setting of librdkafka or ClickHouse: a text, a whole number, or a boolean.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    value: String,
    file: Option<PathBuf>,
}

impl Setting {
    pub(crate) fn as_str(&self) -> &str {
        &self.value
    }

    /// The file whose content it is.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

/// It may be a password.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl From<String> for Setting {
    fn from(value: String) -> Self {
        Self { value, file: None }
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
                let value = expanded(text, |name| std::env::var(name).ok()).map_err(E::custom)?;
                let file = file_of(text).map_err(E::custom)?;
                Ok(Setting { value, file })
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Setting, E> {
                Ok(number.to_string().into())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Setting, E> {
                Ok(number.to_string().into())
            }

            /// serde's own message would show it.
            fn visit_f64<E: Error>(self, _: f64) -> Result<Setting, E> {
                Err(E::custom("it is a number with a point; write it as a text in quotes"))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Setting, E> {
                Ok(value.to_string().into())
            }
        }

        deserializer.deserialize_any(Value)
    }
}

/// Settings by their names. Of those whose name points to a secret, and of those from files, no
/// output shows the value.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Settings(pub(crate) BTreeMap<String, Setting>);

impl Settings {
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Parts of the names of settings that hold a secret.
const SECRETS: [&str; 7] = ["password", "secret", "token", "key", "jaas", "oauthbearer.config", "credential"];

/// Whether the name of a setting points to a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRETS.iter().any(|part| name.contains(part))
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, setting) in &self.0 {
            let is_hidden = setting.file.is_some() || is_secret(name);
            map.serialize_entry(name, if is_hidden { HIDDEN } else { setting.as_str() })?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_may_be_secrets_are_hidden() {
        let settings: Settings = toml::from_str(
            "\"ssl.key.pem\" = \"s3cret\"\n\"sasl.password\" = \"s3cret\"\n\"fetch.min.bytes\" = 7\n",
        )
        .unwrap();
        let shown = serde_json::to_string(&settings).unwrap();
        assert!(!shown.contains("s3cret") && shown.contains(r#""fetch.min.bytes":"7""#), "{shown}");
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
