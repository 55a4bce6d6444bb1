//! Sets of offsets: the bitmap of a window, a compressed set of any size, and a listing for people.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of offsets of one window, as a bitmap.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    range: Range<u64>,
    words: Vec<u64>,
}

impl Bits {
    /// The empty set in the window `range`.
    pub(super) fn none_of(range: Range<u64>) -> Self {
        let words = vec![0; (range.end.saturating_sub(range.start)).div_ceil(64) as usize];
        Self { range, words }
    }

    /// The window.
    pub(super) fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Adds an offset. Returns whether it is in the window and was not in the set.
    pub(super) fn insert(&mut self, offset: u64) -> bool {
        if !self.range.contains(&offset) {
            return false;
        }
        let at = offset - self.range.start;
        let (word, bit) = (&mut self.words[(at / 64) as usize], 1 << (at % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Adds the offsets that are in the window.
    pub(super) fn add(&mut self, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            self.insert(offset);
        }
    }

    /// Number of offsets in the window, in the set or not.
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Number of offsets in the set.
    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Combines this set with two others of the same window, word by word.
    pub(super) fn combine(&self, b: &Self, c: &Self, pick: fn(u64, u64, u64) -> u64) -> Self {
        let words =
            self.words.iter().zip(&b.words).zip(&c.words).map(|((a, b), c)| pick(*a, *b, *c)).collect();
        Self { range: self.range.clone(), words }
    }

    /// In ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
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

/// A set of offsets of any size: 2 bytes each in sparse ranges, a bitmap in dense ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct OffsetSet {
    chunks: BTreeMap<u64, Chunk>,
}

/// The offsets of a range of 65,536.
#[derive(Clone, Debug)]
enum Chunk {
    /// Sorted.
    Sparse(Vec<u16>),
    Dense(Bits),
}

const CHUNK: u64 = 1 << 16;
/// From this number on a bitmap is smaller.
const SPARSE: usize = 4096;

impl OffsetSet {
    /// Adds an offset. Returns whether it was not in the set.
    pub(super) fn insert(&mut self, offset: u64) -> bool {
        let chunk = self.chunks.entry(offset / CHUNK).or_insert_with(|| Chunk::Sparse(Vec::new()));
        let at = (offset % CHUNK) as u16;
        match chunk {
            Chunk::Dense(bits) => bits.insert(u64::from(at)),
            Chunk::Sparse(offsets) => match offsets.binary_search(&at) {
                Ok(_) => false,
                Err(place) if offsets.len() < SPARSE => {
                    offsets.insert(place, at);
                    true
                }
                Err(_) => {
                    let mut bits = Bits::none_of(0..CHUNK);
                    bits.add(offsets.iter().chain([&at]).map(|at| u64::from(*at)));
                    *chunk = Chunk::Dense(bits);
                    true
                }
            },
        }
    }

    /// Adds all offsets of another set.
    pub(super) fn add(&mut self, offsets: &Bits) {
        for offset in offsets.iter() {
            self.insert(offset);
        }
    }

    /// The windows that have offsets, in ascending order.
    pub(super) fn windows(&self) -> Vec<Range<u64>> {
        self.chunks.keys().map(|number| number * CHUNK..(number + 1) * CHUNK).collect()
    }

    /// Number of offsets in a range.
    pub(super) fn count(&self, range: &Range<u64>) -> u64 {
        let parts = self.windows().into_iter().map(|window| clipped(&window, range));
        parts.filter(|part| !part.is_empty()).map(|part| self.within(&part).count()).sum()
    }

    /// The offsets in a window.
    pub(super) fn within(&self, range: &Range<u64>) -> Bits {
        let mut found = Bits::none_of(range.clone());
        for (number, chunk) in self.chunks.range(range.start / CHUNK..range.end.div_ceil(CHUNK)) {
            let first = number * CHUNK;
            match chunk {
                Chunk::Sparse(offsets) => found.add(offsets.iter().map(|at| first + u64::from(*at))),
                Chunk::Dense(bits) => found.add(bits.iter().map(|at| first + at)),
            }
        }
        found
    }
}

/// The part of a range that is in another one; it may be empty.
pub(super) fn clipped(range: &Range<u64>, within: &Range<u64>) -> Range<u64> {
    range.start.max(within.start)..range.end.min(within.end)
}

/// The number of offsets, and the first ones as runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Number of offsets, listed or not.
    pub(super) count: u64,
    /// The first runs: first and last offset.
    pub(super) runs: Vec<(u64, u64)>,
    listed: u64,
}

impl Listing {
    /// Adds offsets in ascending order. Lists at most `limit` runs.
    pub(super) fn extend(&mut self, offsets: &Bits, limit: usize) {
        for offset in offsets.iter() {
            self.count += 1;
            // Only while no offset was left out: a run may continue in the next window.
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
    pub(super) fn text(&self) -> String {
        let run = |(first, last): &(u64, u64)| match first == last {
            true => first.to_string(),
            false => format!("{first}–{last}"),
        };
        let mut text = self.runs.iter().map(run).collect::<Vec<_>>().join(", ");
        if self.listed < self.count {
            text += &format!(" and {} more", kmr_cli_support::numbers::grouped(self.count - self.listed));
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
    fn a_window_has_only_its_own_offsets() {
        let mut window = bits(100..230, &[100, 163, 164, 229]);
        assert!(!window.insert(99) && !window.insert(230) && !window.insert(164) && window.insert(165));
        assert_eq!(window.iter().collect::<Vec<_>>(), [100, 163, 164, 165, 229]);
        assert_eq!(window.count(), 5);
    }

    #[test]
    fn sparse_and_dense_chunks_are_the_same_set() {
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
        assert!(matches!(set.chunks[&0], Chunk::Dense(_)));
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
