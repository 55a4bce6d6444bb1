//! The state of the screen, and how commands change it.

use super::address::Address;
use super::client::Action;
use super::consumer::Consumer;
use super::keys::{Command, Screen, Step};
use super::problem::Problem;
use super::sort::{self, Sort};
use super::state::Kind;
use super::status::{Answer, PartitionName};

/// A part of the detail view with rows of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Partitions,
    Stages,
    Deliveries,
    Errors,
    DeadLetters,
    Rebalances,
}

impl Pane {
    pub(super) const ALL: [Self; 6] =
        [Self::Partitions, Self::Stages, Self::Deliveries, Self::Errors, Self::DeadLetters, Self::Rebalances];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Partitions => "Partitions",
            Self::Stages => "Stages",
            Self::Deliveries => "Deliveries",
            Self::Errors => "Errors",
            Self::DeadLetters => "Dead letters",
            Self::Rebalances => "Rebalances",
        }
    }

    pub(super) fn rows(self, consumer: &Consumer) -> usize {
        let Some(status) = consumer.status() else { return 0 };
        match self {
            Self::Partitions => status.partitions.len(),
            Self::Stages => status.stages.len(),
            Self::Deliveries => status.deliveries.len(),
            Self::Errors => status.events_of("error").count(),
            Self::DeadLetters => status.events_of("dead_letter").count(),
            Self::Rebalances => status.events_of("rebalance").count(),
        }
    }
}

/// What a command requires of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    /// Send an action to the consumer at this place.
    Act(usize, Action),
}

/// The state of the screen.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) consumers: Vec<Consumer>,
    /// Whether actions have a token.
    has_token: bool,
    /// The place of the selected consumer.
    pub(super) selected: usize,
    pub(super) is_detail: bool,
    pub(super) has_help: bool,
    /// The action that waits for its confirmation, and the place of its consumer.
    pub(super) pending: Option<(usize, Action)>,
    pub(super) pane: Pane,
    pub(super) sort: Sort,
    /// The selected partition. It stays selected when rows change their order.
    partition: Option<PartitionName>,
    /// The selected row of the other panes.
    row: usize,
    /// What became of the last action.
    pub(super) message: Option<(String, Kind)>,
}

impl App {
    pub(super) fn new(addresses: Vec<Address>, has_token: bool) -> Self {
        let consumers: Vec<Consumer> = addresses.into_iter().map(Consumer::new).collect();
        let is_detail = consumers.len() == 1;
        let (pane, sort) = (Pane::default(), Sort::default());
        let (pending, partition, message) = (None, None, None);
        Self {
            consumers,
            has_token,
            selected: 0,
            is_detail,
            has_help: false,
            pending,
            pane,
            sort,
            partition,
            row: 0,
            message,
        }
    }

    pub(super) fn screen(&self) -> Screen {
        match self {
            Self { pending: Some(_), .. } => Screen::Confirmation,
            Self { has_help: true, .. } => Screen::Help,
            Self { is_detail: true, .. } => Screen::Detail,
            _ => Screen::List,
        }
    }

    pub(super) fn current(&self) -> Option<&Consumer> {
        self.consumers.get(self.selected)
    }

    /// Takes over the result of a request.
    pub(super) fn update(&mut self, place: usize, result: Result<Answer, Problem>) {
        if let Some(consumer) = self.consumers.get_mut(place) {
            consumer.update(result);
        }
    }

    pub(super) fn action_ended(&mut self, place: usize, action: Action, result: Result<(), String>) {
        let address = self.consumers.get(place).map_or("", |consumer| consumer.address.text());
        self.message = Some(match result {
            Ok(()) => (format!("{} accepted by {address}", action.name()), Kind::Good),
            Err(why) => (format!("{} not accepted by {address}: {why}", action.name()), Kind::Bad),
        });
    }

