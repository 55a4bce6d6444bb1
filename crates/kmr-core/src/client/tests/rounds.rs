//! Many assignments: nothing leaks, nothing is lost.

use std::time::Duration;

use super::kit::{Cluster, KIP_848, partition};

/// Rounds of assign and revoke; fewer where every instruction is checked.
fn rounds() -> usize {
    std::env::var("KMR_CLIENT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1000)
}

fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_assignments_lose_nothing_and_leak_nothing() {
    let cluster = Cluster::start(2);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(2).await;
    let (rounds, mut committed, mut produced) = (rounds(), 0, 0i64);
    let (mut threads, mut memory) = (0, 0);
    for round in 0..rounds {
        if round % 10 == 0 {
            cluster.produce(0, 5);
            produced += 5;
        }
        let start = driver.move_away_and_back().await;
        assert!(round == 0 || start == Some(committed), "round {round} starts at {start:?}");
        driver.taken.clear();
        if round % 10 == 0 {
            driver.until("new records", |driver| driver.seen(0).last() == Some(&(produced - 1))).await;
            assert_eq!(driver.seen(0), (committed..produced).collect::<Vec<_>>(), "round {round}");
            committed = produced;
        }
        driver.commit(0, committed, None).await;
        if round == rounds / 5 {
            (threads, memory) = (status("Threads:"), status("VmRSS:"));
        }
    }
    let (threads_now, memory_now) = (status("Threads:"), status("VmRSS:"));
    println!(
        "{rounds} rounds: {memory} kB, {threads} threads after a fifth, {memory_now} kB, {threads_now} at the end"
    );
    // Other tests run in the same process: the bounds catch what grows with the rounds.
    assert!(
        memory_now < memory + 20_000,
        "{memory} kB after a fifth of the rounds, {memory_now} kB at the end"
    );
    assert!(
        threads_now < threads + 100,
        "{threads} threads after a fifth of the rounds, {threads_now} at the end"
    );
    driver.during(Duration::from_millis(100)).await;
    driver.member.seek(&[(partition(0), 0)]).await.unwrap();
    driver.taken.clear();
    driver.until("everything once more", |driver| driver.seen(0).last() == Some(&(produced - 1))).await;
    assert_eq!(driver.seen(0), (0..produced).collect::<Vec<_>>());
    driver.member.close().await.unwrap();
}
