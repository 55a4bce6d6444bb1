//! The values of labels that kmr itself decides.

/// Why a batch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushCause {
    /// It has `max_rows` rows.
    Rows,
    /// It has `max_bytes` bytes.
    Bytes,
    /// It is `max_age` old.
    Age,
    /// The memory budget is used up.
    Memory,
    /// Its partitions leave this consumer, by a rebalance or at shutdown.
    Drain,
    /// The stages upstream have ended.
    End,
    /// A task waits for these dead letters.
    Demand,
    /// Exactly-once mode: the block was planned earlier.
    Replay,
}

/// What a consumer spends time on.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "two phases are added by the recorder"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The intake waits for records.
    FetchWait,
    /// The intake waits for room in the memory budget.
    MemoryWait,
    /// Map tasks run the map stages.
    Map,
    /// Reducers accept rows and close batches.
    Reduce,
    /// Batches are on their way to the sink.
    Deliver,
    /// A commit has no response yet.
    Commit,
}

/// How an attempt of a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    Delivered,
    /// Exactly-once mode: rows of a planned block are rejected, and nothing is stored.
    Rejected,
    Retryable,
    Fatal,
    Timeout,
    Panic,
}

#[cfg(feature = "metrics")]
impl FlushCause {
    pub(super) const ALL: [Self; 8] = [
        Self::Rows,
        Self::Bytes,
        Self::Age,
        Self::Memory,
        Self::Drain,
        Self::End,
        Self::Demand,
        Self::Replay,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Drain => "drain",
            Self::End => "end",
            Self::Demand => "demand",
            Self::Replay => "replay",
        }
    }
}

#[cfg(feature = "metrics")]
impl Phase {
    pub(super) const ALL: [Self; 6] =
        [Self::FetchWait, Self::MemoryWait, Self::Map, Self::Reduce, Self::Deliver, Self::Commit];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FetchWait => "fetch_wait",
            Self::MemoryWait => "memory_wait",
            Self::Map => "map",
            Self::Reduce => "reduce",
            Self::Deliver => "deliver",
            Self::Commit => "commit",
        }
    }
}

#[cfg(feature = "metrics")]
impl AttemptOutcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Retryable => "retryable",
            Self::Fatal => "fatal",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
        }
    }
}
