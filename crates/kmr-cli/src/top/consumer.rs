//! One consumer that is shown: its last status, and why there is no newer one.

use super::address::Address;
use super::history::History;
use super::problem::Problem;
use super::state::{self, Kind};
use super::status::{Answer, Status};

#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) address: Address,
    /// The last answer, also if later requests failed.
    pub(super) answer: Option<Answer>,
    /// Why the last request had no status.
    pub(super) problem: Option<Problem>,
    pub(super) history: History,
}

impl Consumer {
    pub(super) fn new(address: Address) -> Self {
        Self { address, answer: None, problem: None, history: History::default() }
    }

    pub(super) fn update(&mut self, result: Result<Answer, Problem>) {
        match result {
            Ok(answer) => {
                self.history.add(&answer.status);
                (self.answer, self.problem) = (Some(answer), None);
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// The last status. It is old if there is a problem.
    pub(super) fn status(&self) -> Option<&Status> {
        self.answer.as_ref().map(|answer| &answer.status)
    }

    /// The status, if it is of now.
    pub(super) fn current(&self) -> Option<&Status> {
        self.status().filter(|_| self.problem.is_none())
    }

    /// The state in a word.
    pub(super) fn word(&self) -> &str {
        match (&self.problem, self.status()) {
            (Some(problem), _) => problem.word(),
            (None, Some(status)) => state::state(status).0,
            (None, None) => "…",
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match (&self.problem, self.status()) {
            (Some(_), _) => Kind::Bad,
            (None, Some(status)) => state::state(status).1,
            (None, None) => Kind::Calm,
        }
    }

    /// The group and the instance, if they are known.
    pub(super) fn name(&self) -> Option<String> {
        let status = self.status()?;
        let group = match status.group.as_str() {
            "" => "without a group",
            group => group,
        };
        Some(match &status.instance {
            Some(instance) => format!("{group} {}", instance.as_str()),
            None => group.to_owned(),
        })
    }

    /// One sentence about how it is.
    pub(super) fn reason(&self) -> String {
        match (&self.problem, self.status()) {
            (Some(problem), Some(_)) => format!("{problem}. The values are old"),
            (Some(problem), None) => problem.to_string(),
            (None, Some(status)) => status.reason.as_str().to_owned(),
            (None, None) => "No answer yet.".to_owned(),
        }
    }
}
