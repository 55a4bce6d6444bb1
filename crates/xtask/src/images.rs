//! The images: official ones where the engine has or can pull them, else built from the recipes in
//! `docker/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::engine::docker;
use crate::packages::{self, ensure};
use crate::process::{answer, kill_tree, logged, start, system_path};
use crate::root;

/// A registry that sends nothing for this long is unavailable.
const PULL_SILENCE: Duration = Duration::from_secs(15);
const PULL_LIMIT: Duration = Duration::from_secs(600);
const BUILD_LIMIT: Duration = Duration::from_secs(900);
const QUESTION_LIMIT: Duration = Duration::from_secs(20);

/// On every image built here; its value is the hash of the recipe.
const RECIPE_LABEL: &str = "kmr-test.recipe";

/// A line of `docker/images.txt`.
struct Row {
    service: String,
    official: Option<String>,
    local: String,
}

/// The image that each service is to run.
pub(crate) struct Images {
    pub(crate) kafka: String,
    pub(crate) clickhouse: String,
}

/// Makes an image of each service available, and returns their names.
///
/// # Errors
///
/// When an image can neither be pulled nor built, with what is missing.
pub(crate) fn ensure_all() -> Result<Images> {
    let rows = table()?;
    let find = |service: &str| {
        let row = rows.iter().find(|row| row.service == service);
        row.with_context(|| format!("docker/images.txt has no line for {service}"))
    };
    let base = find("base")?;
    let mut registry = Registry { allowed: wanted()? != Wanted::Local, reachable: true };
    let kafka = one(find("kafka")?, base, &mut registry)?;
    let clickhouse = one(find("clickhouse")?, base, &mut registry)?;
    Ok(Images { kafka, clickhouse })
}

/// What is known about pulling; one failure speaks for the other images.
struct Registry {
    allowed: bool,
    reachable: bool,
}

#[derive(PartialEq, Eq)]
enum Wanted {
    Any,
    Official,
    Local,
}

fn wanted() -> Result<Wanted> {
    match std::env::var("KMR_TEST_IMAGES").unwrap_or_default().as_str() {
        "" => Ok(Wanted::Any),
        "official" => Ok(Wanted::Official),
        "local" => Ok(Wanted::Local),
        other => bail!("KMR_TEST_IMAGES is `{other}`: it can be `official` or `local`"),
    }
}

fn one(row: &Row, base: &Row, registry: &mut Registry) -> Result<String> {
    if let (Some(official), true) = (&row.official, registry.allowed) {
        if label(official).is_some() {
            println!("{}: official image {official}, which the engine has", row.service);
            return Ok(official.clone());
        }
        match registry.reachable.then(|| pull(official)) {
            Some(Ok(())) => {
                println!("{}: official image {official}, pulled", row.service);
                return Ok(official.clone());
            }
            Some(Err(error)) => {
                println!("{}: cannot pull {official} ({error:#})", row.service);
                registry.reachable = false;
            }
            None => {}
        }
        if wanted()? == Wanted::Official {
            bail!("KMR_TEST_IMAGES is `official`, and {official} can not be had");
        }
    }
    let built = build(row, base)?;
    let how = if built { "built now" } else { "up to date" };
    println!("{}: image {} of the recipe docker/{}, {how}", row.service, row.local, row.service);
    Ok(row.local.clone())
}

/// Pulls an image, patiently once the registry has sent anything.
fn pull(image: &str) -> Result<()> {
    println!("pulling {image}");
    let mut command = docker(&["pull", image]);
    let mut child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (sender, first_line) = mpsc::channel();
    let stdout = child.stdout.take().context("no pipe")?;
    std::thread::spawn(move || {
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
        // A closed channel means that the pull was given up.
        let _ = sender.send(lines.next().is_some());
        lines.for_each(drop);
    });
    if first_line.recv_timeout(PULL_SILENCE).is_err() {
        kill_tree(&mut child);
        bail!("the registry sent nothing for {} s", PULL_SILENCE.as_secs());
    }
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > PULL_LIMIT {
            kill_tree(&mut child);
            bail!("not pulled in {} s", PULL_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Builds an image, and the base under it, unless the engine has it of this very recipe. Returns
/// whether it built.
fn build(row: &Row, base: &Row) -> Result<bool> {
    let base_hash = hash(&[recipe(base)])?;
    let own_hash = hash(&[recipe(base), recipe(row)])?;
    if label(&row.local).as_deref() == Some(&own_hash) {
        return Ok(false);
    }
    ensure(&packages::IMAGES)?;
    if label(&base.local).as_deref() != Some(&base_hash) {
        run_recipe(base, &base_hash, None)?;
    }
    run_recipe(row, &own_hash, Some(&base.local))?;
    Ok(true)
}

fn run_recipe(row: &Row, hash: &str, base: Option<&str>) -> Result<()> {
    println!("building {}", row.local);
    let started = Instant::now();
    let mut command = Command::new(recipe(row).join("build.sh"));
    command.args([&row.local, hash]).args(base);
    command.env("PATH", system_path());
    let log = format!("build-{}.log", row.service);
    logged(&mut command, BUILD_LIMIT, &log).with_context(|| format!("building {}", row.local))?;
    println!("built {} in {:.0} s", row.local, started.elapsed().as_secs_f64());
    Ok(())
}

/// The recipe label of an image that the engine has; empty for one that was not built here.
fn label(image: &str) -> Option<String> {
    let format = format!("{{{{index .Config.Labels \"{RECIPE_LABEL}\"}}}}");
    let mut command = docker(&["image", "inspect", "--format", &format, image]);
    answer(&mut command, QUESTION_LIMIT).ok()
}

fn recipe(row: &Row) -> PathBuf {
    root().join("docker").join(&row.service)
}

fn table() -> Result<Vec<Row>> {
    let path = root().join("docker/images.txt");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| row(line).with_context(|| format!("docker/images.txt: `{line}`"))).collect()
}

fn row(line: &str) -> Result<Row> {
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut next = || words.next().context("three words are wanted");
    let (service, official, local) = (next()?, next()?, next()?);
    Ok(Row { service, official: (official != "-").then_some(official), local })
}

/// A hash of all files in these directories, names and contents, that is the same on every machine.
fn hash(directories: &[PathBuf]) -> Result<String> {
    let mut state = Fnv(0xcbf2_9ce4_8422_2325);
    for directory in directories {
        let entries =
            std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort();
        for file in files {
            state.add(file.file_name().unwrap_or_default().as_encoded_bytes());
            state.add(&read(&file)?);
        }
    }
    Ok(format!("{:016x}", state.0))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// FNV-1a: the standard library promises no hash that stays the same.
struct Fnv(u64);

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        // The length distinguishes "ab" + "c" from "a" + "bc".
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_complete_and_compose_names_the_same_official_images() -> Result<()> {
        let rows = table()?;
        let services: Vec<_> = rows.iter().map(|row| row.service.as_str()).collect();
        assert_eq!(services, ["base", "kafka", "clickhouse"]);
        let compose = std::fs::read_to_string(root().join("docker/compose.yaml"))?;
        for official in rows.iter().filter_map(|row| row.official.as_ref()) {
            assert!(
                compose.contains(&format!("image: {official}\n")),
                "compose.yaml does not name {official}"
            );
        }
        Ok(())
    }

    #[test]
    fn recipes_have_different_hashes() -> Result<()> {
        let hashes: Vec<_> = table()?.iter().map(|row| hash(&[recipe(row)])).collect::<Result<_>>()?;
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2]);
        Ok(())
    }
}
