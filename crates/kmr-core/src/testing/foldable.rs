//! Checks that the functions of a fold keep their contract.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::thread::sleep;
use std::time::Duration;

use crate::fold::Fold;

/// How often everything is computed again.
const ROUNDS: u32 = 12;
/// The time that the rounds take at least: more than a second, for clocks that count seconds.
const TIME: Duration = Duration::from_millis(1_100);
/// Triples of rows that are merged in both orders.
const TRIPLES: usize = 10_000;

/// Checks that the functions of a [`Fold`] keep its contract, with some values of a topic.
///
/// * `merge` is associative, for each three values of a key in their order.
/// * Keys and rows are the same when they are computed again, several times within 1.1 s. So a
///   function that depends on a clock, on random numbers, on a counter or on the order of a
///   `HashMap` is found.
///
/// It cannot prove the contract. It finds no clock that counts minutes, and nothing that other
/// values than these would show. Sums of `f64` are associative only for values whose sums are
/// exact, such as small integers: use those. A NaN never equals itself.
///
/// # Panics
/// If the contract is broken, with the values by their index. If no key has three values, because
/// then nothing is checked.
///
/// # Examples
/// ```
/// use kmr_core::Fold;
/// use kmr_core::testing::assert_foldable;
///
/// let sums = Fold::by_key(|n: &u64| n % 10, |n| (n % 10, n), |row, later| row.1 += later.1);
/// assert_foldable(&sums, 0..100);
/// ```
#[track_caller]
pub fn assert_foldable<T, K, A>(fold: &Fold<T, K, A>, values: impl IntoIterator<Item = T>)
where
    T: Clone,
    K: Eq + Hash + Debug,
    A: PartialEq + Debug,
{
    let values: Vec<T> = values.into_iter().collect();
    let mut keys: HashMap<K, Vec<usize>> = HashMap::new();
    for (index, value) in values.iter().enumerate() {
        keys.entry(fold.key(value)).or_default().push(index);
    }
    let mut groups: Vec<Vec<usize>> = keys.into_values().collect();
    groups.sort();
    let triples: Vec<[usize; 3]> = groups.iter().flat_map(|of_key| triples(of_key)).take(TRIPLES).collect();
    assert!(!triples.is_empty(), "no key has three values: assert_foldable needs three of one key");
    let check = Check { fold, values: &values };
    // First, because merging with a clock or random numbers is not associative either.
    check.repetition(&groups);
    check.associativity(&triples);
}

/// Each three of `indices`, in their order.
fn triples(indices: &[usize]) -> impl Iterator<Item = [usize; 3]> + '_ {
    let after = |at: usize| indices.iter().enumerate().skip(at);
    after(0).flat_map(move |(i, a)| {
        after(i + 1).flat_map(move |(j, b)| after(j + 1).map(move |(_, c)| [*a, *b, *c])) //
    })
}

struct Check<'a, T, K, A> {
    fold: &'a Fold<T, K, A>,
    values: &'a [T],
}

impl<T, K, A> Check<'_, T, K, A>
where
    T: Clone,
    K: Eq + Hash + Debug,
    A: PartialEq + Debug,
{
    fn row(&self, index: usize) -> A {
        self.fold.init(self.values[index].clone())
    }

    fn merged(&self, mut row: A, later: A) -> A {
        self.fold.merge(&mut row, later);
        row
    }

    #[track_caller]
    fn associativity(&self, triples: &[[usize; 3]]) {
        for [a, b, c] in triples.iter().copied() {
            let left = self.merged(self.merged(self.row(a), self.row(b)), self.row(c));
            let right = self.merged(self.row(a), self.merged(self.row(b), self.row(c)));
            assert!(
                left == right,
                "`merge` is not associative: with the values {a}, {b} and {c}, merging the first two first gives \
                 {left:?}, and merging the last two first gives {right:?}"
            );
        }
    }

    /// The key and the row of each value, and the folded row of each key.
    fn results(&self, groups: &[Vec<usize>]) -> (Vec<(K, A)>, Vec<A>) {
        let alone = |index| (self.fold.key(&self.values[index]), self.row(index));
        let folded = |of_key: &Vec<usize>| {
            let rows = of_key.iter().map(|index| self.row(*index));
            rows.reduce(|row, later| self.merged(row, later))
        };
        ((0..self.values.len()).map(alone).collect(), groups.iter().filter_map(folded).collect())
    }

    #[track_caller]
    fn repetition(&self, groups: &[Vec<usize>]) {
        let (expected, folded) = self.results(groups);
        for _ in 0..ROUNDS {
            sleep(TIME / ROUNDS);
            let (again, folded_again) = self.results(groups);
            for (index, ((key, row), (other_key, other))) in expected.iter().zip(&again).enumerate() {
                same(&format!("`key` of value {index}"), key, other_key);
                same(&format!("`init` of value {index}"), row, other);
            }
            for (of_key, (row, other)) in groups.iter().zip(folded.iter().zip(&folded_again)) {
                same(&format!("`merge` of the values {of_key:?}"), row, other);
            }
        }
    }
}

