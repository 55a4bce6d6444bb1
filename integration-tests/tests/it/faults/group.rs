//! A consumer group of test consumers under load: starts and ends members, waits for progress, and
//! checks the table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{Event, RowKind, Settings};
use integration_tests::{
    ClickHouse, Deadline, Kafka, Process, Signal, TopicSpec, log_line, soaking, wait_until,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::figures::Figures;
use super::outcome::Sent;
use super::protocol::Protocol;
use crate::scene::{Scene, TABLE, alive, start};

/// Bounds the groups under load at once. With more of them, the broker answers heartbeats too late
/// on a machine of two cores, and healthy members lose their sessions.
static ROOM: Semaphore = Semaphore::const_new(4);

/// Timeout in seconds for steps that take seconds on an idle machine.
const TIMEOUT: u64 = 90;

/// Timeout in seconds where librdkafka is known to stall. The members are restarted after it.
const STALL_TIMEOUT: u64 = 45;

/// Milliseconds before a change in which a partition's owner is determined, to see whether it keeps
/// the partition.
pub(super) const BEFORE: i64 = 500;

/// Kafka's default session timeout, for rows in which no member is killed.
pub(crate) const DEFAULT_SESSION: Duration = Duration::from_secs(45);

/// A group's members, both running and ended.
pub(crate) struct Group {
    pub(crate) scene: Scene,
    /// Settings of later members, except for the protocol.
    pub(crate) settings: Settings,
    /// Protocol of later members.
    pub(crate) protocol: Protocol,
    /// Session timeout. A short one shows kills quickly. Without kills it is long, because a broker
    /// that answers too late would end sessions and cause duplicates.
    pub(crate) session: Duration,
    /// Number of partitions that the load produces to.
    pub(crate) partitions: u64,
    pub(crate) notes: Vec<String>,
    members: Vec<Process>,
    ended: Vec<Process>,
    /// Start and end of each change: from its cause until all members make progress again.
    pub(super) changes: Vec<(i64, i64)>,
    _room: SemaphorePermit<'static>,
}

impl Group {
    /// A group without members on the shared broker. Waits for room.
    pub(crate) async fn new(name: &str, topic: impl Into<TopicSpec>, protocol: Protocol) -> Result<Self> {
        Self::on(&Kafka::shared().await?, name, topic, protocol).await
    }

    /// A group without members on `kafka`. Waits for room.
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
        // Short, so that measured pauses come from the group and not from waiting fetches.
        let settings = settings.kafka("fetch.wait.max.ms", "20");
        Ok(Self {
            partitions: u64::from(scene.topic.partitions().unsigned_abs()),
            scene,
            settings,
            protocol,
            session: Duration::from_secs(6),
            notes: Vec::new(),
            members: Vec::new(),
            ended: Vec::new(),
            changes: Vec::new(),
            _room: room,
        })
    }

    /// Whether a known defect of librdkafka can stall members in the group's current protocol. The
    /// members are then restarted, with a note.
    fn may_stall(&self) -> bool {
        self.protocol == Protocol::Kip848
    }

    fn deadline(&self) -> Deadline {
        Deadline::seconds(if self.may_stall() { STALL_TIMEOUT } else { TIMEOUT })
    }

    /// Number of running members.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Starts a member and waits until all members make progress.
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

    /// Ends a member in order and waits until the others have its partitions.
    pub(crate) async fn leave(&mut self, index: usize) -> Result<()> {
        let from = now();
        self.end(index).await?;
        self.settle(from).await
    }

    /// Kills a member and waits until the others have its partitions.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        let from = now();
        let mut member = self.members.remove(index);
        member.end(Signal::Kill, Deadline::seconds(10)).await?;
        self.ended.push(member);
        self.settle(from).await
    }

    /// Ends all members in order, at the same time.
    pub(crate) async fn all_leave(&mut self) -> Result<()> {
        self.signal(Signal::Terminate)?;
        while !self.members.is_empty() {
            self.wait_for_end(0).await?;
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
        self.wait_for_end(index).await
    }

    /// Waits for the end of a member after its stop request.
    async fn wait_for_end(&mut self, index: usize) -> Result<()> {
        let mut member = self.members.remove(index);
        let status = member.wait(Deadline::seconds(TIMEOUT)).await?;
        let stderr = member.stderr();
        let pid = member.pid();
        self.ended.push(member);
        if self.protocol == Protocol::Kip848 && !status.success() {
            self.note(format!("KIP-848: member {pid} ended with {status}: {}", last_line(&stderr)));
            return Ok(());
        }
        ensure!(status.success(), "member {pid} ends in order: {status}: {stderr}");
        Ok(())
    }

    /// Fails when a member has failed or ended.
    pub(crate) fn alive(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| {
            alive(member).with_context(|| format!("member {}:\n{}", member.pid(), tail(&member.stderr())))
        })
    }

    /// Rebalances that all members have answered, with those that have ended.
    pub(crate) fn rebalances(&self) -> u64 {
        let of = |member: &Process| {
            let events = Event::all(member);
            events.iter().rev().find_map(|event| match event {
                Event::Progress { rebalances, .. } | Event::Ended { rebalances, .. } => Some(*rebalances),
                Event::Failed { .. } => None,
            })
        };
        self.members.iter().chain(&self.ended).filter_map(of).sum()
    }

    /// Waits until all members make progress after a change that started at `from`.
    pub(crate) async fn settle(&mut self, from: i64) -> Result<()> {
        let settled = self.wait_for_progress().await;
        if let Err(error) = settled {
            if !self.may_stall() {
                return Err(error);
            }
            // librdkafka 2.12 has two known defects with KIP-848. One is a fatal error (its issue
            // 5541). The other: when a heartbeat times out, the assignment in its response is lost,
            // because the next heartbeat is not a full one
            // (`rd_kafka_cgrp_handle_ConsumerGroupHeartbeat`). The member never revokes the
            // partitions that the group waits for.
            self.note("stall, all members restarted".to_owned());
            log_line(format_args!("{error:#}"));
            self.restart_all().await?;
            self.wait_for_progress().await?;
        }
        self.changes.push((from, now()));
        Ok(())
    }

    /// As [`Group::settle`], while a topic does not exist. New members could not start, so a known
    /// stall gets a note, and lasts until the topic exists.
    pub(crate) async fn settle_without_topic(&mut self, from: i64) -> Result<()> {
        match self.wait_for_progress().await {
            Err(error) if !self.may_stall() => return Err(error),
            Err(error) => {
                self.note("stall without the topic".to_owned());
                log_line(format_args!("{error:#}"));
            }
            Ok(()) => {}
        }
        self.changes.push((from, now()));
        Ok(())
    }

    /// Waits until every partition and every member has records that are mapped from now on.
    pub(crate) async fn wait_for_progress(&self) -> Result<()> {
        self.wait_for_progress_except_last(0).await
    }

    /// As [`Group::wait_for_progress`], without the last `count` members.
    pub(crate) async fn wait_for_progress_except_last(&self, count: usize) -> Result<()> {
        let since = now();
        let members = self.members.len() - count;
        let what = format!("{} partitions and {members} members make progress", self.partitions);
        let progress = wait_until(self.deadline(), &what, async || {
            self.alive()?;
            self.makes_progress(since, members).await
        });
        match progress.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.diagnosis(since).await)),
        }
    }

    /// Whether every partition and the first `members` members have records that were mapped since
    /// `since`.
    pub(crate) async fn makes_progress(&self, since: i64, members: usize) -> Result<bool> {
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

    /// Replaces each member that has stopped with one of these errors, and returns their number.
    pub(crate) fn replace(&mut self, errors: &[&str]) -> Result<usize> {
        let stopped = |member: &mut Process| {
            matches!(Event::last(member), Some(Event::Failed { error }) if errors.contains(&error.as_str())) //
        };
        let ended: Vec<Process> = self.members.extract_if(.., stopped).collect();
        let count = ended.len();
        self.ended.extend(ended);
        (0..count).try_for_each(|_| self.start_without_waiting())?;
        Ok(count)
    }

    /// Describes the rows since `since`, the ends of the log, the commits, and the members' logs.
    async fn diagnosis(&self, since: i64) -> String {
        let query = format!(
            "SELECT topic, partition, consumer, count() FROM {TABLE} WHERE mapped_at > {since} GROUP BY ALL ORDER BY ALL"
        );
        let rows = self.scene.database.client().query(&query).fetch_all::<(String, u32, u32, u64)>().await;
        let (ends, committed) =
            (self.scene.topic.end_offsets().await, self.scene.topic.committed(&self.scene.group).await);
        format!(
            "rows since {since}: {rows:?}; the log ends at {ends:?}, {committed:?} is committed\n{}",
            self.logs()
        )
    }

    /// The last log lines of all members, with those that have ended.
    fn logs(&self) -> String {
        let members = self.members.iter().chain(&self.ended);
        let logs = members.map(|member| format!("member {}:\n{}", member.pid(), tail(&member.stderr())));
        logs.collect::<Vec<String>>().join("\n")
    }

    async fn restart_all(&mut self) -> Result<()> {
        let count = self.members.len();
        for mut member in self.members.drain(..) {
            // A failed member has ended already.
            let _ = member.signal(Signal::Kill);
            member.wait(Deadline::seconds(10)).await?;
            self.ended.push(member);
        }
        (0..count).try_for_each(|_| self.start_without_waiting())
    }

    fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Ends a row: waits until all produced records are committed, ends the members, and checks the
    /// table.
    pub(crate) async fn finish(mut self, row: String, sent: &[Sent]) -> Result<Figures> {
        if let Err(error) = self.all_committed(sent).await {
            ensure!(self.may_stall(), error);
            self.note("stall before the end, all members restarted".to_owned());
            log_line(format_args!("{error:#}"));
            self.restart_all().await?;
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
            self.check(sent, &mut figures).await?;
        }
        if figures.double > 0 {
            figures.logs = self.logs();
        }
        Ok(figures)
    }

    async fn all_committed(&self, sent: &[Sent]) -> Result<()> {
        let committed = wait_until(self.deadline(), "all records are committed", async || {
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
                    .context(self.diagnosis(now() - 1_000).await)
                    .context(format!("not committed: {lags:?}")))
            }
        }
    }
}

/// A count of changes: `normal`, or `soak` in a soak run.
pub(crate) fn changes(normal: usize, soak: usize) -> usize {
    if soaking() { soak } else { normal }
}

/// Records per second for one group: `normal`, or `soak` in a soak run.
pub(crate) fn rate(normal: u64, soak: u64) -> u64 {
    if soaking() { soak } else { normal }
}

/// Chooses members, from the seed `KMR_SEED` or a random one, which the row's notes name.
pub(crate) fn random(group: &mut Group) -> fastrand::Rng {
    let given = std::env::var("KMR_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    group.note(format!("KMR_SEED={seed}"));
    fastrand::Rng::with_seed(seed)
}

/// Milliseconds since 1970, as in the members' rows.
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
