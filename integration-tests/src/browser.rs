//! A headless Chromium for tests of pages, driven over WebDriver.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use fantoccini::Client;
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use kmr_testkit::Deadline;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::{ParseError, Url};

use crate::process::Process;
use crate::wait::{wait_for, wait_until};

/// Without a sandbox, which root does not have, and without requests of Chromium's own.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
];

/// The directory that gets the screenshots of a run. Unset: none are taken.
const SCREENSHOTS: &str = "KMR_SCREENSHOTS";

/// A command that only ChromeDriver has.
#[derive(Debug)]
struct ChromeCommand {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for ChromeCommand {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// A browser with one window. Dropping it ends Chromium and its driver.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    _driver: Driver,
}

#[derive(Debug)]
struct Driver {
    port: u16,
    /// Killed when it is dropped, after [`Driver::drop`] has ended its browser.
    _process: Process,
}

impl Driver {
    async fn start() -> Result<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let process = Process::spawn(command).context("`cargo xtask test` installs chromium-driver")?;
        let deadline = Deadline::seconds(30);
        let port = wait_for(deadline, "chromedriver listens", async || {
            let output = process.stdout();
            let line = output.lines().find_map(|line| line.split_once("successfully on port "));
            Ok(line.and_then(|(_, port)| port.trim_end_matches('.').parse().ok()))
        });
        Ok(Self { port: port.await?, _process: process })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Killed at once, the driver would leave Chromium running.
        let shut_down = || -> std::io::Result<()> {
            let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
            connection.set_read_timeout(Some(Duration::from_secs(10)))?;
            connection.write_all(b"GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
            connection.read_to_end(&mut Vec::new()).map(drop)
        };
        // This fails only when the driver has ended.
        let _ = shut_down();
    }
}

impl Browser {
    /// Starts Chromium.
    ///
    /// # Errors
    ///
    /// When Chromium or its driver is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        let driver = Driver::start().await?;
        let capabilities = json!({
            "goog:chromeOptions": { "args": ARGUMENTS },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities = capabilities.as_object().cloned().unwrap_or_default();
        let at = format!("http://127.0.0.1:{}", driver.port);
        let client = Client::with_capabilities_and_connector(&at, &capabilities, HttpConnector::new());
        Ok(Self { client: client.await.context("Chromium does not start")?, _driver: driver })
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    ///
    /// When nothing answers at that address.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.client.goto(url).await.with_context(|| format!("cannot open {url}"))
    }

    /// The value of an expression in JavaScript.
    ///
    /// # Errors
    ///
    /// When it throws, or its value has another type.
    pub async fn value<T: DeserializeOwned>(&self, expression: &str) -> Result<T> {
        let script = format!("return ({expression});");
        let value = self.client.execute(&script, Vec::new()).await;
        let value = value.with_context(|| expression.to_owned())?;
        serde_json::from_value(value).with_context(|| expression.to_owned())
    }

    /// Waits until an expression in JavaScript is true.
    ///
    /// # Errors
    ///
    /// At the deadline, with the text of the page, and when the expression throws.
    pub async fn until(&self, deadline: Deadline, expression: &str) -> Result<()> {
        let reached = wait_until(deadline, expression, async || self.value(expression).await).await;
        if let Err(error) = reached {
            let text: String = self.value("document.body.innerText").await?;
            return Err(error.context(text));
        }
        Ok(())
    }

    /// Presses and releases a key.
    ///
    /// # Errors
    ///
    /// When the browser has ended. The same applies to the methods below.
    pub async fn press(&self, key: Key) -> Result<()> {
        let value = char::from(key);
        let keys = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value })
            .then(KeyAction::Up { value });
        Ok(self.client.perform_actions(keys).await?)
    }

    /// Types a text into the element that has the focus.
    pub async fn write(&self, text: &str) -> Result<()> {
        Ok(self.client.active_element().await?.send_keys(text).await?)
    }

    /// Gives the page that many CSS pixels, and the light or dark colours that the user prefers.
    pub async fn screen(&self, width: u32, height: u32, dark: bool) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await
    }

    /// Messages of the console since the last call, with their levels.
    pub async fn console(&self) -> Result<Vec<String>> {
        let log = ChromeCommand { path: "se/log", body: json!({ "type": "browser" }) };
        let entries = self.client.issue_cmd(log).await?;
        let text = |entry: &Value| format!("{}: {}", entry["level"], entry["message"]);
        Ok(entries.as_array().map(|entries| entries.iter().map(text).collect()).unwrap_or_default())
    }

    /// Writes a screenshot of the whole page to `name` in the directory `KMR_SCREENSHOTS`, if that
    /// is set.
    pub async fn screenshot(&self, name: &str) -> Result<()> {
        let Some(directory) = std::env::var_os(SCREENSHOTS).map(PathBuf::from) else { return Ok(()) };
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, self.client.screenshot().await?).with_context(|| path.display().to_string())
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Result<()> {
        let body = json!({ "cmd": command, "params": parameters });
        self.client.issue_cmd(ChromeCommand { path: "goog/cdp/execute", body }).await?;
        Ok(())
    }
}
