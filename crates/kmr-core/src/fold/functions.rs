//! The functions of a fold.

use std::hash::{BuildHasher, Hash, RandomState};

type Key<T, K> = Box<dyn Fn(&T) -> K + Send + Sync>;
type Init<T, A> = Box<dyn Fn(T) -> A + Send + Sync>;
type Merge<A> = Box<dyn Fn(&mut A, A) + Send + Sync>;

/// The functions of a fold, which all map tasks share.
pub(super) struct Functions<T, K, A> {
    pub(super) key: Key<T, K>,
    pub(super) init: Init<T, A>,
    pub(super) merge: Merge<A>,
    /// Hashes keys. The seed is random, so no record can be made to collide with others. No result
    /// depends on a hash.
    hasher: RandomState,
}

impl<T, K, A> Functions<T, K, A> {
    pub(super) fn new(key: Key<T, K>, init: Init<T, A>, merge: Merge<A>) -> Self {
        Self { key, init, merge, hasher: RandomState::new() }
    }
}

impl<T, K: Hash, A> Functions<T, K, A> {
    /// The key of a value with its hash, and its row.
    pub(super) fn row_of(&self, value: T) -> (u64, K, A) {
        let key = (self.key)(&value);
        (self.hasher.hash_one(&key), key, (self.init)(value))
    }
}
