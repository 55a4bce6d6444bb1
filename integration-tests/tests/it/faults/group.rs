//! A consumer group of test consumers under load, whose members come and go, and the verdict of its table.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{Event, RowKind, Settings};
use integration_tests::{
    ClickHouse, Deadline, Kafka, Process, Produced, Signal, Topic, TopicSpec, say, soaking, wait_until,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::figures::Figures;
use crate::scene::{Scene, TABLE, alive, start};

/// Groups under load at once. More of them keep the broker from answering heartbeats on a machine of two cores: members are given up then
/// that nothing is wrong with.
static ROOM: Semaphore = Semaphore::const_new(4);

/// For what takes seconds on an idle machine.
const PATIENCE: u64 = 90;

/// The same where members are known to stand still for ever: they are started anew after that.
const PATIENCE_IF_KNOWN: u64 = 45;

/// A kept partition has to be seen before a change to be seen kept: milliseconds before it that are looked at.
const BEFORE: i64 = 500;

/// A session timeout for rows in which nobody is killed: Kafka's own default.
pub(crate) const NOBODY_IS_KILLED: Duration = Duration::from_secs(45);

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

    /// A member notices a rebalance at a heartbeat, and is given up so long after its last one. Under KIP-848 both are settings
    /// of the broker.
    fn settings(self, settings: Settings, session: Duration) -> Settings {
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

/// The members of a group, those that run and those that have gone.
pub(crate) struct Group {
    pub(crate) scene: Scene,
    /// Of the members that join from now on, but for the protocol.
    pub(crate) settings: Settings,
    /// Of the members that join from now on.
    pub(crate) protocol: Protocol,
    /// When a member is given up that is not heard of. Short, so that what is killed is noticed; where nobody is killed, a broker that does
    /// not answer for so long is to be no loss, after which rows may be double.
    pub(crate) session: Duration,
    /// Partitions that the load reaches.
    pub(crate) partitions: u64,
    pub(crate) notes: Vec<String>,
    members: Vec<Process>,
    gone: Vec<Process>,
    /// The times of each change: from its cause until all flowed again.
    changes: Vec<(i64, i64)>,
    _room: SemaphorePermit<'static>,
}

impl Group {
    /// Without members, on the shared broker, as soon as there is room.
    pub(crate) async fn new(name: &str, topic: impl Into<TopicSpec>, protocol: Protocol) -> Result<Self> {
        Self::on(&Kafka::shared().await?, name, topic, protocol).await
    }

    /// Without members, on that broker, as soon as there is room.
    pub(crate) async fn on(
        kafka: &Kafka,
        name: &str,
        topic: impl Into<TopicSpec>,
        protocol: Protocol,
    ) -> Result<Self> {
        let room = ROOM.acquire().await?;
        let scene = Scene::on(kafka, &ClickHouse::shared().await?, name, topic, RowKind::Traced).await?;
        let mut settings = scene.settings();
        settings.max_age = Duration::from_millis(200);
        settings.commit_interval = Duration::from_millis(200);
        // A pause that is seen is one of the group, not of a fetch that waits for more.
        let settings = settings.kafka("fetch.wait.max.ms", "20");
        Ok(Self {
            partitions: u64::from(scene.topic.partitions().unsigned_abs()),
            scene,
            settings,
            protocol,
            session: Duration::from_secs(6),
            notes: Vec::new(),
            members: Vec::new(),
            gone: Vec::new(),
            changes: Vec::new(),
            _room: room,
        })
    }

    /// Whether members may stand still by a defect that is known: they are started anew then, and the notes say so. The
    /// protocol may have changed since the group was made.
    fn may_stall(&self) -> bool {
        self.protocol == Protocol::Kip848
    }

    fn patience(&self) -> Deadline {
        Deadline::seconds(if self.may_stall() { PATIENCE_IF_KNOWN } else { PATIENCE })
    }

    /// How many members run.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Starts a member and waits until it has its share.
    pub(crate) async fn join(&mut self) -> Result<()> {
        let from = now();
        self.start_without_waiting()?;
        self.settle(from).await
    }

    /// Starts a member.
    pub(crate) fn start_without_waiting(&mut self) -> Result<()> {
        self.members.push(start(&self.protocol.settings(self.settings.clone(), self.session))?);
        Ok(())
    }

    /// The last event of each member.
    pub(crate) fn last_events(&self) -> Vec<Option<Event>> {
        self.members.iter().map(Event::last).collect()
    }

    /// Ends a member in order and waits until the others have its share.
    pub(crate) async fn leave(&mut self, index: usize) -> Result<()> {
        let from = now();
        self.end(index).await?;
        self.settle(from).await
    }

    /// Kills a member and waits until the others have its share.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        let from = now();
        let mut member = self.members.remove(index);
        member.end(Signal::Kill, Deadline::seconds(10)).await?;
        self.gone.push(member);
        self.settle(from).await
    }

    /// Ends all members in order, at the same time.
    pub(crate) async fn all_leave(&mut self) -> Result<()> {
        self.signal(Signal::Terminate)?;
        while !self.members.is_empty() {
            self.ended(0).await?;
        }
        Ok(())
    }

    /// Sends a signal to all members.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.members.iter_mut().try_for_each(|member| member.signal(signal))
    }

    /// Ends a member in order, without waiting for the others.
    pub(crate) async fn end(&mut self, index: usize) -> Result<()> {
        self.members[index].signal(Signal::Terminate)?;
        self.ended(index).await
    }

    /// Waits for a member that has been told to end.
    async fn ended(&mut self, index: usize) -> Result<()> {
        let mut member = self.members.remove(index);
        let status = member.wait(Deadline::seconds(PATIENCE)).await?;
        let stderr = member.stderr();
        let pid = member.pid();
        self.gone.push(member);
        if self.protocol == Protocol::Kip848 && !status.success() {
            self.note(format!("KIP-848: member {pid} ended with {status}: {}", last_line(&stderr)));
            return Ok(());
        }
        ensure!(status.success(), "{status}: {stderr}");
        Ok(())
    }

    /// Fails when a member has.
    pub(crate) fn alive(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| {
            alive(member).with_context(|| format!("member {}:\n{}", member.pid(), tail(&member.stderr())))
        })
    }

    /// Rebalances that the members, also those that have gone, have answered.
    pub(crate) fn rebalances(&self) -> u64 {
        let of = |member: &Process| {
            let events = Event::all(member);
            events.iter().rev().find_map(|event| match event {
                Event::Progress { rebalances, .. } | Event::Ended { rebalances, .. } => Some(*rebalances),
                Event::Failed { .. } => None,
            })
        };
        self.members.iter().chain(&self.gone).filter_map(of).sum()
    }

    /// Waits until all flows again after a change that began at `from`.
    pub(crate) async fn settle(&mut self, from: i64) -> Result<()> {
        let settled = self.flows().await;
        if let Err(error) = settled {
            if !self.may_stall() {
                return Err(error);
            }
            // Known of librdkafka 2.12 with KIP-848: a fatal error (its issue 5541); and a heartbeat that times out takes the assignment in its
            // answer along, because the next one is no full one (`rd_kafka_cgrp_handle_ConsumerGroupHeartbeat`): the member
            // never gives up what the group waits for.
            self.note("stall, all members started anew".to_owned());
            say(format_args!("{error:#}"));
            self.start_anew().await?;
            self.flows().await?;
        }
        self.changes.push((from, now()));
        Ok(())
    }

    /// Waits until every partition and every member has records that are mapped from now on.
    pub(crate) async fn flows(&self) -> Result<()> {
        self.flows_without_the_last(0).await
    }

    /// The same, but for so many members that have come last.
    pub(crate) async fn flows_without_the_last(&self, count: usize) -> Result<()> {
        let since = now();
        let members = self.members.len() - count;
        let what = format!("{} partitions and {members} members flow", self.partitions);
        let flows = wait_until(self.patience(), &what, async || {
            self.alive()?;
            self.flowing(since, members).await
        });
        match flows.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.still(since).await)),
        }
    }

    /// Whether every partition and so many of the oldest members have records that were mapped since then.
    pub(crate) async fn flowing(&self, since: i64, members: usize) -> Result<bool> {
        let pids: Vec<String> =
            self.members[..members].iter().map(|member| member.pid().to_string()).collect();
        let query = format!(
            "SELECT toUInt64(uniqExact(topic, partition) >= {} AND uniqExactIf(consumer, consumer IN ({})) >= {members}) \
             FROM {TABLE} WHERE mapped_at > {since}",
            self.partitions,
            pids.join(", "),
        );
        Ok(self.scene.database.number(&query).await? == 1)
    }

    /// Starts a member in the place of each that has stopped with one of these errors, and returns how many.
    pub(crate) fn replace(&mut self, errors: &[&str]) -> Result<usize> {
        let stopped = |member: &mut Process| {
            matches!(Event::last(member), Some(Event::Failed { error }) if errors.contains(&error.as_str())) //
        };
        let gone: Vec<Process> = self.members.extract_if(.., stopped).collect();
        let count = gone.len();
        self.gone.extend(gone);
        (0..count).try_for_each(|_| self.start_without_waiting())?;
        Ok(count)
    }

    /// Who has what since then, whether there is anything to be had, and what the members say.
    async fn still(&self, since: i64) -> String {
        let query = format!(
            "SELECT topic, partition, consumer, count() FROM {TABLE} WHERE mapped_at > {since} GROUP BY ALL ORDER BY ALL"
        );
        let rows = self.scene.database.client().query(&query).fetch_all::<(String, u32, u32, u64)>().await;
        let (ends, committed) =
            (self.scene.topic.end_offsets().await, self.scene.topic.committed(&self.scene.group).await);
        format!(
            "flowing since {since}: {rows:?}; the log ends at {ends:?}, {committed:?} is committed\n{}",
            self.said()
        )
    }

    /// The last lines of all members, those that have gone included.
    fn said(&self) -> String {
        let members = self.members.iter().chain(&self.gone);
        let said = members.map(|member| format!("member {}:\n{}", member.pid(), tail(&member.stderr())));
        said.collect::<Vec<String>>().join("\n")
    }

    async fn start_anew(&mut self) -> Result<()> {
        let count = self.members.len();
        for mut member in self.members.drain(..) {
            // One that has failed is gone already.
            let _ = member.signal(Signal::Kill);
            member.wait(Deadline::seconds(10)).await?;
            self.gone.push(member);
        }
        (0..count).try_for_each(|_| self.start_without_waiting())
    }

    fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The end of a row: waits until all that was produced is committed, ends the members, and judges.
    pub(crate) async fn finish(mut self, row: String, sent: &[Sent]) -> Result<Figures> {
        if let Err(error) = self.all_committed(sent).await {
            ensure!(self.may_stall(), error);
            self.note("stall before the end, all members started anew".to_owned());
            say(format_args!("{error:#}"));
            self.start_anew().await?;
            self.all_committed(sent).await?;
        }
        self.all_leave().await?;
        let mut figures = Figures {
            row,
            changes: self.changes.len(),
            rebalances: self.rebalances(),
            pauses: self.pauses().await?,
            notes: std::mem::take(&mut self.notes),
            ..Figures::default()
        };
        for sent in sent {
            self.judge(sent, &mut figures).await?;
        }
        if figures.double > 0 {
            figures.said = self.said();
        }
        Ok(figures)
    }

    async fn all_committed(&self, sent: &[Sent]) -> Result<()> {
        let committed = wait_until(self.patience(), "everything is committed", async || {
            self.alive()?;
            for Sent { topic, .. } in sent {
                if topic.lag(&self.scene.group).await? != 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        match committed.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let lags = self.lags(sent).await?;
                Err(error
                    .context(self.still(now() - 1_000).await)
                    .context(format!("not committed: {lags:?}")))
            }
        }
    }

    /// What is committed of each partition that has more, beside the number of records produced.
    async fn lags(&self, sent: &[Sent]) -> Result<Vec<(String, Option<i64>, u64)>> {
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

    /// Compares what was produced to a topic with the table, by offset, and with what is committed. For a topic without gaps.
    async fn judge(&self, sent: &Sent, figures: &mut Figures) -> Result<()> {
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
            ensure!(highest < count, "{}/{partition}: offset {highest} of {count} records", topic.name());
            figures.missing += count - distinct;
            figures.double += rows - distinct;
            let offset = committed.get(partition);
            let end = count.cast_signed();
            ensure!(offset == Some(&end), "{}/{partition}: {offset:?} of {end} committed", topic.name());
        }
        Ok(())
    }

    /// For each change and each partition that kept its owner: the longest time without a record of it.
    async fn pauses(&self) -> Result<Vec<i64>> {
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

/// What was produced to a topic since it was created.
pub(crate) struct Sent {
    pub(crate) topic: Topic,
    /// The number of the first record: rows with lower ones are of an earlier topic of the same name.
    pub(crate) first: u64,
    pub(crate) produced: Produced,
}

impl Sent {
    /// To a topic that had no predecessor.
    pub(crate) fn new(topic: &Topic, produced: Produced) -> Self {
        Self { topic: topic.clone(), first: 0, produced }
    }
}

/// A count of changes: `normal`, or `soak` in a soak run.
pub(crate) fn changes(normal: usize, soak: usize) -> usize {
    if soaking() { soak } else { normal }
}

/// Records a second for one group.
pub(crate) fn rate(normal: u64, soak: u64) -> u64 {
    if soaking() { soak } else { normal }
}

/// Decides who goes: by `KMR_SEED`, or by a seed that the row's notes name.
pub(crate) fn random(group: &mut Group) -> fastrand::Rng {
    let given = std::env::var("KMR_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    group.note(format!("KMR_SEED={seed}"));
    fastrand::Rng::with_seed(seed)
}

/// Milliseconds since 1970, as the members count them.
pub(crate) fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or_default()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}
