//! What keys do to the state of the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::*;
use crate::top::fixture;
use crate::top::keys::{self, Screen};

fn press(app: &mut App, keys: &[KeyCode]) -> Option<Effect> {
    let mut effect = None;
    for key in keys {
        let key = KeyEvent::new(*key, KeyModifiers::NONE);
        effect = keys::command(&key, app.screen()).and_then(|command| app.apply(command));
    }
    effect
}

fn chars(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

fn message(app: &App) -> &str {
    app.message.as_ref().map_or("", |(text, _)| text)
}

#[test]
fn one_consumer_needs_no_list() {
    let mut app = fixture::app(1);
    assert_eq!(app.screen(), Screen::Detail);
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!(app.screen(), Screen::Detail);
    assert_eq!(press(&mut app, &chars("q")), Some(Effect::Quit));
}

#[test]
fn consumers_are_opened_from_the_list_in_its_order() {
    let mut app = fixture::app(4);
    assert_eq!((app.screen(), app.selected), (Screen::List, 0));
    press(&mut app, &[KeyCode::Down]);
    assert_eq!(app.selected, 1, "unreachable, as bad as a late one");
    press(&mut app, &[KeyCode::End, KeyCode::Enter]);
    assert_eq!((app.screen(), app.selected), (Screen::Detail, 3));
    press(&mut app, &[KeyCode::Right]);
    assert_eq!(app.selected, 0, "after the last comes the first");
    press(&mut app, &[KeyCode::Left, KeyCode::Esc, KeyCode::Home]);
    assert_eq!((app.screen(), app.selected), (Screen::List, 0));
}

#[test]
fn a_selected_partition_stays_selected_when_the_order_changes() {
    let mut app = fixture::app(1);
    let numbers = |app: &App| -> Vec<i64> {
        app.partitions_in_order().iter().map(|partition| partition.name.partition).collect()
    };
    assert_eq!(numbers(&app), [2, 0, 1, 3]);
    press(&mut app, &chars("jj"));
    assert_eq!(app.selected_row(), 2);
    press(&mut app, &chars("ssss"));
    assert_eq!((numbers(&app), app.selected_row(), app.sort), (vec![0, 1, 2, 3], 1, Sort::Name));
    press(&mut app, &chars("S"));
    assert_eq!(app.sort, Sort::Rate);
    let revoked = fixture::with(5, |status| status["partitions"] = json!([]));
    app.update(0, revoked);
    assert_eq!(app.selected_row(), 0, "revoked");
    press(&mut app, &chars("jkG"));
    assert_eq!(app.selected_row(), 0);
}

#[test]
fn panes_are_reached_both_ways() {
    let mut app = fixture::app(1);
    for pane in Pane::ALL.into_iter().skip(1).chain([Pane::Partitions]) {
        press(&mut app, &[KeyCode::Tab]);
        assert_eq!((app.pane, app.selected_row()), (pane, 0));
    }
    press(&mut app, &[KeyCode::BackTab]);
    assert_eq!(app.pane, Pane::Rebalances);
    press(&mut app, &chars("jjj"));
    assert_eq!(app.selected_row(), 0, "there is one row");
}

#[test]
fn actions_wait_for_a_confirmation() {
    let mut app = fixture::app(3);
    assert_eq!(press(&mut app, &chars("d")), None);
    assert_eq!((app.screen(), app.pending), (Screen::Confirmation, Some((0, Action::Drain))));
    assert_eq!(press(&mut app, &[KeyCode::Enter, KeyCode::Char('q')]), None);
    assert_eq!((app.pending, message(&app)), (None, "nothing was sent"));
    assert_eq!(press(&mut app, &chars("py")), Some(Effect::Act(0, Action::Pause)));
    assert_eq!(press(&mut app, &chars("ry")), Some(Effect::Act(0, Action::Resume)));
    app.action_ended(0, Action::Resume, Ok(()));
    assert_eq!(message(&app), "resume accepted by 10.0.0.0:9464");
    app.action_ended(0, Action::Drain, Err("wrong token".to_owned()));
    assert_eq!(message(&app), "drain not accepted by 10.0.0.0:9464: wrong token");
    press(&mut app, &chars("j"));
    assert_eq!(message(&app), "", "the next key clears it");
}

#[test]
fn a_confirmation_is_for_the_consumer_that_it_names() {
    let mut app = fixture::app(3);
    press(&mut app, &chars("p"));
    // The order of the list changes under the question.
    app.update(2, Err(Problem::NoStatus));
    assert_eq!(press(&mut app, &chars("y")), Some(Effect::Act(0, Action::Pause)));
}

#[test]
fn actions_that_cannot_be_are_explained() {
    let mut app = fixture::app(2);
    let without = App { has_token: false, ..app.clone() };
    press(&mut app, &chars("jp"));
    assert_eq!(message(&app), "pause: the status server does not answer");
    let mut app = without;
    press(&mut app, &chars("p"));
    assert!(message(&app).contains("--token-file") && app.pending.is_none(), "{}", message(&app));
    app.update(0, fixture::with(9, |status| status["actions"] = json!(false)));
    press(&mut app, &chars("d"));
    assert!(message(&app).contains("actions are off"), "{}", message(&app));
}

#[test]
fn a_server_that_goes_away_and_recovers_keeps_its_last_values() {
    let mut app = fixture::app(1);
    app.update(0, Err(Problem::Unreachable("timed out".to_owned())));
    let consumer = app.current().unwrap();
    assert_eq!(consumer.word(), "unreachable");
    assert!(consumer.status().is_some() && consumer.current().is_none());
    assert!(consumer.reason().contains("timed out") && consumer.reason().ends_with("The values are old"));
    app.update(0, fixture::with(9, |_| {}));
    assert_eq!(app.current().unwrap().word(), "late");
}

#[test]
fn help_is_closed_by_any_key() {
    let mut app = fixture::app(2);
    press(&mut app, &chars("?"));
    assert_eq!(app.screen(), Screen::Help);
    assert_eq!(press(&mut app, &chars("q")), None);
    assert_eq!(app.screen(), Screen::List);
}
