//! Sets of offsets: the bitmap of a window, the dead letters of a partition, and the few that are listed for people.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of offsets of one window: a bit for each.
#[derive(Clone, Debug)]
pub(crate) struct Bits {
    range: Range<u64>,
    words: Vec<u64>,
}

impl Bits {
    /// None of `range`.
    pub(crate) fn none_of(range: Range<u64>) -> Self {
        let words = vec![0; (range.end.saturating_sub(range.start)).div_ceil(64) as usize];
        Self { range, words }
    }

    /// The window.
    pub(crate) fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Adds an offset; whether it is in the window and was not there.
    pub(crate) fn insert(&mut self, offset: u64) -> bool {
        if !self.range.contains(&offset) {
            return false;
        }
        let at = offset - self.range.start;
        let (word, bit) = (&mut self.words[(at / 64) as usize], 1 << (at % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Adds those that are in the window.
    pub(crate) fn add(&mut self, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            self.insert(offset);
        }
    }

    /// All offsets of the window, in the set or not.
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The offsets for which `pick` says so, from the words of this set and of two others of the same window.
    pub(crate) fn combine(&self, b: &Self, c: &Self, pick: fn(u64, u64, u64) -> u64) -> Self {
        let words =
            self.words.iter().zip(&b.words).zip(&c.words).map(|((a, b), c)| pick(*a, *b, *c)).collect();
        Self { range: self.range.clone(), words }
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().enumerate().flat_map(move |(at, word)| {
            let first = self.range.start + at as u64 * 64;
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = u64::from(left.trailing_zeros());
                left &= left.checked_sub(1)?;
                Some(first + bit)
            })
        })
    }
}

/// A set of offsets of any size: 2 bytes each where they are few, a bit for each offset where they are many.
#[derive(Clone, Debug, Default)]
pub(crate) struct OffsetSet {
    chunks: BTreeMap<u64, Chunk>,
}

/// 65,536 offsets.
#[derive(Clone, Debug)]
enum Chunk {
    /// Sorted.
    Few(Vec<u16>),
    Many(Bits),
}

const CHUNK: u64 = 1 << 16;
/// From here on a bitmap is smaller.
const FEW: usize = 4096;

impl OffsetSet {
    /// Adds an offset; whether it was not there.
    pub(crate) fn insert(&mut self, offset: u64) -> bool {
        let chunk = self.chunks.entry(offset / CHUNK).or_insert_with(|| Chunk::Few(Vec::new()));
        let at = (offset % CHUNK) as u16;
        match chunk {
            Chunk::Many(bits) => bits.insert(u64::from(at)),
            Chunk::Few(few) => match few.binary_search(&at) {
                Ok(_) => false,
                Err(place) if few.len() < FEW => {
                    few.insert(place, at);
                    true
                }
                Err(_) => {
                    let mut bits = Bits::none_of(0..CHUNK);
                    bits.add(few.iter().chain([&at]).map(|at| u64::from(*at)));
                    *chunk = Chunk::Many(bits);
                    true
                }
            },
        }
    }

    /// Those of a window.
    pub(crate) fn within(&self, range: &Range<u64>) -> Bits {
        let mut found = Bits::none_of(range.clone());
        for (number, chunk) in self.chunks.range(range.start / CHUNK..range.end.div_ceil(CHUNK)) {
            let first = number * CHUNK;
            match chunk {
                Chunk::Few(few) => found.add(few.iter().map(|at| first + u64::from(*at))),
                Chunk::Many(bits) => found.add(bits.iter().map(|at| first + at)),
            }
        }
        found
    }
}

/// How many there are, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// All, listed or not.
    pub(crate) count: u64,
    /// The first ones, as runs: first and last offset.
    pub(crate) runs: Vec<(u64, u64)>,
    listed: u64,
}

impl Listing {
    /// Adds offsets, in ascending order; up to `limit` runs are listed.
    pub(crate) fn extend(&mut self, offsets: &Bits, limit: usize) {
        for offset in offsets.iter() {
            self.count += 1;
            // Only while nothing was left out: a run goes on at the next window.
            let complete = self.listed + 1 == self.count;
            let room = self.runs.len() < limit;
            match self.runs.last_mut() {
                Some((_, last)) if complete && *last + 1 == offset => *last = offset,
                _ if room => self.runs.push((offset, offset)),
                _ => continue,
            }
            self.listed += 1;
        }
    }

    /// `3, 5–9 and 12 more`.
    pub(crate) fn text(&self) -> String {
        let run = |(first, last): &(u64, u64)| match first == last {
            true => first.to_string(),
            false => format!("{first}–{last}"),
        };
        let mut text = self.runs.iter().map(run).collect::<Vec<_>>().join(", ");
        if self.listed < self.count {
            text += &format!(" and {} more", crate::numbers::grouped(self.count - self.listed));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(range: Range<u64>, offsets: &[u64]) -> Bits {
        let mut bits = Bits::none_of(range);
        bits.add(offsets.iter().copied());
        bits
    }

    #[test]
    fn a_window_holds_its_own_offsets_alone() {
        let mut window = bits(100..230, &[100, 163, 164, 229]);
        assert!(!window.insert(99) && !window.insert(230) && !window.insert(164) && window.insert(165));
        assert_eq!(window.iter().collect::<Vec<_>>(), [100, 163, 164, 165, 229]);
        assert_eq!(window.count(), 5);
    }

    #[test]
    fn few_and_many_are_the_same_set() {
        let mut set = OffsetSet::default();
        let offsets = || (0..6_000_u64).map(|n| CHUNK - 3_000 + n * 7 % 6_000);
        assert!(offsets().all(|offset| set.insert(offset)));
        assert!(offsets().all(|offset| !set.insert(offset)));
        assert!(set.insert(9 * CHUNK + 1));
        assert_eq!(set.within(&(0..20 * CHUNK)).count(), 6_001);
        let some = set.within(&(CHUNK - 2..CHUNK + 1));
        assert_eq!(some.iter().collect::<Vec<_>>(), [CHUNK - 2, CHUNK - 1, CHUNK]);
        for offset in 0..10_000 {
            set.insert(offset);
        }
        assert!(matches!(set.chunks[&0], Chunk::Many(_)));
        assert_eq!(
            set.within(&(5_000..12_000)).iter().collect::<Vec<_>>(),
            (5_000..10_000).collect::<Vec<_>>()
        );
    }

    #[test]
    fn listings_are_bounded_and_counts_are_not() {
        let mut listing = Listing::default();
        listing.extend(&bits(0..64, &[3, 5, 6, 62, 63]), 3);
        listing.extend(&bits(64..128, &[64, 65, 70, 71]), 3);
        assert_eq!(listing.text(), "3, 5–6, 62–65 and 2 more");
        assert_eq!(listing.count, 9);
        let mut none = Listing::default();
        none.extend(&bits(0..64, &[1]), 0);
        assert_eq!(none.text(), " and 1 more");
    }
}
