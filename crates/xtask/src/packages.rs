//! What the tests need from the system, and getting it with apt-get where that may be done.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{answer, is_installed, logged, state_directory};

/// Debian's mirrors can be slow, and npm alone is several hundred packages.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// How to tell that something is there.
enum Probe {
    Program(&'static str),
    PkgConfig(&'static str),
}

/// Something that must be there, the Debian package that has it, and what for.
pub(crate) struct Need {
    probe: Probe,
    package: &'static str,
    purpose: &'static str,
}

const fn program(name: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { probe: Probe::Program(name), package, purpose }
}

/// For compiling the workspace.
pub(crate) const BUILD: [Need; 6] = [
    program("cc", "build-essential", "compiles librdkafka"),
    program("c++", "build-essential", "compiles librdkafka"),
    program("make", "make", "compiles librdkafka"),
    program("bash", "bash", "configures librdkafka"),
    program("pkg-config", "pkg-config", "finds OpenSSL"),
    Need {
        probe: Probe::PkgConfig("openssl"),
        package: "libssl-dev",
        purpose: "SASL/SCRAM and TLS of librdkafka",
    },
];

/// For looking for memory errors.
pub(crate) const VALGRIND: [Need; 1] =
    [program("valgrind", "valgrind", "runs the client's tests under memcheck")];

/// For building the sentry_arroyo crate, which the benchmark compares with.
pub(crate) const BENCH: [Need; 2] = [
    program("cmake", "cmake", "compiles librdkafka for Arroyo"),
    Need {
        probe: Probe::PkgConfig("libcurl"),
        package: "libcurl4-openssl-dev",
        purpose: "headers that librdkafka's CMake build includes",
    },
];

/// For the test of the status page.
pub(crate) const BROWSER: [Need; 2] = [
    program("chromium", "chromium", "shows the status page to its test"),
    program("chromedriver", "chromium-driver", "drives Chromium"),
];

/// For the test of random faults.
pub(crate) const CHAOS: [Need; 1] =
    [program("faketime", "faketime", "moves the clocks of consumers that a test watches")];

/// For talking to a container engine.
pub(crate) const CLIENT: [Need; 1] = [program("docker", "docker.io", "runs Kafka and ClickHouse")];

/// For starting one. A machine may well have the client and no engine.
pub(crate) const ENGINE: [Need; 1] = [program("dockerd", "docker.io", "runs Kafka and ClickHouse")];

/// For building the images where none can be pulled.
pub(crate) const IMAGES: [Need; 5] = [
    program("debootstrap", "debootstrap", "makes the base image"),
    program("mvn", "maven", "fetches Kafka"),
    program("npm", "npm", "fetches ClickHouse"),
    program("cc", "build-essential", "compiles the launcher of ClickHouse"),
    program("tar", "tar", "packs images"),
];

impl Need {
    fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => is_installed(name),
            Probe::PkgConfig(library) => {
                let mut command = Command::new("pkg-config");
                answer(command.args(["--exists", library]), Duration::from_secs(10)).is_ok()
            }
        }
    }

    fn what(&self) -> &'static str {
        match self.probe {
            Probe::Program(name) => name,
            Probe::PkgConfig(library) => library,
        }
    }
}

/// Makes sure that all of `needs` are there, installing what is not as root on Debian.
///
/// # Errors
///
/// Naming everything that is missing and the command that gets it.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let list: Vec<_> = missing.iter().map(|need| format!("{} ({})", need.what(), need.purpose)).collect();
    let remedy = format!("apt-get install {}", packages.join(" "));
    if !is_installed("apt-get") {
        bail!("missing: {}. On Debian: {remedy}; here, whatever does the same", list.join(", "));
    }
    if !is_root() {
        bail!("missing: {}. As root: {remedy}", list.join(", "));
    }
    println!("missing: {}; installing {}", list.join(", "), packages.join(" "));
    apt_get(&["update", "--quiet"])?;
    let mut install = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    install.extend(&packages);
    apt_get(&install)?;
    match needs.iter().find(|need| !need.is_met()) {
        // Newer Debian has the engine's client in a package of its own.
        Some(need) if need.what() == "docker" => apt_get(&["install", "--quiet", "--yes", "docker-cli"]),
        Some(need) => bail!("{} is still missing after `{remedy}`", need.what()),
        None => Ok(()),
    }
}

/// The path of a program of a Debian package that is unpacked and not installed, because
/// installing it would start a server. A program on the path is taken first.
///
/// # Errors
///
/// It is not there, and cannot be fetched.
pub(crate) fn unpacked(name: &str, package: &str) -> Result<PathBuf> {
    if is_installed(name) {
        return Ok(PathBuf::from(name));
    }
    let directory = state_directory().join(package);
    let program = directory.join("usr/bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    if !is_installed("apt-get") {
        bail!("missing: {name}. Debian has it in the package {package}");
    }
    println!("missing: {name}; unpacking {package}");
    std::fs::create_dir_all(&directory)?;
    let fetch = || {
        let mut command = Command::new("apt-get");
        command.args(["download", "--quiet", package]).current_dir(&directory);
        logged(&mut command, INSTALL_LIMIT, "apt-get.log")
    };
    // Without the lists of packages, or with old ones, the package is not found.
    if fetch().is_err() {
        apt_get(&["update", "--quiet"])?;
        fetch().with_context(|| format!("apt-get download {package}"))?;
    }
    let script = format!("dpkg-deb --extract {package}_*.deb . && rm {package}_*.deb");
    answer(Command::new("sh").args(["-c", &script]).current_dir(&directory), INSTALL_LIMIT)?;
    Ok(program)
}

/// Whether this process may install packages and start an engine.
pub(crate) fn is_root() -> bool {
    answer(Command::new("id").arg("-u"), Duration::from_secs(10)).is_ok_and(|id| id == "0")
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    logged(&mut command, INSTALL_LIMIT, "apt-get.log")
        .with_context(|| format!("apt-get {}", arguments.join(" ")))
}
