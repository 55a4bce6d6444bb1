//! Faults that brokers and other members cause, and members that end without leaving the group.

use std::time::{Duration, SystemTime};

use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::types::RDKafkaApiKey;

use super::kit::{COOPERATIVE, Cluster, Driver, EAGER, KIP_848, Settings, partition};
use crate::client::Connect;
use crate::credentials::Token;
use crate::error::{Error, error_chain};
use crate::member::{Change, CommitOutcome, Connector, OffsetCommit, PartitionFailure};
use crate::record::TopicPartition;

/// A revoke is answered after several seconds. Meanwhile the member stays in the group and its
/// commit is accepted (R3).
async fn a_late_answer_keeps_the_member_in_the_group(settings: Settings) {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 50));
    let mut first = cluster.join(settings).await;
    first.until("all", |driver| driver.counts().values().sum::<usize>() == 100).await;
    let mut second = cluster.join(settings).await;
    first.holds = true;
    Driver::both(&mut first, &mut second, |first, _| !first.held.is_empty()).await;
    assert_eq!(first.held[0].change, Change::Revoke);
    // Longer than half the session timeout, so heartbeats continue.
    first.during(Duration::from_secs(4)).await;
    assert_eq!(first.held.len(), 1, "nothing was lost meanwhile");
    let leaving = first.held.remove(0);
    let commits: Vec<OffsetCommit> = leaving
        .partitions
        .iter()
        .map(|partition| OffsetCommit { partition: partition.clone(), offset: 50, metadata: None })
        .collect();
    let outcomes = first.member.commit(&commits).await;
    // The mock rejects commits in a classic rebalance, but a broker accepts them.
    let expected = |outcome: &CommitOutcome| {
        *outcome == CommitOutcome::Committed
            || (settings != KIP_848
                && matches!(outcome, CommitOutcome::Retryable(_) | CommitOutcome::NotOwned(_)))
    };
    assert!(outcomes.iter().all(expected), "{outcomes:?}");
    first.holds = false;
    first.answer(&leaving).await;
    Driver::both(&mut first, &mut second, |a, b| (a.owned.len(), b.owned.len()) == (1, 1)).await;
    if settings == KIP_848 {
        assert_eq!(second.starts[0].offset, Some(50));
        second.during(Duration::from_millis(300)).await;
        assert!(second.counts().is_empty(), "no duplicates");
    }
    second.member.close().await.unwrap();
    first.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_keeps_the_member_in_an_eager_group() {
    a_late_answer_keeps_the_member_in_the_group(EAGER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_keeps_the_member_in_a_cooperative_group() {
    a_late_answer_keeps_the_member_in_the_group(COOPERATIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_keeps_the_member_in_a_kip_848_group() {
    a_late_answer_keeps_the_member_in_the_group(KIP_848).await;
}

/// The group removes the member, which loses its partitions, has no fatal error, and joins again.
/// rdkafka's mock cannot remove a member of a KIP-848 group.
async fn an_unknown_member_loses_its_partitions_and_joins_again(settings: Settings) {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 20));
    let mut driver = cluster.join(settings).await;
    driver.until("all", |driver| driver.counts().values().sum::<usize>() == 40).await;
    driver.holds = true;
    cluster.mock.request_errors(RDKafkaApiKey::Heartbeat, &[Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
    driver.until("the loss", |driver| !driver.held.is_empty()).await;
    let lost = driver.held.remove(0);
    assert_eq!((lost.change, lost.partitions.len()), (Change::Lose, 2));
    driver.holds = false;
    driver.taken.clear();
    driver.answer(&lost).await;
    assert!(driver.owned.is_empty());
    driver.owns(2).await;
    driver.until("all records again", |driver| driver.counts().values().sum::<usize>() == 40).await;
    assert!(driver.fatal.is_none(), "{:?}", driver.fatal);
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_member_of_an_eager_group_joins_again() {
    an_unknown_member_loses_its_partitions_and_joins_again(EAGER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_member_of_a_cooperative_group_joins_again() {
    an_unknown_member_loses_its_partitions_and_joins_again(COOPERATIVE).await;
}

/// Topics that are created while a revoke waits for its answer make an eager member join again
/// without the answer. The next assignment then replaces the one that librdkafka still has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_a_later_assignment_returns_are_read() {
    let cluster = Cluster::start(2);
    let mut options = cluster.options(EAGER);
    options.client.config = options.client.config.set("topic.metadata.refresh.interval.ms", "100");
    let mut driver = Driver::connect(&options).await;
    driver.owns(2).await;
    driver.subscribe(&["events", "second", "third"]).await;
    (0..2).for_each(|number| cluster.produce(number, 20));
    driver.until("all", |driver| driver.counts().values().sum::<usize>() == 40).await;
    (0..2).for_each(|number| cluster.produce(number, 20));
    driver.holds = true;
    for (topic, held) in [("second", 1), ("third", 2)] {
        cluster.mock.create_topic(topic, 1, 1).unwrap();
        driver.until(topic, |driver| driver.held.len() == held).await;
    }
    driver.holds = false;
    let held = std::mem::take(&mut driver.held);
    assert_eq!([held[0].change, held[1].change], [Change::Revoke, Change::Assign]);
    driver.taken.clear();
    for rebalance in &held {
        driver.answer(rebalance).await;
    }
    driver.owns(4).await;
    driver.until("all records again", |driver| driver.count(0) >= 40 && driver.count(1) >= 40).await;
    let all: Vec<i64> = (0..40).collect();
    assert_eq!((&driver.taken[&0], &driver.taken[&1]), (&all, &all), "no duplicates, in order");
    driver.member.close().await.unwrap();
}

/// librdkafka fetches again from the same position, so nothing is skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_a_broker_fails_once_is_repeated_and_skips_no_record() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 100);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 100).await;
    // librdkafka handles the storage error itself. At the end of the log, it reports the end in
    // place of the first error.
    let codes = [
        Code::RD_KAFKA_RESP_ERR_UNKNOWN,
        Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN,
    ];
    cluster.mock.request_errors(RDKafkaApiKey::Fetch, &codes);
    cluster.produce(0, 100);
    driver.until("all again", |driver| driver.count(0) == 200).await;
    assert_eq!(driver.taken[&0], (0..200).collect::<Vec<i64>>());
    let temporary = |failure: &(i32, PartitionFailure)| matches!(failure.1, PartitionFailure::Unavailable(_));
    assert!(driver.failures.len() >= 2 && driver.failures.iter().all(temporary), "{:?}", driver.failures);
    // The position stays right after a pause, too.
    driver.member.pause(&[partition(0)], true).await.unwrap();
    cluster.produce(0, 10);
    driver.member.pause(&[partition(0)], false).await.unwrap();
    driver.until("the rest", |driver| driver.seen(0).len() == 210).await;
    driver.member.close().await.unwrap();
}

/// The broker's response to a commit is an event, also under KIP-848, and the next commit is
/// independent of it (C4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_commit_is_an_outcome_and_the_next_one_succeeds() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 10);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(1).await;
    let not_owned = [Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, Code::RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH];
    for (offset, code) in (1..).zip(not_owned) {
        cluster.mock.request_errors(RDKafkaApiKey::OffsetCommit, &[code]);
        let commit = OffsetCommit { partition: partition(0), offset, metadata: None };
        let outcomes = driver.member.commit(&[commit]).await;
        assert!(matches!(&outcomes[..], [CommitOutcome::NotOwned(_)]), "{code:?}: {outcomes:?}");
        driver.commit(0, offset, None).await;
    }
    cluster
        .mock
        .request_errors(RDKafkaApiKey::OffsetCommit, &[Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED]);
    let commit = OffsetCommit { partition: partition(0), offset: 9, metadata: None };
    let outcomes = driver.member.commit(&[commit]).await;
    assert!(matches!(&outcomes[..], [CommitOutcome::Failed(_)]), "{outcomes:?}");
    driver.member.close().await.unwrap();
}

/// librdkafka reports the whole request as failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_commit_fails_does_not_fail_the_others() {
    let cluster = Cluster::start(1);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(1).await;
    let commit =
        |topic: &str| OffsetCommit { partition: TopicPartition::new(topic, 0), offset: 3, metadata: None };
    let outcomes = driver.member.commit(&[commit("gone"), commit("events"), commit("other")]).await;
    assert!(matches!(outcomes[0], CommitOutcome::Gone(_)), "{outcomes:?}");
    assert_eq!(outcomes[1..], [CommitOutcome::Committed, CommitOutcome::Committed]);
    driver.member.close().await.unwrap();
}

/// Another member with the same group.instance.id has taken over, so no attempt can succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_instance_is_fatal_and_the_error_names_the_setting() {
    let cluster = Cluster::start(1);
    let mut options = cluster.options(EAGER);
    options.client.config = options.client.config.set("group.instance.id", "one");
    let mut driver = Driver::connect(&options).await;
    driver.owns(1).await;
    cluster.mock.request_errors(RDKafkaApiKey::Heartbeat, &[Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID]);
    driver.until("the end", |driver| driver.fatal.is_some()).await;
    let error = driver.fatal.take().unwrap();
    assert!(matches!(&error, Error::Client { retryable: false, .. }), "{error:?}");
    assert!(error_chain(&error).contains("group.instance.id"), "{error:?}");
    // The member can still be closed.
    driver.member.close().await.unwrap();
}

fn instance(cluster: &Cluster, id: &str) -> Connect {
    let mut options = cluster.options(KIP_848);
    options.client.config = options.client.config.set("group.instance.id", id);
    options
}

/// A static member that returns in time gets its partitions back, and the other members see no
/// rebalance. (The mock's classic groups rebalance anyway.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_that_returns_causes_no_rebalance() {
    let cluster = Cluster::start(2);
    let mut first = Driver::connect(&instance(&cluster, "one")).await;
    let mut second = Driver::connect(&instance(&cluster, "two")).await;
    Driver::both(&mut first, &mut second, |a, b| (a.owned.len(), b.owned.len()) == (1, 1)).await;
    let (had, rebalances) = (second.owned.clone(), first.rebalances);
    second.member.close().await.unwrap();
    drop(second);
    first.during(Duration::from_secs(4)).await;
    let mut second = Driver::connect(&instance(&cluster, "two")).await;
    Driver::both(&mut first, &mut second, |_, b| b.owned.len() == 1).await;
    assert_eq!((&second.owned, first.rebalances), (&had, rebalances));
    second.member.close().await.unwrap();
    first.member.close().await.unwrap();
}

/// Members are closed or dropped at any moment while records arrive. The next member continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_and_dropped_members_leave_their_partitions_to_the_next() {
    let cluster = Cluster::start(2);
    let mut produced = 0;
    for round in 0..8 {
        let mut driver = cluster.join(KIP_848).await;
        (0..2).for_each(|number| cluster.produce(number, 100));
        produced += 100;
        if round % 4 < 2 {
            driver.until("some", |driver| driver.counts().len() == 2).await;
        } else {
            // With a rebalance that no task has answered. (Before its first rebalance librdkafka
            // treats a member as not joined, and does not leave. The member stays in the group
            // until its session ends.)
            driver.holds = true;
            driver.until("a rebalance", |driver| !driver.held.is_empty()).await;
        }
        if round % 2 == 0 {
            driver.member.close().await.unwrap();
        }
    }
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(2).await;
    driver.until("all", |driver| (0..2).all(|number| driver.count(number) == produced)).await;
    driver.member.close().await.unwrap();
}

