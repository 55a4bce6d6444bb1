//! Finds the target of a key: by a prediction from the key before it, else by a hash table.
//!
//! Records of a topic have their keys in the same order most of the time. After a miss, the
//! prediction changes. Keys that fill no column are learned, so that they are predicted as well.

use super::cursor::{Cursor, Raw};
use super::escape::unescape;
use super::fault::Result;

/// Learned keys of one object at most: a record may have keys that never come again.
const MAX_LEARNED: usize = 64;
/// A longer key is not learned.
const LONGEST_LEARNED: usize = 64;

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing: the key is unknown.
    None,
    /// The column of this index.
    Column(usize),
    /// The keys of another object.
    Node(usize),
}

/// The keys of one object.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Index of a key plus one, at its hash; 0 is empty. The size is a power of two.
    table: Vec<u16>,
    /// For each key, after index 0 for the start of the object: the key that comes next.
    next: Vec<u16>,
    learned: usize,
}

#[derive(Clone, Debug)]
struct Key {
    /// The key with quotes and colon.
    quoted: Box<[u8]>,
    /// Whether JSON may spell the key like this, without escapes.
    is_plain: bool,
    target: Target,
}

impl Key {
    fn text(&self) -> &[u8] {
        self.quoted.get(1..self.quoted.len().saturating_sub(2)).unwrap_or_default()
    }
}

/// A key that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundKey<'j> {
    pub(super) target: Target,
    /// The key as it is written, between its quotes.
    pub(super) raw: Raw<'j>,
    /// The place to predict the next key from.
    pub(super) place: usize,
}

impl Keys {
    /// Adds a key that is not there.
    pub(super) fn add(&mut self, key: &[u8], target: Target) {
        let quoted = [b"\"", key, b"\":"].concat().into();
        let is_plain = !key.iter().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        self.keys.push(Key { quoted, is_plain, target });
        self.next.resize(self.keys.len() + 1, 0);
        // After a key comes the one that was added next, until a record shows another order.
        if self.learned == 0
            && let Some(next) = self.next.get_mut(self.keys.len() - 1)
        {
            *next = (self.keys.len() - 1) as u16; // see `is_full`
        }
        if self.table.len() < (self.keys.len() + MAX_LEARNED) * 2 {
            self.table = vec![0; ((self.keys.len() + MAX_LEARNED) * 4).next_power_of_two()];
            (0..self.keys.len()).for_each(|index| self.place(index));
        } else {
            self.place(self.keys.len() - 1);
        }
    }

    /// Whether no more keys can be added.
    pub(super) fn is_full(&self) -> bool {
        self.keys.len() + MAX_LEARNED >= usize::from(u16::MAX)
    }

    /// The target of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<Target> {
        self.find(key).map(|index| self.keys[index].target)
    }

    fn place(&mut self, index: usize) {
        let mask = self.table.len() - 1;
        let mut at = hash(self.keys[index].text()) & mask;
        while self.table[at] != 0 {
            at = (at + 1) & mask;
        }
        self.table[at] = (index + 1) as u16; // see `is_full`
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let mask = self.table.len().checked_sub(1)?;
        let mut at = hash(key) & mask;
        loop {
            let index = usize::from(self.table[at]).checked_sub(1)?;
            if self.keys[index].text() == key {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }

    /// Reads the key that is next, and its colon. `place` is that of the key before, or 0.
    #[inline]
    pub(super) fn read<'j>(
        &mut self,
        json: &mut Cursor<'j>,
        place: usize,
        text: &mut Vec<u8>,
    ) -> Result<FoundKey<'j>> {
        let start = json.at;
        let predicted = self.next.get(place).map_or(0, |next| usize::from(*next));
        if let Some(key) = self.keys.get(predicted)
            && key.is_plain
            && json.take_text(&key.quoted)
        {
            let bytes = json.bytes.get(start + 1..json.at - 2).unwrap_or_default();
            let raw = Raw { bytes, has_escapes: false, at: start + 1 };
            json.skip_space();
            return Ok(FoundKey { target: key.target, raw, place: predicted + 1 });
        }
        self.read_other(json, place, text)
    }

    /// Reads a key that was not predicted.
    fn read_other<'j>(
        &mut self,
        json: &mut Cursor<'j>,
        place: usize,
        text: &mut Vec<u8>,
    ) -> Result<FoundKey<'j>> {
        let raw = json.key_and_colon()?;
        let key = if raw.has_escapes {
            text.clear();
            unescape(&raw, text)?;
            text.as_slice()
        } else {
            raw.bytes
        };
        let index = self.find(key).or_else(|| self.learn(&raw));
        let Some(index) = index else { return Ok(FoundKey { target: Target::None, raw, place }) };
        if let Some(next) = self.next.get_mut(place) {
            *next = index as u16; // see `is_full`
        }
        Ok(FoundKey { target: self.keys[index].target, raw, place: index + 1 })
    }

    /// Learns an unknown key.
    fn learn(&mut self, raw: &Raw<'_>) -> Option<usize> {
        if raw.has_escapes || raw.bytes.len() > LONGEST_LEARNED || self.learned == MAX_LEARNED {
            return None;
        }
        self.learned += 1;
        self.add(raw.bytes, Target::None);
        Some(self.keys.len() - 1)
    }
}

/// A hash of length, first and last bytes: the keys of a table are few and known.
#[inline]
fn hash(key: &[u8]) -> usize {
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const LAST: u64 = 0xc2b2_ae3d_27d4_eb4f;
    let word = |bytes: Option<&[u8; 8]>| bytes.map(|bytes| u64::from_le_bytes(*bytes));
    let (first, last) = match (word(key.first_chunk()), word(key.last_chunk())) {
        (Some(first), Some(last)) => (first, last),
        _ => (key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
    };
    let mixed = (first ^ key.len() as u64).wrapping_mul(FIRST) ^ last.wrapping_mul(LAST);
    (mixed ^ mixed >> 29 ^ mixed >> 43) as usize
}
