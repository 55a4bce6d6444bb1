//! The faults: what each does, how long it lasts, and how it is repaired.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use integration_tests::{Deadline, LinkState, Signal};

use super::stage::{SESSION, Stage};
use crate::scene::TABLE;

/// More free space than any volume has.
const NO_SPACE: u64 = 1 << 60;
/// Below what ClickHouse uses, so the kernel reclaims its pages, fails its allocations or kills it.
const LITTLE_MEMORY: u64 = 260 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    ConsumerKilled,
    ConsumerEnded,
    ConsumerFrozen,
    ConsumerClockJumps,
    BrokerKilled,
    BrokerStopped,
    BrokerCut,
    BrokerDelayed,
    BrokerSilent,
    ClickHouseKilled,
    ClickHouseStopped,
    ClickHouseFrozen,
    ClickHouseCut,
    ClickHouseDelayed,
    ClickHouseSilent,
    DiskFull,
    LittleMemory,
}

impl Fault {
    pub(super) const ALL: [Self; 17] = [
        Self::ConsumerKilled,
        Self::ConsumerEnded,
        Self::ConsumerFrozen,
        Self::ConsumerClockJumps,
        Self::BrokerKilled,
        Self::BrokerStopped,
        Self::BrokerCut,
        Self::BrokerDelayed,
        Self::BrokerSilent,
        Self::ClickHouseKilled,
        Self::ClickHouseStopped,
        Self::ClickHouseFrozen,
        Self::ClickHouseCut,
        Self::ClickHouseDelayed,
        Self::ClickHouseSilent,
        Self::DiskFull,
        Self::LittleMemory,
    ];

    /// Causes the fault, waits, and repairs it.
    pub(super) async fn happen(self, stage: &mut Stage) -> Result<()> {
        let pause = Duration::from_millis(stage.random.u64(500..4_000));
        let one = stage.random.usize(..stage.consumers.len());
        match self {
            Self::ConsumerKilled => stage.replace(one, Signal::Kill).await,
            Self::ConsumerEnded => stage.replace(one, Signal::Terminate).await,
            Self::ConsumerFrozen => {
                let frozen = stage.consumers[one].signal(Signal::Stop);
                tokio::time::sleep(SESSION + Duration::from_secs(3)).await;
                frozen.and_then(|()| stage.consumers[one].signal(Signal::Continue))
            }
            Self::ConsumerClockJumps => {
                for offset in ["+36000", "-36000", "+0"] {
                    stage.set_clocks(offset)?;
                    tokio::time::sleep(pause / 2).await;
                }
                Ok(())
            }
            Self::BrokerKilled | Self::BrokerStopped => {
                let kafka = &stage.kafka;
                if self == Self::BrokerKilled {
                    kafka.kill().await?;
                } else {
                    kafka.stop().await?;
                }
                tokio::time::sleep(pause).await;
                Ok(kafka.start().await?)
            }
            Self::BrokerCut => stage.broker_link.interrupt(LinkState::Cut, pause).await,
            Self::BrokerDelayed => stage.broker_link.interrupt(LinkState::Delayed(pause / 10), pause).await,
            Self::BrokerSilent => stage.broker_link.interrupt(LinkState::Silent, pause).await,
            Self::ClickHouseKilled | Self::ClickHouseStopped => {
                let clickhouse = &stage.clickhouse;
                if self == Self::ClickHouseKilled {
                    clickhouse.kill().await?;
                } else {
                    clickhouse.stop().await?;
                }
                tokio::time::sleep(pause).await;
                Ok(clickhouse.start().await?)
            }
            Self::ClickHouseFrozen => {
                stage.clickhouse.pause().await?;
                tokio::time::sleep(pause).await;
                Ok(stage.clickhouse.unpause().await?)
            }
            Self::ClickHouseCut => stage.clickhouse_link.interrupt(LinkState::Cut, pause).await,
            Self::ClickHouseDelayed => {
                stage.clickhouse_link.interrupt(LinkState::Delayed(pause / 10), pause).await
            }
            Self::ClickHouseSilent => stage.clickhouse_link.interrupt(LinkState::Silent, pause).await,
            Self::DiskFull => {
                // ClickHouse compares the free space of the volume with this before each insert.
                let setting = "min_free_disk_bytes_to_perform_insert";
                let database = &stage.scene.database;
                database.exec(&format!("ALTER TABLE {TABLE} MODIFY SETTING {setting} = {NO_SPACE}")).await?;
                tokio::time::sleep(pause).await;
                Ok(database.exec(&format!("ALTER TABLE {TABLE} RESET SETTING {setting}")).await?)
            }
            Self::LittleMemory => {
                stage.clickhouse.limit_memory(LITTLE_MEMORY).await?;
                tokio::time::sleep(pause).await;
                stage.clickhouse.limit_memory(8 << 30).await?;
                let answers = tokio::time::timeout(Duration::from_secs(5), stage.clickhouse.version()).await;
                if !matches!(answers, Ok(Ok(_))) {
                    // The kernel has killed it, or it has ended itself.
                    stage.clickhouse.kill().await.ok();
                    stage.clickhouse.start().await?;
                }
                Ok(())
            }
        }
        .with_context(|| format!("causing or repairing: {self}"))?;
        stage.restart_ended(Deadline::seconds(30)).await
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsumerKilled => "a consumer is killed (SIGKILL)",
            Self::ConsumerEnded => "a consumer is ended (SIGTERM)",
            Self::ConsumerFrozen => "a consumer is frozen past its session (SIGSTOP)",
            Self::ConsumerClockJumps => "the clocks of the consumers jump by ten hours",
            Self::BrokerKilled => "the broker is killed",
            Self::BrokerStopped => "the broker is stopped",
            Self::BrokerCut => "connections to the broker are cut",
            Self::BrokerDelayed => "connections to the broker are slow",
            Self::BrokerSilent => "connections to the broker are half-open",
            Self::ClickHouseKilled => "ClickHouse is killed",
            Self::ClickHouseStopped => "ClickHouse is stopped",
            Self::ClickHouseFrozen => "ClickHouse is frozen",
            Self::ClickHouseCut => "connections to ClickHouse are cut",
            Self::ClickHouseDelayed => "connections to ClickHouse are slow",
            Self::ClickHouseSilent => "connections to ClickHouse are half-open",
            Self::DiskFull => "ClickHouse's volume has no space",
            Self::LittleMemory => "ClickHouse's memory is limited",
        })
    }
}
