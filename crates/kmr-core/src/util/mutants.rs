//! Defects that are enabled, one at a time, to show that the simulation's judge would see them. In the crate's own tests only:
//! everywhere else [`enabled`] is `false` at compile time, and there is nothing to switch.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "switched on by tests alone"))]
pub(crate) enum Mutant {
    /// The highest finished offset is committed, not the lowest unfinished one.
    CommitsMaximum,
    /// A dead letter answers for the record behind its own.
    WrongOffset,
    /// A revoke drops deliveries in flight, with what they hold of other partitions.
    DropsInFlight,
    /// A rebalance ends partitions that stay.
    TearsDownKept,
    /// A lost assignment is drained and committed.
    CommitsLost,
    /// A dead letter counts as finished when it is queued.
    FinishesEarly,
    /// A late report counts for the assignment of today.
    AcceptsLateReports,
    /// Offsets are taken to be dense.
    ExpectsDense,
    /// Partitions are drained before the callback returns.
    DrainsInCallback,
    /// Commits go without the metadata in force.
    ForgetsMetadata,
    /// A commit does not wait for the one before.
    CommitsTwice,
    /// Records that were fetched for an earlier assignment are taken for the first ones of this one.
    ReadsTooEarly,
    /// E2: a mark is honoured whatever log and offset it was made for.
    AcceptsForeignMetadata,
    /// E3: a block is planned and inserted while dead letters of its records are on their way.
    InsertsBeforeDeadLetters,
    /// E4: a block that is made again is cut short, and inserted under the stored token without being compared.
    ChangesRows,
    /// E4: what the sink has not refused is stored before the dead letters of the rest are acknowledged.
    ExcludesRowsEarly,
    /// E4: a record of a block is finished by the dead letter of one of its rows, before the others are stored.
    FinishesWithDeadLetter,
    /// E8: a block that is made again ends where any other would.
    EndsAnywhere,
    /// E9: a revoke plans new blocks.
    PlansOnRevoke,
    /// A block that is made again gets another token than it was planned with.
    ChangesToken,
    /// A block is inserted under a token that no plan carries.
    InsertsWithoutPlan,
    /// The plan is committed when the insert has begun.
    PlansAfterInsert,
}

/// Whether a defect is switched on in this thread.
#[cfg(test)]
pub(crate) fn enabled(defect: Mutant) -> bool {
    switch::active() == Some(defect)
}

/// Outside of tests nothing ever is.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn enabled(_: Mutant) -> bool {
    false
}

#[cfg(test)]
pub(crate) mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// The defect that is switched on in this thread.
    pub(crate) fn active() -> Option<Mutant> {
        ACTIVE.get()
    }

    /// Switches a defect on or off in this thread.
    #[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "the simulation is what switches it"))]
    pub(crate) fn set(defect: Option<Mutant>) {
        ACTIVE.set(defect);
    }
}
