//! Chooses an image: official or local, depending on what the engine has or can pull.

use std::time::Duration;

use testcontainers::GenericImage;
use testcontainers::runners::AsyncRunner as _;

use super::client::{REMEDY, docker, on_engine, variable};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::report::log_line;

/// Each service with its official image, and the one that `cargo xtask services prepare` builds
/// where none can be pulled. A test compares them with `docker/images.txt` of the repository.
pub const IMAGES: [(&str, &str, &str); 2] = [
    ("kafka", "apache/kafka:4.1.0", "kmr-test/kafka:4.1.0"),
    ("clickhouse", "clickhouse/clickhouse-server:26.3.33.24", "kmr-test/clickhouse:26.7.3"),
];

/// Repository of the images that are built from recipes.
const LOCAL: &str = "kmr-test/";

/// Timeout of pulling an image.
const PULL_TIMEOUT: Duration = Duration::from_secs(300);

/// A service that a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kafka,
    ClickHouse,
}

impl Service {
    /// The official and the local image.
    fn images(self) -> Result<(Image, Image)> {
        let (_, official, local) = IMAGES[self as usize];
        Ok((Image::parse(official)?, Image::parse(local)?))
    }

    /// The environment variable that names an image.
    fn variable(self) -> &'static str {
        match self {
            Self::Kafka => "KMR_TEST_KAFKA_IMAGE",
            Self::ClickHouse => "KMR_TEST_CLICKHOUSE_IMAGE",
        }
    }
}

/// An image that the engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    name: String,
    tag: String,
}

impl Image {
    /// Chooses the image of a service: `named` if the test names one, else in the order that the
    /// crate's front page gives.
    pub(crate) async fn choose(service: Service, named: Option<String>) -> Result<Self> {
        let named = named.or_else(|| variable(service.variable()));
        on_engine(async move {
            match named {
                Some(image) => Self::parse(&image)?.present_or_pulled().await,
                None => Self::first_available(service).await,
            }
        })
        .await
    }

    async fn first_available(service: Service) -> Result<Self> {
        let (official, local) = service.images()?;
        let wanted = std::env::var("KMR_TEST_IMAGES").unwrap_or_default();
        let (try_official, try_local) = kinds(&wanted)?;
        if try_official && official.is_present().await? {
            return Ok(official);
        }
        if try_local && local.is_present().await? {
            return Ok(local);
        }
        if !try_official {
            let text = format!("image {local} is missing in the container engine. {REMEDY}");
            return Err(Error::new(ErrorKind::NoImage, text));
        }
        official.present_or_pulled().await
    }

    async fn present_or_pulled(self) -> Result<Self> {
        if self.is_present().await? {
            return Ok(self);
        }
        log_line(format_args!("pulling image {self}"));
        let pull = GenericImage::new(&self.name, &self.tag).pull_image();
        let text =
            || format!("image {self} is missing in the container engine and cannot be pulled. {REMEDY}");
        let _request = match tokio::time::timeout(PULL_TIMEOUT, pull).await {
            Ok(pulled) => pulled.context(ErrorKind::NoImage, text)?,
            Err(elapsed) => Err(elapsed).context(ErrorKind::NoImage, text)?,
        };
        Ok(self)
    }

    /// The image in the form that testcontainers needs.
    pub(crate) fn generic(&self) -> GenericImage {
        GenericImage::new(&self.name, &self.tag)
    }

    /// Whether it was built from a recipe in `docker/`.
    pub(crate) fn is_local(&self) -> bool {
        self.name.starts_with(LOCAL)
    }

    async fn is_present(&self) -> Result<bool> {
        use testcontainers::bollard::errors::Error;
        match docker().await?.inspect_image(&self.to_string()).await {
            Ok(_) => Ok(true),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(error).context(ErrorKind::Engine, || format!("cannot inspect image {self}")),
        }
    }

    /// `name:tag`. A colon before the last slash belongs to a port.
    fn parse(reference: &str) -> Result<Self> {
        let parts = reference
            .rsplit_once(':')
            .filter(|(name, tag)| !(name.is_empty() || tag.is_empty() || tag.contains('/')));
        let (name, tag) = parts.context(ErrorKind::InvalidSetting, || {
            format!("image `{reference}` has no tag: it has to be `name:tag`, such as {}", IMAGES[0].1)
        })?;
        Ok(Self { name: name.to_owned(), tag: tag.to_owned() })
    }
}

/// Whether official images, and whether local images are allowed.
fn kinds(wanted: &str) -> Result<(bool, bool)> {
    match wanted {
        "" => Ok((true, true)),
        "official" => Ok((true, false)),
        "local" => Ok((false, true)),
        other => {
            let text = format!("KMR_TEST_IMAGES is `{other}`: use `official` or `local`");
            Err(Error::new(ErrorKind::InvalidSetting, text))
        }
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_an_official_and_a_local_image() -> Result<()> {
        for (service, key) in [(Service::Kafka, "kafka"), (Service::ClickHouse, "clickhouse")] {
            let (official, local) = service.images()?;
            assert!(official.to_string().contains(key) && !official.is_local(), "{official}");
            assert!(local.to_string().contains(key) && local.is_local(), "{local}");
        }
        Ok(())
    }

    #[test]
    fn an_image_needs_a_tag() -> Result<()> {
        assert_eq!(Image::parse("host:5000/kafka:4.1.0")?.to_string(), "host:5000/kafka:4.1.0");
        for bad in ["kafka", "host:5000/kafka", "kafka:", ":4.1.0"] {
            let error = Image::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSetting);
            assert!(error.to_string().contains(bad), "{error}");
        }
        Ok(())
    }

    #[test]
    fn an_unknown_kind_of_images_is_an_error() -> Result<()> {
        assert_eq!((kinds("")?, kinds("local")?), ((true, true), (false, true)));
        assert!(kinds("nightly").unwrap_err().to_string().contains("KMR_TEST_IMAGES is `nightly`"));
        Ok(())
    }
}