/// Batches may be kept, and a queue may outlive its member. The client waits for them, and its
/// memory stays valid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_outlive_their_assignment_and_their_member() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 100);
    let mut driver = cluster.join(KIP_848).await;
    driver.keeps = true;
    driver.until("records", |driver| driver.count(0) == 100).await;
    driver.move_away_and_back().await;
    let kept = std::mem::take(&mut driver.kept);
    driver.member.close().await.unwrap();
    drop(driver);
    let payloads = kept
        .iter()
        .map(|batch| (0..batch.len()).filter(|n| batch.record(*n).payload() == Some(b"x")).count());
    assert_eq!(payloads.sum::<usize>(), 100);
}

/// A broker that is starting does not know any topic yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_unknown_for_a_moment_is_waited_for() {
    let cluster = Cluster::start(1);
    let unknown = Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.mock.topic_error("events", unknown).unwrap();
    let options = cluster.options(KIP_848);
    let known_again = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.mock.topic_error("events", Code::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    };
    let (connected, ()) = tokio::join!(options.connect(), known_again);
    connected.unwrap().member.close().await.unwrap();
    cluster.mock.topic_error("events", unknown).unwrap();
    let error = cluster.options(KIP_848).connect().await.err();
    assert!(matches!(&error, Some(Error::UnknownTopic { topic }) if topic == "events"), "{error:?}");
}

