//! [`FileContents`]: whether the files of a configuration have changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use crate::config::ClientConfig;

/// Settings that name a file which librdkafka reads when a client is created.
const LOCATIONS: [&str; 5] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
];

/// The contents of a configuration's files, as hashes: they are secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileContents(BTreeMap<PathBuf, Option<u64>>);

impl FileContents {
    /// Reads the files. One that cannot be read has no content: it may be about to be replaced. A
    /// location may also be a folder, which is not watched.
    pub fn read(config: &ClientConfig) -> Self {
        let locations = LOCATIONS.iter().filter_map(|name| config.get(name)).map(PathBuf::from);
        let files = locations.chain(config.files().map(|(_, path)| path.to_owned()));
        let content = |path: PathBuf| {
            let hash = std::fs::read(&path).ok().map(|bytes| {
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                hasher.finish()
            });
            (path, hash)
        };
        Self(files.map(content).collect())
    }

    /// Whether there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The files that had another content in `before`, or none.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let changed = |(path, hash): (&PathBuf, &Option<u64>)| {
            let changed = hash.is_some() && before.0.get(path) != Some(hash);
            changed.then(|| path.display().to_string())
        };
        self.0.iter().filter_map(changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_new_content_and_not_a_missing_file() {
        let folder = std::env::temp_dir().join(format!("kmr-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (key, password) = (folder.join("key.pem"), folder.join("password"));
        let write = |path: &PathBuf, text: &str| std::fs::write(path, text).unwrap();
        write(&key, "one");
        write(&password, "secret");
        let config = ClientConfig::new()
            .set("ssl.key.location", key.display().to_string())
            .set("ssl.ca.location", folder.display().to_string())
            .set_from_file("sasl.password", &password);
        let first = FileContents::read(&config);
        assert!(!first.is_empty() && FileContents::read(&ClientConfig::new()).is_empty());
        write(&key, "one");
        assert_eq!(FileContents::read(&config), first);
        std::fs::remove_file(&key).unwrap();
        assert!(FileContents::read(&config).changed_since(&first).is_empty());
        write(&key, "two");
        write(&password, "other");
        let changed = FileContents::read(&config).changed_since(&first);
        assert_eq!(changed, [key.display().to_string(), password.display().to_string()]);
        assert!(!format!("{first:?}").contains("secret"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
