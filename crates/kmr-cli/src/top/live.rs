//! The loop: keys, statuses and signals change the state, and the state is drawn.

use std::process::ExitCode;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::address::Address;
use super::app::{App, Effect};
use super::keys;
use super::screen::Screen;
use super::token::Token;
use super::view::{self, Palette};
use super::watch::{Update, Watch};

/// How soon the thread that reads keys sees that the loop has ended.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// Shows the consumers until the user quits, or a signal comes.
pub(super) async fn live(
    addresses: Vec<Address>,
    interval: Duration,
    token: Option<Token>,
) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let (updates, mut updated) = mpsc::channel(64);
    let mut watch = Watch::start(&addresses, interval, updates);
    let mut app = App::new(addresses, token.is_some());
    let palette = Palette::of_environment();
    let mut screen = Screen::open()?;
    let mut keys = read_keys();
    loop {
        screen.draw(|frame| view::draw(frame, &app, palette))?;
        tokio::select! {
            Some(update) = updated.recv() => match update {
                Update::Status(place, result) => app.update(place, *result),
                Update::Acted(place, action, result) => app.action_ended(place, action, result),
            },
            event = keys.recv() => match event {
                // Another event, such as a new size, needs a new drawing alone.
                Some(Ok(event)) => match effect(&mut app, &event) {
                    Some(Effect::Quit) => return Ok(ExitCode::SUCCESS),
                    Some(Effect::Act(place, action)) => {
                        if let Some(token) = token.clone() {
                            watch.act(place, action, token);
                        }
                    }
                    None => {}
                },
                Some(Err(error)) => return Err(anyhow::Error::from(error).context("keys cannot be read")),
                None => return Ok(ExitCode::SUCCESS),
            },
            error = watch.failed() => return Err(error),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = hangup.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn effect(app: &mut App, event: &Event) -> Option<Effect> {
    let Event::Key(key) = event else { return None };
    let command = keys::command(key, app.screen())?;
    app.apply(command)
}

/// Reads events of the terminal on a thread that may block.
fn read_keys() -> mpsc::Receiver<std::io::Result<Event>> {
    let (events, received) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !events.is_closed() {
            let event = match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let is_end = event.is_err();
            if events.blocking_send(event).is_err() || is_end {
                return;
            }
        }
    });
    received
}
