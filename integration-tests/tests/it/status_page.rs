//! The status page in a real browser, of a consumer from Kafka into ClickHouse.

use std::collections::BTreeSet;
use std::ops::Deref;

use anyhow::{Context as _, Result, ensure};
use fantoccini::key::Key;
use integration_tests::{Browser, Deadline, log_line, test_name};
use serde_json::Value;

use crate::served::{PARTITIONS, RECORDS, Served};

const TOKEN: &str = "correct-horse-battery";

struct Scene {
    served: Served,
    browser: Browser,
}

impl Deref for Scene {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

impl Scene {
    async fn new(name: &str) -> Result<Self> {
        let served = Served::new(name, TOKEN).await?;
        let browser = Browser::start().await?;
        browser.screen(1280, 900, false).await?;
        browser.open(&format!("{}/", served.url())).await?;
        Ok(Self { served, browser })
    }

    /// Waits until an expression in JavaScript is true.
    async fn until(&self, expression: &str) -> Result<()> {
        self.browser.until(Deadline::seconds(30), expression).await
    }

    async fn shows_records(&self, count: u64) -> Result<()> {
        self.until(&format!("document.getElementById('totals').innerText.includes('{count}')")).await
    }

    /// Nothing overflows to the side, and each text can be read on what is under it (WCAG AA).
    async fn is_legible(&self, name: &str) -> Result<()> {
        let overflow: i64 = self.browser.value("document.documentElement.scrollWidth - innerWidth").await?;
        ensure!(overflow <= 0, "{name}: the page is {overflow} pixels too wide");
        let faint: Vec<(String, f64)> = self.browser.value(FAINT_TEXTS).await?;
        ensure!(faint.is_empty(), "{name}: texts with a contrast below 4.5: {faint:?}");
        self.browser.screenshot(name).await
    }
}

/// Visible texts whose contrast is below 4.5, with it.
const FAINT_TEXTS: &str = r"(() => {
    const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const parts = (color) => color.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const under = (node) => {
        for (; node; node = node.parentElement) {
            const color = parts(getComputedStyle(node).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const node of document.body.querySelectorAll('*')) {
        const has_text = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
        if (!has_text || !node.checkVisibility()) continue;
        const [a, b] = [luminance(parts(getComputedStyle(node).color)), luminance(under(node))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) found.push([node.textContent.trim(), contrast]);
    }
    return found;
})()";

/// What has the focus: its id, its action, or its text.
const FOCUS: &str = "(({ activeElement: e }) => e.id || e.dataset.action || e.innerText)(document)";

#[tokio::test]
async fn the_page_shows_a_pipeline_and_updates_itself() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    scene.produce().await?;
    scene.until(&format!("document.title === 'healthy · {}'", scene.group)).await?;
    scene.shows_records(RECORDS).await?;
    let names = "[...document.querySelectorAll('#rows-of-partitions .name')].map((cell) => cell.innerText)";
    let names: BTreeSet<String> = scene.browser.value(names).await?;
    let expected = (0..PARTITIONS).map(|partition| format!("{}/{partition}", scene.topic.name()));
    ensure!(names == expected.collect(), "partitions: {names:?}");
    let steps = "[...document.querySelectorAll('#graph .node b')].map((node) => node.innerText)";
    let steps: Vec<String> = scene.browser.value(steps).await?;
    ensure!(steps == ["fetch", "map", "reduce 1", "commit"], "steps: {steps:?}");
    scene.until("document.getElementById('dead').innerText.includes('10 dead letters')").await?;
    scene.until("document.querySelectorAll('#rebalances li:not(.empty)').length > 0").await?;
    scene.until("document.getElementById('errors').innerText === 'None.'").await?;

    // A variable that a new page would not have.
    let _: Value = scene.browser.value("window.loadedOnce = 1").await?;
    scene.produce().await?;
    scene.shows_records(2 * RECORDS).await?;
    scene.until("document.getElementById('dead').innerText.includes('20 dead letters')").await?;
    scene.until("window.loadedOnce === 1").await?;
    scene.until("document.querySelector('#spark-records .line').getAttribute('d').length > 10").await?;

