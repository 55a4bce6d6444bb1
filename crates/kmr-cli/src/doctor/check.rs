//! A check: one row of the diagnosis.

use super::facts::Access;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    /// Works, with a limitation that the operator should know.
    Warn,
    /// The consumer will not start, will stop, or will lose the guarantee.
    Fail,
    /// The facts are missing: no failure, and no pass.
    Unknown,
}

/// The result of all checks together, and the exit code that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// No check fails, and at least one is unknown.
    Unknown,
}

impl Verdict {
    pub(super) fn of(checks: &[Check]) -> Self {
        let any = |state| checks.iter().any(|check| check.state == state);
        match () {
            () if any(State::Fail) => Verdict::Failed,
            () if any(State::Unknown) => Verdict::Unknown,
            () => Verdict::Passed,
        }
    }

    /// 2 is the exit code of wrong flags.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Verdict::Passed => 0,
            Verdict::Failed => 1,
            Verdict::Unknown => 3,
        }
    }

    /// The result of several diagnoses: that of the worst one.
    pub(crate) fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().fold(Verdict::Passed, |worst, verdict| match (worst, verdict) {
            (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
            (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
            (Verdict::Passed, Verdict::Passed) => Verdict::Passed,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Unknown => "unknown",
        }
    }
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
            State::Unknown => "unknown",
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    pub(super) found: String,
    /// What to do about it; empty if nothing.
    pub(super) remedy: String,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: String::new() }
    }

    pub(super) fn new(
        name: &'static str,
        state: State,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, state, found: found.into(), remedy: remedy.into() }
    }

    pub(super) fn unknown(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Unknown, found, "")
    }

    /// A permission; `remedy` is the grant that it needs.
    pub(super) fn permission(name: &'static str, access: &Access, remedy: String) -> Self {
        match access {
            Access::Allowed => Self::ok(name, "allowed"),
            Access::Denied => Self::new(name, State::Fail, "not allowed", remedy),
            Access::Unknown(why) => Self::unknown(name, why),
        }
    }
}
