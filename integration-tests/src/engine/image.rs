//! Chooses an image: official or local, depending on what the engine has or can pull.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use testcontainers::GenericImage;
use testcontainers::runners::AsyncRunner as _;

use super::{REMEDY, docker, on_engine};
use crate::report::log_line;

/// The table of images, which `cargo xtask` reads too.
const TABLE: &str = include_str!("../../../docker/images.txt");

/// Timeout of pulling the official image, when the engine has neither image.
const PULL_TIMEOUT: Duration = Duration::from_secs(300);

/// A service that a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kafka,
    ClickHouse,
}

impl Service {
    fn key(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::ClickHouse => "clickhouse",
        }
    }
}

/// An image that the engine has.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    name: String,
    tag: String,
}

impl Image {
    /// Chooses the image of a service. The crate's front page gives the order.
    pub(crate) async fn choose(service: Service) -> Result<Self> {
        on_engine(Self::first_available(service)).await
    }

    async fn first_available(service: Service) -> Result<Self> {
        let (official, local) = candidates(service)?;
        let wanted = std::env::var("KMR_TEST_IMAGES").unwrap_or_default();
        let (try_official, try_local) = match wanted.as_str() {
            "" => (true, true),
            "official" => (true, false),
            "local" => (false, true),
            other => bail!("KMR_TEST_IMAGES is `{other}`: use `official` or `local`"),
        };
        if try_official && official.is_present().await? {
            return Ok(official);
        }
        if try_local && local.is_present().await? {
            return Ok(local);
        }
        if !try_official {
            bail!("image {local} is missing in the engine. {REMEDY}");
        }
        log_line(format_args!("pulling {official}: the engine has neither it nor {local}"));
        let pull = GenericImage::new(&official.name, &official.tag).pull_image();
        let _request = tokio::time::timeout(PULL_TIMEOUT, pull)
            .await
            .with_context(|| {
                format!("timeout: pulling {official} took longer than {PULL_TIMEOUT:?}. {REMEDY}")
            })?
            .with_context(|| format!("cannot pull {official}. {REMEDY}"))?;
        Ok(official)
    }

    /// The image of Debian that `cargo xtask services` has built, if it had to build any image.
    pub(crate) async fn local_debian() -> Result<Option<Self>> {
        let [_, local] = row("base")?;
        let debian = image(local)?;
        on_engine(async move { Ok(debian.is_present().await?.then_some(debian)) }).await
    }

    /// The image in the form that testcontainers needs.
    pub(crate) fn generic(&self) -> GenericImage {
        GenericImage::new(&self.name, &self.tag)
    }

    /// Whether it was built from a recipe in `docker/`.
    pub(crate) fn is_local(&self) -> bool {
        self.name.starts_with("kmr-test/")
    }

    async fn is_present(&self) -> Result<bool> {
        use testcontainers::bollard::errors::Error;
        match docker().await?.inspect_image(&self.to_string()).await {
            Ok(_) => Ok(true),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot inspect image {self}")),
        }
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

/// The official and the local image of a service, from the table.
fn candidates(service: Service) -> Result<(Image, Image)> {
    let [official, local] = row(service.key())?;
    Ok((image(official)?, image(local)?))
}

/// The two images in a line of the table.
fn row(key: &str) -> Result<[&'static str; 2]> {
    let line = TABLE.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut rows = line.filter(|words| words.first() == Some(&key));
    match rows.next().as_deref() {
        Some([_, official, local]) => Ok([official, local]),
        _ => bail!("docker/images.txt: no line of three words for {key}"),
    }
}

fn image(reference: &str) -> Result<Image> {
    let (name, tag) = reference.rsplit_once(':').context("docker/images.txt: an image has no tag")?;
    Ok(Image { name: name.to_owned(), tag: tag.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_both_images_of_every_service() -> Result<()> {
        for service in [Service::Kafka, Service::ClickHouse] {
            let (official, local) = candidates(service)?;
            assert_ne!(official.to_string(), local.to_string());
            assert!(local.name.starts_with("kmr-test/"), "{local}");
        }
        Ok(())
    }
}
