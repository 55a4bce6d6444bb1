//! Mutants: defects that tests enable to show that the invariant checker finds them.
//!
//! One mutant is enabled at a time.
//!
//! They exist in the crate's own tests only. Elsewhere [`enabled`] is `false` at compile time.

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests enable mutants"))]
pub(crate) enum Mutant {
    /// The highest finished offset is committed, not the lowest unfinished one.
    CommitsMaximum,
    /// A dead letter finishes the record after its own.
    WrongOffset,
    /// A revoke drops deliveries in flight, with the rows of other partitions in them.
    DropsInFlight,
    /// A rebalance stops partitions that it does not name.
    TearsDownKept,
    /// A lost assignment is drained and committed.
    CommitsLost,
    /// A dead letter counts as finished when it is queued.
    FinishesEarly,
    /// A late report counts for the current assignment.
    AcceptsLateReports,
    /// Offsets are expected without gaps.
    ExpectsDense,
    /// Partitions are drained before the callback returns.
    DrainsInCallback,
    /// Commits lack the metadata in force.
    ForgetsMetadata,
    /// A commit does not wait for the previous one.
    CommitsTwice,
    /// Records that were fetched for an earlier assignment count as the first ones of this one.
    ReadsTooEarly,
    /// E2: commit metadata is accepted without checking its log and offset.
    AcceptsForeignMetadata,
    /// E3: a block is planned and inserted before the dead letters of its records are acknowledged.
    InsertsBeforeDeadLetters,
    /// E4: a rebuilt block is cut short, and inserted under its token without a comparison.
    ChangesRows,
    /// E4: accepted rows are stored before the dead letters of the rejected rows are acknowledged.
    ExcludesRowsEarly,
    /// E4: the dead letter of one row finishes the record before its other rows are stored.
    FinishesWithDeadLetter,
    /// E8: a rebuilt block ends where a new block would.
    EndsAnywhere,
    /// E9: a revoke plans new blocks.
    PlansOnRevoke,
    /// A rebuilt block gets another token than its plan has.
    ChangesToken,
    /// A block is inserted under a token that no plan carries.
    InsertsWithoutPlan,
    /// The plan is committed after the insert has started.
    PlansAfterInsert,
    /// E11: the member commits on after a commit that the broker may apply late.
    CommitsAfterLost,
    /// M1: fetched records are not charged to the memory budget.
    ChargesNothing,
    /// C5: a shutdown drains and commits on, whatever the group reports meanwhile.
    DrainsOvertaken,
    /// A client whose credentials have changed is replaced without a drain.
    RenewsWithoutDrain,
    /// A bounded run ends when its partitions are read, with records that are not mapped.
    EndsUnmapped,
    /// A bounded run ends while a planned block is being rebuilt.
    EndsBeforeReplays,
    /// A bounded run does not read a planned block up to its last record.
    EndsInsideBlocks,
    /// A bounded run reads the end of a partition again at each assignment.
    MovesEnds,
    /// A chosen starting position is not committed.
    ForgetsChosenStart,
    /// C5: the member stays although the group rejects all of its commits.
    StaysWithoutGroup,
    /// C4: a commit that failed permanently is sent again.
    RetriesFailedCommits,
    /// A reset drops records that were read and not mapped, and the commit passes them.
    ResetsBeforeMapping,
    /// A poll that takes items and returns none of them counts as a poll of an empty queue.
    SleepsAfterStrays,
    /// Positions are not compared with the ends of logs.
    IgnoresUnread,
    /// A rejected row that is made of several records becomes the dead letter of the first one, and
    /// finishes the others.
    LosesMergedClaims,
    /// A batch that is split leaves all claims with its first half.
    SplitsWithoutClaims,
    /// A batch that is discarded stays in the reducer, and its rows come again with the records
    /// that are read again.
    KeepsDiscarded,
}

/// Whether a mutant is enabled in this thread.
#[cfg(test)]
pub(crate) fn enabled(mutant: Mutant) -> bool {
    switch::active() == Some(mutant)
}

/// Outside of tests, no mutant is ever enabled.
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

    /// The mutant that is enabled in this thread.
    pub(crate) fn active() -> Option<Mutant> {
        ACTIVE.get()
    }

    /// Enables a mutant in this thread, or disables it.
    #[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only the simulator enables mutants"))]
    pub(crate) fn set(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }
}