#[track_caller]
fn same<R: PartialEq + Debug>(what: &str, first: &R, again: &R) {
    assert!(
        first == again,
        "{what} gave {first:?} at first and {again:?} later: it depends on something besides its arguments, such as \
         a clock or a random number"
    );
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::util::panic::panic_message;

    /// Checks a fold of the numbers up to 12 by their remainder, and returns the panic's message.
    fn problem(
        init: impl Fn(u64) -> u64 + Send + Sync + 'static,
        merge: impl Fn(&mut u64, u64) + Send + Sync + 'static,
    ) -> Option<String> {
        problem_of(&Fold::by_key(|n: &u64| n % 3, init, merge))
    }

    fn problem_of(fold: &Fold<u64, u64, u64>) -> Option<String> {
        let checked = catch_unwind(std::panic::AssertUnwindSafe(|| assert_foldable(fold, 0..12)));
        checked.err().map(|panic| panic_message(&*panic))
    }

    #[track_caller]
    fn assert_found(problem: Option<String>, words: &[&str]) {
        let text = problem.expect("a problem is found");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }

    fn seconds() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn sums_and_the_last_value_pass() {
        assert_eq!(problem(|n| n, |row, later| *row += later), None);
        assert_eq!(problem_of(&Fold::last_by_key(|n: &u64| n % 3)), None);
    }

    #[test]
    fn a_function_that_is_not_associative_is_found() {
        let words = ["`merge` is not associative", "with the values"];
        assert_found(problem(|n| n, |row, later| *row = row.abs_diff(later)), &words);
        assert_found(problem(|n| n + 1, |row, later| *row = (*row + later) / 2), &words);
    }

    #[test]
    fn a_merge_that_depends_on_the_clock_is_found() {
        let words = ["`merge` of the values", "a clock"];
        assert_found(problem(|n| n, |row, _| *row = seconds()), &words);
    }

    #[test]
    fn a_row_that_depends_on_the_clock_or_on_a_counter_is_found() {
        let words = ["`init` of value 0", "a clock"];
        assert_found(problem(|_| seconds(), |_, _| {}), &words);
        let counter = AtomicU64::new(0);
        let counts = move |_| counter.fetch_add(1, Ordering::Relaxed);
        assert_found(problem(counts, |_, _| {}), &["`init`"]);
    }

    #[test]
    fn a_function_that_depends_on_random_numbers_is_found() {
        let random = || RandomState::new().hash_one(0) % 2;
        assert_found(problem_of(&Fold::by_key(move |_| random(), |n| n, |_, _| {})), &["`key` of value"]);
        let keeps_any = move |row: &mut u64, later| *row = if random() == 0 { *row } else { later };
        assert_found(problem(|n| n, keeps_any), &["`merge` of the values", "a random number"]);
    }

    #[test]
    fn values_that_show_nothing_are_rejected() {
        let fold = Fold::last_by_key(|n: &u64| *n);
        assert_found(problem_of(&fold), &["no key has three values"]);
    }
}
