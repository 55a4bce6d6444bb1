//! A boxed future.

use std::future::Future;
use std::pin::Pin;

/// A future without a name.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
