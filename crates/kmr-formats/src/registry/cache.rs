//! The schemas by their ids, each fetched once.
//!
//! 1. A schema never changes, so a cached one is valid for the life of the process.
//! 2. One request for an id is under way at a time. Callers that wait for it share its result.
//! 3. An id that failed for a reason of its own is not requested again for a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::{RegisteredSchema, RegistryError};

/// How long an unknown id is remembered. A producer may have registered it since.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(60);
/// How many ids are remembered that failed. Ids are content, so a producer can send any number.
const MOST_FAILED: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Cache {
    schemas: RwLock<HashMap<u32, Arc<RegisteredSchema>>>,
    /// Ids that are being fetched, or failed.
    requests: Mutex<HashMap<u32, Arc<SharedRequest>>>,
}

/// The request for one id. Its holder fetches.
type SharedRequest = tokio::sync::Mutex<Option<Failure>>;

#[derive(Debug)]
struct Failure {
    at: Instant,
    error: RegistryError,
}

impl Cache {
    pub(super) fn cached(&self, id: u32) -> Option<Arc<RegisteredSchema>> {
        self.schemas.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The schema, from the cache or by `fetch`.
    ///
    /// # Cancel safety
    /// If the future is dropped, the next caller that waits fetches.
    pub(super) async fn get_or_fetch(
        &self,
        id: u32,
        fetch: impl Future<Output = Result<RegisteredSchema, RegistryError>>,
    ) -> Result<Arc<RegisteredSchema>, RegistryError> {
        let started = Instant::now();
        let request = self.request(id);
        let mut failure = request.lock().await;
        if let Some(schema) = self.cached(id) {
            return Ok(schema);
        }
        if let Some(failure) = failure.as_ref().filter(|failure| failure.is_valid(started)) {
            return Err(failure.error.clone());
        }
        match fetch.await {
            Ok(schema) => {
                let schema = Arc::new(schema);
                let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
                schemas.insert(id, Arc::clone(&schema));
                drop(schemas);
                self.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                Ok(schema)
            }
            Err(error) => {
                *failure = Some(Failure { at: Instant::now(), error: error.clone() });
                Err(error)
            }
        }
    }

    fn request(&self, id: u32) -> Arc<SharedRequest> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() >= MOST_FAILED && !requests.contains_key(&id) {
            // Those in use are few: as many as records are mapped at once.
            requests.retain(|_, request| Arc::strong_count(request) > 1);
        }
        Arc::clone(requests.entry(id).or_default())
    }
}

impl Failure {
    /// Whether a caller that started at `started` gets this failure.
    fn is_valid(&self, started: Instant) -> bool {
        match self.error.is_of_the_schema() {
            true => self.at.elapsed() < REMEMBERED,
            // It happened while the caller waited.
            false => self.at >= started,
        }
    }
}