    let entries =
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))";
    let loaded: Vec<(String, u64)> =
        scene.browser.value(&format!("{entries}.map((e) => [e.name, e.transferSize])")).await?;
    let own = format!("http://{}/", scene.server.address());
    ensure!(loaded.iter().all(|(name, _)| name.starts_with(&own)), "assets of others: {loaded:?}");
    let files = loaded.iter().filter(|(name, _)| !name.ends_with("/events"));
    let weight: u64 = files.map(|(_, bytes)| bytes).sum();
    ensure!(weight < 40_000, "the page weighs {weight} bytes: {loaded:?}");
    let first = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
    let first: f64 = scene.browser.value(first).await?;
    log_line(format_args!("status page: {weight} bytes, first content after {first:.0} ms"));
    let messages = scene.browser.console().await?;
    ensure!(messages.is_empty(), "messages in the console: {messages:?}");
    scene.served.running.stop(Deadline::seconds(30)).await?;
    Ok(())
}

#[tokio::test]
async fn the_page_can_be_read_on_any_screen_and_used_with_a_keyboard() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    scene.produce().await?;
    scene.shows_records(RECORDS).await?;
    let mut backgrounds = BTreeSet::new();
    for (width, dark) in [(1280, false), (1280, true), (768, false), (360, false), (360, true)] {
        scene.browser.screen(width, 900, dark).await?;
        scene.is_legible(&format!("{width}-{}", if dark { "dark" } else { "light" })).await?;
        let color: String = scene.browser.value("getComputedStyle(document.body).backgroundColor").await?;
        backgrounds.insert((dark, color));
    }
    ensure!(backgrounds.len() == 2, "the background follows the preferred colours: {backgrounds:?}");

    scene.browser.screen(1280, 900, false).await?;
    let mut reached = Vec::new();
    while reached.last().is_none_or(|last| last != "drain") && reached.len() < 40 {
        scene.browser.press(Key::Tab).await?;
        reached.push(scene.browser.value::<String>(FOCUS).await?);
        let outline: String =
            scene.browser.value("getComputedStyle(document.activeElement).outlineStyle").await?;
        ensure!(outline != "none", "the focus on {:?} is visible", reached.last());
        if reached.last().is_some_and(|last| last == "Lag") {
            scene.browser.press(Key::Enter).await?;
            scene.until("document.activeElement.closest('th').ariaSort === 'descending'").await?;
            scene.browser.press(Key::Enter).await?;
            scene.until("document.activeElement.closest('th').ariaSort === 'ascending'").await?;
        }
    }
    for name in ["State", "Lag", "token", "pause", "resume", "drain"] {
        ensure!(reached.iter().any(|reached| reached == name), "{name} by Tab: {reached:?}");
    }
    let messages = scene.browser.console().await?;
    ensure!(messages.is_empty(), "messages in the console: {messages:?}");
    scene.served.running.stop(Deadline::seconds(30)).await?;
    Ok(())
}

#[tokio::test]
async fn actions_need_the_token_and_a_lost_connection_is_shown() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    scene.produce().await?;
    scene.shows_records(RECORDS).await?;
    let click = async |action: &str| {
        let click = format!("document.querySelector('[data-action={action}]').click()");
        scene.browser.value::<Value>(&click).await
    };
    let focus = "document.getElementById('token').focus()";
    let result =
        |text: &str| format!("document.getElementById('action-result').innerText.includes('{text}')");
    scene.browser.value::<Value>(focus).await?;
    scene.browser.write("wrong-horse-battery").await?;
    click("pause").await?;
    scene.until(&result("token")).await?;
    ensure!(!scene.running.handle().status().await.all_paused, "a wrong token pauses nothing");
    scene.browser.value::<Value>("document.getElementById('token').value = ''").await?;
    scene.browser.write(TOKEN).await?;
    click("pause").await?;
    scene.until("document.getElementById('state').innerText === 'paused'").await?;
    click("resume").await?;
    scene.until("document.getElementById('state').innerText === 'healthy'").await?;
    click("drain").await?;
    scene.until("document.querySelector('[data-action=drain]').innerText === 'Press again to stop'").await?;
    click("drain").await?;
    scene.until("document.getElementById('state').innerText === 'ended'").await?;
    let Scene { served, browser } = scene;
    let Served { running, server, .. } = served;
    let report = running.ended(Deadline::seconds(30)).await??;
    let committed: i64 = report.partitions.values().filter_map(|partition| partition.committed).sum();
    ensure!(committed.unsigned_abs() == RECORDS, "{report:?}");
    server.stop();
    let lost = "document.getElementById('lost').checkVisibility()";
    browser.until(Deadline::seconds(30), lost).await.context("after the end of the server")?;
    browser.screenshot("lost").await
}
