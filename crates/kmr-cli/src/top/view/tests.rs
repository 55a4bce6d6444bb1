//! Screens, compared with files: `screens/NAME-WIDTHxHEIGHT.txt`. With `KMR_WRITE_SCREENS` set, the
//! test writes them.

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use serde_json::json;

use super::*;
use crate::top::fixture;
use crate::top::keys;
use crate::top::problem::Problem;

const COLOURED: Palette = Palette { is_coloured: true };

fn drawn(app: &App, width: u16, height: u16, palette: Palette) -> ratatui::buffer::Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, palette)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(app: &App, width: u16, height: u16) -> String {
    let buffer = drawn(app, width, height, COLOURED);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect::<Vec<_>>().join("\n") + "\n"
}

fn press(app: &mut App, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            key => KeyCode::Char(key),
        };
        let command = keys::command(&KeyEvent::new(code, KeyModifiers::NONE), app.screen());
        command.and_then(|command| app.apply(command));
    }
}

/// Compares a screen with its file.
fn compare(name: &str, app: &App, (width, height): (u16, u16)) {
    let found = text(app, width, height);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/view/screens");
    let path = path.join(format!("{name}-{width}x{height}.txt"));
    if std::env::var_os("KMR_WRITE_SCREENS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{name} differs from {}\n{found}", path.display());
}

#[test]
fn the_list_fits_into_each_width() {
    let app = fixture::app(4);
    for size in [(120, 12), (80, 24), (50, 10)] {
        compare("list", &app, size);
    }
}

#[test]
fn the_detail_view_fits_into_each_width() {
    let app = fixture::app(1);
    for size in [(140, 30), (80, 24), (50, 20), (30, 12)] {
        compare("detail", &app, size);
    }
}

#[test]
fn each_pane_shows_its_rows() {
    let mut app = fixture::app(1);
    for name in ["stages", "deliveries", "errors", "dead-letters", "rebalances"] {
        press(&mut app, "\t");
        compare(name, &app, (80, 18));
    }
}

#[test]
fn help_and_confirmation_lie_over_the_screen() {
    let mut app = fixture::app(2);
    press(&mut app, "?");
    compare("help", &app, (80, 24));
    press(&mut app, "xd");
    compare("confirmation", &app, (80, 24));
}

#[test]
fn a_server_without_a_status_is_explained() {
    let mut app = fixture::app(2);
    press(&mut app, "j\n");
    compare("unreachable", &app, (80, 10));
    let mut app = fixture::app(1);
    app.update(0, Err(Problem::NoAnswer(std::time::Duration::from_secs(5))));
    compare("old-values", &app, (80, 24));
}

#[test]
fn every_size_can_be_drawn() {
    let mut apps = vec![fixture::app(1), fixture::app(5)];
    for keys in ["?", "d", "\t", "\t\t"] {
        let mut app = fixture::app(1);
        press(&mut app, keys);
        apps.push(app);
    }
    for app in &apps {
        for (width, height) in (1..140).step_by(7).flat_map(|w| (1..40).step_by(3).map(move |h| (w, h))) {
            text(app, width, height);
        }
    }
}

#[test]
fn a_thousand_partitions_have_pages() {
    let mut app = fixture::app(1);
    let many = fixture::with(9, |status| {
        let one = |n| json!({ "topic": "a-topic-with-quite-a-long-name-of-a-hundred-names", "partition": n });
        status["partitions"] = (0..1_000).map(one).collect();
    });
    app.update(0, many);
    assert!(text(&app, 80, 24).contains("Partitions 1000"));
    press(&mut app, "G");
    let last = text(&app, 80, 24);
    assert!(last.contains("999: oldest unfinished –"), "{last}");
}

#[test]
fn no_color_leaves_words_and_the_reversed_selection() {
    let app = fixture::app(4);
    let cells = |palette| drawn(&app, 80, 24, palette).content;
    let plain = Palette { is_coloured: false };
    assert!(cells(COLOURED).iter().any(|cell| cell.fg == Color::Red));
    assert!(cells(plain).iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(cells(plain).iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)));
}

#[test]
fn texts_of_a_server_are_drawn_without_control_characters() {
    let mut app = fixture::app(1);
    let evil = "\u{1b}[2J\u{202e}\u{7}";
    app.update(
        0,
        fixture::with(9, |status| {
            for field in ["group", "instance", "state", "reason"] {
                status[field] = json!(evil);
            }
            status["partitions"][0]["topic"] = json!(evil);
            status["stages"][0]["name"] = json!(evil);
        }),
    );
    let text = text(&app, 140, 30);
    assert!(text.contains("\\u{1b}[2J") && !text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
}
