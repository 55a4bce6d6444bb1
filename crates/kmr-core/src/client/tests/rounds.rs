//! Many assignments leak nothing and lose nothing.

use std::time::Duration;

use super::kit::{Cluster, KIP_848, partition};

/// Rounds of assign and revoke. Fewer where every instruction is checked.
fn rounds() -> usize {
    std::env::var("KMR_CLIENT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1000)
}

fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Set in a process that runs only this test, because memory and threads are measured per process.
const ALONE: &str = "KMR_TEST_ALONE";

#[test]
fn a_thousand_assignments_lose_nothing_and_leak_nothing() {
    // A memory checker has to see the rounds themselves. It sets a smaller number of rounds.
    let here = std::env::var_os(ALONE).is_some() || std::env::var_os("KMR_CLIENT_ROUNDS").is_some();
    if here {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(run());
    }
    let name = "client::tests::rounds::a_thousand_assignments_lose_nothing_and_leak_nothing";
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let figures = text.lines().find(|line| line.contains("after a fifth"));
    println!("{}", figures.unwrap_or_else(|| panic!("nothing was run: {text}")));
}

async fn run() {
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
    if std::env::var_os(ALONE).is_some() {
        assert!(
            memory_now < memory + 10_000,
            "{memory} kB after a fifth of the rounds, {memory_now} kB at the end"
        );
        assert!(
            threads_now <= threads + 2,
            "{threads} threads after a fifth of the rounds, {threads_now} at the end"
        );
    }
    driver.during(Duration::from_millis(100)).await;
    driver.member.seek(&[(partition(0), 0)]).await.unwrap();
    driver.taken.clear();
    driver.until("all records again", |driver| driver.seen(0).last() == Some(&(produced - 1))).await;
    assert_eq!(driver.seen(0), (0..produced).collect::<Vec<_>>());
    driver.member.close().await.unwrap();
}
