//! The rebalance protocols, and how a row runs in all of them.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use integration_tests::consumer::Settings;

use super::figures::Figures;

/// How the group rebalances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Classic, `range`.
    Eager,
    /// Classic, `cooperative-sticky`.
    Cooperative,
    /// `group.protocol=consumer`.
    Kip848,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Eager, Self::Cooperative, Self::Kip848];

    /// A member notices a rebalance at a heartbeat, and loses its session this long after the last
    /// one. With KIP-848 both are settings of the broker.
    pub(super) fn settings(self, settings: Settings, session: Duration) -> Settings {
        let session = session.as_millis().to_string();
        let classic = |strategy| {
            let settings = settings.clone().kafka("partition.assignment.strategy", strategy);
            settings.kafka("session.timeout.ms", &session).kafka("heartbeat.interval.ms", "500")
        };
        match self {
            Self::Eager => classic("range"),
            Self::Cooperative => classic("cooperative-sticky"),
            Self::Kip848 => settings.kafka("group.protocol", "consumer"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eager => "eager",
            Self::Cooperative => "cooperative",
            Self::Kip848 => "KIP-848",
        })
    }
}

/// Runs a row in all protocols at once. The results have the order of [`Protocol::ALL`].
pub(crate) async fn in_all_protocols(row: impl AsyncFn(Protocol) -> Result<Figures>) -> [Result<Figures>; 3] {
    let (eager, cooperative, kip_848) =
        tokio::join!(row(Protocol::Eager), row(Protocol::Cooperative), row(Protocol::Kip848));
    [eager, cooperative, kip_848]
}