/// A consumer that runs does without a topic that is deleted, and so does its next client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_client_does_without_a_topic_that_was_deleted() {
    for (settings, without_group) in [(KIP_848, false), (COOPERATIVE, false), (EAGER, false), (KIP_848, true)]
    {
        let cluster = Cluster::start(1);
        cluster.mock.create_topic("deleted", 1, 1).unwrap();
        cluster.produce(0, 10);
        let mut options = cluster.options(settings);
        options.client.topics.insert(0, "deleted".to_owned());
        options.client.without_group = without_group;
        options.connect().await.unwrap().member.close().await.unwrap();
        cluster.mock.topic_error("deleted", Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        let mut driver = Driver::connect(&options).await;
        driver.until("records of the other topic", |driver| driver.count(0) == 10).await;
        driver.member.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oauthbearer_without_a_source_of_tokens_is_a_wrong_setting() {
    let cluster = Cluster::start(1);
    let mut options = cluster.options(KIP_848);
    options.client.config = options.client.config.set("sasl.mechanism", "OAUTHBEARER");
    let error = options.connect().await.err().unwrap();
    assert!(matches!(&error, Error::Config(text) if text.contains("no source of tokens")), "{error}");
    let failing = async || Err("no identity on this machine".into());
    options.client.config = options.client.config.token_provider(failing);
    options.client.timeout = Duration::from_millis(300);
    let error = error_chain(&options.connect().await.err().unwrap());
    assert!(error.contains("token provider") && error.contains("no identity on this machine"), "{error}");
    let token = async || Ok(Token::new("secret", SystemTime::now() + Duration::from_secs(60)));
    options.client.config = options.client.config.token_provider(token);
    let error = options.connect().await.err().unwrap();
    assert!(matches!(&error, Error::Config(text) if text.contains("SASL_SSL")), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}
