//! Images that tests build from the repository's own Dockerfiles.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Guard, Image, free_port};

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
        if let Some(debian) = Image::local_debian().await? {
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

    /// A port of this machine's loopback address that no test has.
    ///
    /// # Errors
    /// None was found.
    pub fn free_port() -> Result<u16> {
        free_port()
    }
}

/// Runs a command to its end, for its standard output.
async fn answer(mut command: Command) -> Result<String> {
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("cannot run docker")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}
