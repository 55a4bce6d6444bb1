//! Images that tests build from the repository's own Dockerfiles.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use kmr_testkit::__private::Guard;

/// The table of images, which `cargo xtask` reads too.
const TABLE: &str = include_str!("../../docker/images.txt");

/// An image that a test has built, and its containers.
#[derive(Debug)]
pub struct BuiltImage {
    tag: String,
}

impl BuiltImage {
    /// Builds one stage of a Dockerfile, with the files of `context`. The engine caches its layers,
    /// so a second build takes a second. Later builds replace the image.
    ///
    /// # Errors
    /// The build failed, with its output.
    pub async fn build(tag: &str, dockerfile: &Path, stage: &str, context: &Path) -> Result<Self> {
        let mut command = Command::new("docker");
        command.args(["build", "--tag", tag, "--target", stage, "--file"]).arg(dockerfile);
        if let Some(debian) = local_debian().await? {
            command.args(["--build-arg", &format!("DEBIAN={debian}")]);
        }
        command.arg(context);
        answer(command).await.with_context(|| format!("cannot build {}", dockerfile.display()))?;
        Ok(Self { tag: tag.to_owned() })
    }

    /// Size of the image in bytes.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn bytes(&self) -> Result<u64> {
        let mut command = Command::new("docker");
        command.args(["image", "inspect", "--format", "{{.Size}}", &self.tag]);
        Ok(answer(command).await?.trim().parse()?)
    }

    /// A command that runs a container in the foreground, in the network of this machine. It passes
    /// signals on, and removes the container at its end.
    ///
    /// # Errors
    /// The cleanup of containers cannot be started.
    pub fn run(&self, name: &str, options: &[&str]) -> Result<Command> {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--name", name, "--network", "host"]);
        for (label, value) in Guard::get()?.labels() {
            command.args(["--label", &format!("{label}={value}")]);
        }
        command.args(options).arg(&self.tag);
        Ok(command)
    }
}

/// The image of Debian that `cargo xtask services` has built, if it had to build any image.
async fn local_debian() -> Result<Option<&'static str>> {
    let Some(("-", debian)) = images("base") else { bail!("docker/images.txt: no line for base") };
    let mut command = Command::new("docker");
    command.args(["image", "ls", "--quiet", debian]);
    Ok((!answer(command).await?.trim().is_empty()).then_some(debian))
}

/// The official and the local image of a service, from the table.
fn images(service: &str) -> Option<(&'static str, &'static str)> {
    TABLE.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == service).then_some((words.next()?, words.next()?))
    })
}

/// Runs a command to its end, for its standard output.
async fn answer(mut command: Command) -> Result<String> {
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("cannot run docker")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_images_of_the_testkit() {
        for (service, official, local) in kmr_testkit::__private::IMAGES {
            assert_eq!(images(service), Some((official, local)));
        }
    }
}
