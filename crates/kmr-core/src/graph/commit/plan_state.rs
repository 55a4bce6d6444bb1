//! What the committer knows of one assignment's marks in exactly-once mode: the epoch, the open plan, what the group has in force.
//!
//! Invariants (rules of ARCHITECTURE.md, "Exactly once"):
//! * E1: one plan is open at most. While it is, the offset stays at its first and every commit carries it; with none open every
//!   commit carries an idle mark.
//! * E2: an offset is taken up only with a mark that was made for it, by this log's readers.
//! * E3: a plan is committed when everything observed up to its last record is finished, but for what the block itself holds. So dead
//!   letters are acknowledged before their block is planned, and a block that is made again is whole.
//! * A plan that nobody waits for any more is not committed, unless the request is out already.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::offset_tracker::{OffsetRange, OffsetTracker};
use crate::commit_metadata::{Idle, Mark, NoMark, Plan};
use crate::error::Error;
use crate::log_id::{LogAt, LogId};
use crate::record::TopicPartition;
use crate::util::mutants::{Mutant, enabled};

/// What a block task has to know of an assignment before it makes blocks of its records.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub(crate) log: LogId,
    pub(crate) epoch: i64,
    /// The plan that is in force: the first block has to be this one.
    pub(crate) plan: Option<Arc<Plan>>,
    /// A time in milliseconds since the Unix epoch, and the same time by the runtime's clock.
    clock: (i64, Instant),
}

impl Beginning {
    /// Milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        let (millis, at) = self.clock;
        millis.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// A plan that is to be committed, or that is in force and whose block has to be whole.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) plan: Arc<Plan>,
    /// The records that the block holds.
    pub(crate) held: Vec<OffsetRange>,
    /// Told when the plan is in force and nothing but the block is unfinished up to its last record. Dropped: neither will be.
    pub(crate) reply: oneshot::Sender<()>,
}

/// How an assignment begins.
pub(crate) struct Begins {
    pub(crate) log: Option<LogAt>,
    /// The offset that it starts from; `None`: the lowest of the log.
    pub(crate) offset: Option<i64>,
    /// The group had committed nothing.
    pub(crate) chosen: bool,
    pub(crate) metadata: Option<Arc<str>>,
}

/// How far a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Something else than its block is unfinished.
    Waits,
    /// It is to be committed.
    Ready,
    /// It is in force.
    Committed,
}

#[derive(Debug)]
struct Open {
    plan: Arc<Plan>,
    text: Arc<str>,
    held: Vec<OffsetRange>,
    state: State,
    /// A block task knows of it: it is not passed before its block is done.
    known: bool,
    reply: Option<oneshot::Sender<()>>,
}

impl Open {
    fn is_wanted(&self) -> bool {
        enabled(Mutant::PlansAfterInsert) || self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn is_passed(&self, watermark: Option<i64>) -> bool {
        watermark.is_some_and(|watermark| watermark > self.plan.last)
    }
}

/// The marks of one assignment.
#[derive(Debug)]
pub(crate) struct Marks {
    log: LogAt,
    began: Instant,
    epoch: i64,
    open: Option<Open>,
    /// What is committed with the offset that is committed.
    in_force: Option<Arc<str>>,
}

impl Marks {
    /// E2: whether an assignment may begin here.
    ///
    /// # Errors
    /// It may not: what is committed is not this log's, or not kmr's; or the block that is planned is larger than `budget`, in bytes (E8).
    pub(crate) fn judge(partition: &TopicPartition, begins: Begins, budget: u64) -> Result<Self, Error> {
        let Begins { log, offset, chosen, metadata } = begins;
        let Some(log) = log else {
            let what = format!("{partition} was assigned without the ids of its log");
            return Err(Error::Internal { message: what });
        };
        let foreign =
            |problem: String| Error::ForeignOffset { partition: partition.clone(), offset, problem };
        let marks = |epoch, open| Self {
            epoch,
            open,
            began: Instant::now(),
            in_force: metadata.clone(),
            log: log.clone(),
        };
        let Some(text) = &metadata else {
            // Epochs are times: what a group of the same name did before it was deleted was another one.
            return if chosen {
                Ok(marks(log.millis, None))
            } else {
                Err(foreign("it has no metadata".to_owned()))
            };
        };
        let mark = Mark::parse(text).map_err(|no_mark| {
            foreign(match no_mark {
                NoMark::Foreign => "its metadata is not of this version of kmr".to_owned(),
                NoMark::Damaged => "its metadata is damaged".to_owned(),
            })
        })?;
        if let Some(problem) = mark.problem(&log.id, offset).filter(|_| !enabled(Mutant::HonoursForeign)) {
            return Err(foreign(problem));
        }
        Ok(match mark {
            Mark::Idle(idle) => marks(idle.epoch, None),
            // One record is always admitted, however large.
            Mark::Plan(plan) if plan.budget > budget && plan.first < plan.last => {
                return Err(Error::Config(format!(
                    "memory_budget: the block of {partition} that is planned from offset {} to {} takes {} bytes, and {budget} are there for \
                     records; raise it to what it was when the block was planned",
                    plan.first, plan.last, plan.budget
                )));
            }
            Mark::Plan(plan) => {
                let (epoch, text) = (plan.epoch, text.clone());
                let plan = Arc::new(plan);
                let open =
                    Open { plan, text, held: Vec::new(), state: State::Committed, known: false, reply: None };
                marks(epoch, Some(open))
            }
        })
    }

