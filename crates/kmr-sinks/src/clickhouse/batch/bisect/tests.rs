//! Every row is settled once, with no more requests than promised.

use super::*;

/// How the simulated server names the bad row.
#[derive(Clone, Copy, Debug)]
enum Names {
    None,
    First,
    Wrong,
    Outside,
}

/// Bisects `rows` rows of which `bad` cannot be stored; returns the number of requests.
fn run(rows: usize, bad: &BTreeSet<usize>, names: Names) -> u32 {
    let mut bisection = Bisection::new(rows);
    let (mut accepted, mut rejected) = (BTreeSet::new(), BTreeSet::new());
    let mut tokens = BTreeSet::new();
    let mut requests = 0;
    while let Some(part) = bisection.next() {
        assert_eq!(
            bisection.next().as_ref(),
            Some(&part),
            "the part changed before its outcome was reported"
        );
        requests += 1;
        assert!(tokens.insert(part.suffix(rows)), "the same token for another part: {part:?}");
        let listed: Vec<usize> = part.runs().flatten().collect();
        assert_eq!(listed.len(), part.len());
        match listed.iter().position(|row| bad.contains(row)) {
            None => {
                bisection.accepted();
                for row in listed {
                    assert!(accepted.insert(row), "row {row} is stored twice");
                }
            }
            Some(at) => {
                let named = match names {
                    Names::None => None,
                    Names::First => Some(at),
                    Names::Wrong => Some(if at == 0 { 1 } else { at - 1 }),
                    Names::Outside => Some(usize::MAX),
                };
                if let Step::Rejected(row) = bisection.rejected(Rejection::Row(named)) {
                    assert_eq!(listed, [row]);
                    rejected.insert(row);
                }
            }
        }
    }
    assert_eq!(&rejected, bad);
    assert_eq!(accepted.len() + rejected.len(), rows);
    assert!(accepted.is_disjoint(&rejected));
    assert_eq!(bisection.rejected_rows(), bad.len());
    assert_eq!(bisection.has_split(), !bad.is_empty() && rows > 1);
    requests
}

fn log2(n: usize) -> f64 {
    (n as f64).log2()
}

#[test]
fn one_bad_row_of_100_000_costs_at_most_twice_the_logarithm() {
    let rows = 100_000;
    let limit = (2.0 * log2(rows)).floor() as u32;
    let mut most = 0;
    for row in (0..rows).step_by(997).chain([1, 2, 3, rows / 2 - 1, rows / 2, rows - 2, rows - 1]) {
        let extra = run(rows, &[row].into(), Names::None) - 1;
        assert!(extra <= limit, "row {row}: {extra} requests, {limit} are allowed");
        most = most.max(extra);
        assert_eq!(run(rows, &[row].into(), Names::First) - 1, 2, "row {row}");
    }
    assert!(most > limit / 2, "only {most}: no row of this test is hard to find");
}

#[test]
fn many_bad_rows_cost_about_2k_log_n_over_k() {
    let rows = 32_768;
    let mut random = fastrand::Rng::with_seed(5);
    for count in [2, 3, 10, 100, 1000] {
        let mut bad = BTreeSet::new();
        while bad.len() < count {
            bad.insert(random.usize(0..rows));
        }
        let promised = 2.0 * count as f64 * (log2(rows / count) + 1.0);
        let halving = run(rows, &bad, Names::None);
        assert!(f64::from(halving) <= promised, "{count} rows: {halving} requests, {promised} promised");
        let named = run(rows, &bad, Names::First);
        assert!(named as usize <= 3 * count + 1, "{count} rows: {named} requests with the server's help");
    }
}

#[test]
fn every_set_of_bad_rows_of_a_small_batch_is_found_whatever_rows_the_server_names() {
    for rows in 1..=7 {
        for set in 0..1_usize << rows {
            let bad = (0..rows).filter(|row| set & (1 << row) != 0).collect();
            for names in [Names::None, Names::First, Names::Wrong, Names::Outside] {
                run(rows, &bad, names);
            }
        }
    }
}

#[test]
fn batches_of_random_sizes_end_whatever_rows_the_server_names() {
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..300 {
        let rows = random.usize(1..400);
        let share = random.usize(1..rows + 1);
        let bad = (0..rows).filter(|_| random.usize(0..rows) < share).collect();
        for names in [Names::None, Names::First, Names::Wrong, Names::Outside] {
            run(rows, &bad, names);
        }
    }
}

#[test]
fn rows_that_do_not_go_together_are_halved_until_they_do_and_never_rejected() {
    let mut bisection = Bisection::new(1000);
    let mut rows = 0;
    let mut inserts = 0;
    while let Some(part) = bisection.next() {
        if part.len() > 100 {
            assert_eq!(bisection.rejected(Rejection::Size), Step::Continue);
        } else {
            bisection.accepted();
            rows += part.len();
            inserts += 1;
        }
    }
    assert_eq!((rows, inserts, bisection.rejected_rows()), (1000, 16, 0));
    let mut single = Bisection::new(1);
    assert_eq!(single.rejected(Rejection::Size), Step::Stuck);
}

#[test]
fn a_postponed_part_comes_after_the_others() {
    let mut bisection = Bisection::new(4);
    assert_eq!(bisection.rejected(Rejection::Row(None)), Step::Continue);
    assert_eq!(bisection.next().map(|part| part.rows), Some(0..2));
    bisection.postpone();
    // Nothing shows that this half contains the bad row.
    assert_eq!(bisection.next().map(|part| part.rows), Some(2..4));
    bisection.accepted();
    assert_eq!(bisection.next().map(|part| part.rows), Some(0..2));
}

#[test]
fn a_row_that_the_server_named_is_not_postponed() {
    let mut bisection = Bisection::new(4);
    assert_eq!(bisection.rejected(Rejection::Row(Some(1))), Step::Continue);
    bisection.postpone();
    assert_eq!(bisection.next().map(|part| part.rows), Some(1..2));
}

#[test]
fn failures_are_counted_for_each_part_and_code() {
    let mut bisection = Bisection::new(2);
    let count = |bisection: &mut Bisection, code, inserts| {
        bisection.count_failure(code, inserts).map(|failures| (failures.times, failures.inserts))
    };
    assert_eq!(count(&mut bisection, 241, 7), Some((1, 7)));
    assert_eq!(count(&mut bisection, 241, 9), Some((2, 7)));
    assert_eq!(count(&mut bisection, 202, 9), Some((1, 9)));
    assert_eq!(bisection.rejected(Rejection::Size), Step::Continue);
    assert_eq!(count(&mut bisection, 202, 9), Some((1, 9)));
}
