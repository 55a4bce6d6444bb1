//! The outcome of a row: compares the produced records with the table and the commits, and measures
//! pauses.

use anyhow::{Result, ensure};
use integration_tests::{Produced, Topic};

use super::figures::Figures;
use super::group::{BEFORE, Group};
use crate::scene::TABLE;

/// The records produced to a topic since it was created.
pub(crate) struct Sent {
    pub(crate) topic: Topic,
    /// The number of the first record. Rows with lower numbers are of an earlier topic of the same
    /// name.
    pub(crate) first: u64,
    pub(crate) produced: Produced,
}

impl Sent {
    /// The records of a topic that was not recreated.
    pub(crate) fn new(topic: &Topic, produced: Produced) -> Self {
        Self { topic: topic.clone(), first: 0, produced }
    }
}

impl Group {
    /// The committed offset and the number of produced records of each partition with a lag.
    pub(super) async fn lags(&self, sent: &[Sent]) -> Result<Vec<(String, Option<i64>, u64)>> {
        let mut lags = Vec::new();
        for Sent { topic, produced, .. } in sent {
            let committed = topic.committed(&self.scene.group).await?;
            for (partition, count) in &produced.records {
                let offset = committed.get(partition).copied();
                if offset != Some(count.cast_signed()) {
                    lags.push((format!("{}/{partition}", topic.name()), offset, *count));
                }
            }
        }
        Ok(lags)
    }

    /// Compares the produced records of a topic without gaps with the table, by offset, and with
    /// the commits.
    pub(super) async fn check(&self, sent: &Sent, figures: &mut Figures) -> Result<()> {
        let Sent { topic, first, produced } = sent;
        let query = format!(
            "SELECT partition, count(), uniqExact(offset), max(offset) FROM {TABLE} \
             WHERE topic = '{}' AND number >= {first} GROUP BY partition",
            topic.name()
        );
        let rows: Vec<(u32, u64, u64, u64)> = self.scene.database.client().query(&query).fetch_all().await?;
        let committed = topic.committed(&self.scene.group).await?;
        for (partition, count) in &produced.records {
            figures.records += count;
            let of = |row: &&(u32, u64, u64, u64)| row.0.cast_signed() == *partition;
            let Some((_, rows, distinct, highest)) = rows.iter().find(of) else {
                figures.missing += count;
                continue;
            };
            ensure!(
                highest < count,
                "{}/{partition}: the table has offset {highest}, and {count} records were produced",
                topic.name()
            );
            figures.missing += count - distinct;
            figures.double += rows - distinct;
            let offset = committed.get(partition);
            let end = count.cast_signed();
            ensure!(
                offset == Some(&end),
                "{}/{partition}: {end} records were produced, and offset {offset:?} is committed",
                topic.name()
            );
        }
        Ok(())
    }

    /// For each change and each partition that kept its owner: the longest time without a mapped
    /// record.
    pub(super) async fn pauses(&self) -> Result<Vec<i64>> {
        let mut pauses = Vec::new();
        for (from, to) in &self.changes {
            let query = format!(
                "SELECT max(toInt64(pause)) FROM (SELECT topic, partition, consumer, \
                 mapped_at - lagInFrame(mapped_at, 1, mapped_at) OVER (PARTITION BY topic, partition ORDER BY mapped_at, offset \
                 ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS pause FROM {TABLE} \
                 WHERE mapped_at BETWEEN {} AND {to}) GROUP BY topic, partition HAVING uniqExact(consumer) = 1",
                from - BEFORE
            );
            pauses.extend(self.scene.database.client().query(&query).fetch_all::<i64>().await?);
        }
        Ok(pauses)
    }
}