    pub(crate) fn beginning(&self) -> Beginning {
        Beginning {
            log: self.log.id.clone(),
            epoch: self.epoch,
            plan: self.open.as_ref().map(|open| open.plan.clone()),
            clock: (self.log.millis, self.began),
        }
    }

    /// What is committed with the offset that is committed.
    pub(crate) fn in_force(&self) -> Option<Arc<str>> {
        self.in_force.clone()
    }

    /// The log, with the time of now.
    pub(crate) fn log(&self) -> LogAt {
        LogAt { id: self.log.id.clone(), millis: self.beginning().now() }
    }

    /// Takes a plan: a new one, or the one in force, with the block that has been made again so far.
    ///
    /// # Errors
    /// Another one is open (E1).
    pub(crate) fn propose(&mut self, proposal: Proposal, tracker: &OffsetTracker) -> Result<(), String> {
        let Proposal { plan, held, reply } = proposal;
        let reply = Some(reply);
        match &mut self.open {
            Some(open) if open.plan == plan && open.state == State::Committed => {
                (open.held, open.reply, open.known) = (held, reply, true);
            }
            Some(open) if open.state == State::Committed && !open.is_passed(tracker.watermark()) => {
                return Err(format!(
                    "a plan up to {} is open, and one up to {} is to be",
                    open.plan.last, plan.last
                ));
            }
            _ => {
                let text = plan.text();
                self.open = Some(Open { plan, text, held, state: State::Waits, known: true, reply });
            }
        }
        Ok(())
    }

    /// Looks how far the open plan is; `is_out`: a commit of this partition is unanswered. `true`: it is to be committed from now on.
    pub(crate) fn look(&mut self, tracker: &OffsetTracker, is_out: bool) -> bool {
        let Some(open) = &mut self.open else { return false };
        if open.state != State::Committed && !is_out && !open.is_wanted() {
            self.open = None;
            return false;
        }
        let alone =
            || enabled(Mutant::InsertsBeforeLetters) || tracker.is_finished_but(open.plan.last, &open.held);
        match open.state {
            State::Waits if alone() => {
                open.state = State::Ready;
                if enabled(Mutant::InsertsWithoutPlan) || enabled(Mutant::PlansAfterInsert) {
                    open.reply.take().map(|reply| reply.send(()));
                }
                !enabled(Mutant::InsertsWithoutPlan)
            }
            State::Committed if open.reply.is_some() && alone() => {
                open.reply.take().map(|reply| reply.send(()));
                false
            }
            _ => false,
        }
    }

    /// Whether there is something to look for.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.state != State::Committed || open.reply.is_some())
    }

    /// The plan in force whose records are all finished without a block of them: none has a row any more.
    pub(crate) fn missed(&self, tracker: &OffsetTracker) -> Option<&Plan> {
        let is_missed = |open: &&Open| {
            let gone = open.is_passed(tracker.watermark()) || tracker.is_finished_but(open.plan.last, &[]);
            !open.known && gone
        };
        self.open.as_ref().filter(is_missed).map(|open| &*open.plan)
    }

    /// What is to be committed next, if there is something new.
    pub(crate) fn due(&self, watermark: Option<i64>, committed: Option<i64>) -> Option<(i64, Arc<str>)> {
        if let Some(open) = self.open.as_ref().filter(|open| !open.is_passed(watermark)) {
            match open.state {
                State::Ready if open.is_wanted() => return Some((open.plan.first, open.text.clone())),
                State::Committed => return None,
                State::Ready | State::Waits => {}
            }
        }
        let offset =
            watermark.filter(|watermark| committed.is_none_or(|committed| *watermark > committed))?;
        Some((offset, Idle { log: self.log.id.clone(), epoch: self.epoch, offset }.text()))
    }

    /// That text is in force now.
    pub(crate) fn committed(&mut self, text: Option<&Arc<str>>) {
        self.in_force = text.cloned();
        let Some(open) = &mut self.open else { return };
        if text == Some(&open.text) {
            open.state = State::Committed;
            open.reply.take().map(|reply| reply.send(()));
        } else if open.state == State::Committed {
            // Only what is behind its last record is committed over an open plan.
            self.open = None;
        }
    }
}
