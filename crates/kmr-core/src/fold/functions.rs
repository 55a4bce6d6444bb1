//! The functions of a fold.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

type Key<T, K> = Arc<dyn Fn(&T) -> K + Send + Sync>;
type Init<T, A> = Arc<dyn Fn(T) -> A + Send + Sync>;
type Merge<A> = Arc<dyn Fn(&mut A, A) + Send + Sync>;
type HeapBytes<K, A> = Arc<dyn Fn(&K, &A) -> usize + Send + Sync>;

/// The functions of a fold, which all map tasks share.
pub(super) struct Functions<T, K, A> {
    pub(super) key: Key<T, K>,
    pub(super) init: Init<T, A>,
    pub(super) merge: Merge<A>,
    /// Bytes that the key and the row of one value own on the heap, if the program knows them.
    pub(super) heap_bytes: Option<HeapBytes<K, A>>,
    /// Hashes keys. The seed is random, so no record can be made to collide with others. No result
    /// depends on a hash.
    hasher: RandomState,
}

impl<T, K, A> Functions<T, K, A> {
    pub(super) fn new(key: Key<T, K>, init: Init<T, A>, merge: Merge<A>) -> Self {
        Self { key, init, merge, heap_bytes: None, hasher: RandomState::new() }
    }
}

impl<T, K, A> Clone for Functions<T, K, A> {
    fn clone(&self) -> Self {
        let Self { key, init, merge, heap_bytes, hasher } = self;
        Self {
            key: Arc::clone(key),
            init: Arc::clone(init),
            merge: Arc::clone(merge),
            heap_bytes: heap_bytes.clone(),
            hasher: hasher.clone(),
        }
    }
}

impl<T, K: Hash, A> Functions<T, K, A> {
    /// The key of a value with its hash, and its row.
    pub(super) fn row_of(&self, value: T) -> (u64, K, A) {
        let key = (self.key)(&value);
        (self.hasher.hash_one(&key), key, (self.init)(value))
    }
}