    /// Carries out a command.
    pub(super) fn apply(&mut self, command: Command) -> Option<Effect> {
        self.message = None;
        match command {
            Command::Quit => return Some(Effect::Quit),
            Command::Help => self.has_help = true,
            Command::Open => (self.is_detail, self.row) = (true, 0),
            Command::Back => self.back(),
            Command::NextPane => self.turn_to(1),
            Command::PreviousPane => self.turn_to(Pane::ALL.len() - 1),
            Command::NextConsumer => self.consumer(1),
            Command::PreviousConsumer => self.consumer(self.consumers.len().saturating_sub(1)),
            Command::NextSort => self.sort = self.sort.next(1),
            Command::PreviousSort => self.sort = self.sort.previous(),
            Command::Move(step) => self.select(step),
            Command::Request(action) => self.request(action),
            Command::Confirm => {
                return self.pending.take().map(|(place, action)| Effect::Act(place, action));
            }
        }
        None
    }

    fn back(&mut self) {
        if self.pending.take().is_some() {
            self.message = Some(("nothing was sent".to_owned(), Kind::Calm));
        } else if self.has_help {
            self.has_help = false;
        } else if self.consumers.len() > 1 {
            self.is_detail = false;
        }
    }

    fn turn_to(&mut self, steps: usize) {
        let at = Pane::ALL.iter().position(|pane| *pane == self.pane).unwrap_or(0);
        (self.pane, self.row) = (Pane::ALL[(at + steps) % Pane::ALL.len()], 0);
    }

    /// Goes on to another consumer, in the order of the list.
    fn consumer(&mut self, steps: usize) {
        let order = sort::consumers(&self.consumers, self.sort);
        let at = order.iter().position(|place| *place == self.selected).unwrap_or(0);
        if let Some(place) = order.get((at + steps) % order.len().max(1)) {
            (self.selected, self.row, self.partition) = (*place, 0, None);
        }
    }

    fn select(&mut self, step: Step) {
        if !self.is_detail {
            let order = sort::consumers(&self.consumers, self.sort);
            let at = order.iter().position(|place| *place == self.selected).unwrap_or(0);
            if let Some(place) = order.get(moved(at, step, order.len())) {
                self.selected = *place;
            }
        } else if self.pane == Pane::Partitions {
            let row = moved(self.selected_row(), step, self.rows());
            let name = self.partitions_in_order().get(row).map(|partition| partition.name.clone());
            self.partition = name;
        } else {
            self.row = moved(self.selected_row(), step, self.rows());
        }
    }

    fn request(&mut self, action: Action) {
        let offers = self.current().and_then(Consumer::current).map(|status| status.actions);
        let why = match offers {
            None => "the status server does not answer",
            Some(false) => "actions are off there. Give the status server a token",
            Some(true) if !self.has_token => "actions need a token: --token-file, or KMR_STATUS_TOKEN",
            Some(true) => {
                self.pending = Some((self.selected, action));
                return;
            }
        };
        self.message = Some((format!("{}: {why}", action.name()), Kind::Warn));
    }

    fn rows(&self) -> usize {
        self.current().map_or(0, |consumer| self.pane.rows(consumer))
    }

    /// The selected row of the pane.
    pub(super) fn selected_row(&self) -> usize {
        match (&self.partition, self.pane) {
            (Some(name), Pane::Partitions) => {
                self.partitions_in_order().iter().position(|one| one.name == *name).unwrap_or(0)
            }
            (None, Pane::Partitions) => 0,
            _ => self.row.min(self.rows().saturating_sub(1)),
        }
    }

    /// The partitions of the selected consumer.
    pub(super) fn partitions_in_order(&self) -> Vec<&super::status::Partition> {
        let Some(consumer) = self.current() else { return Vec::new() };
        let status = consumer.status();
        status.map_or_else(Vec::new, |status| sort::partitions(status, &consumer.history, self.sort))
    }
}

fn moved(at: usize, step: Step, rows: usize) -> usize {
    let last = rows.saturating_sub(1);
    match step {
        Step::Up(rows) => at.saturating_sub(rows),
        Step::Down(rows) => at.saturating_add(rows).min(last),
        Step::First => 0,
        Step::Last => last,
    }
}

#[cfg(test)]
mod tests;
