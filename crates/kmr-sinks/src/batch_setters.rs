//! The setters of the batch options, which all writers have.

/// Defines builder methods of a writer with a field `options: BatchOptions`. A doc comment on a
/// name adds to the method's documentation.
macro_rules! batch_setters {
    ($($(#[$doc:meta])* $setter:ident;)*) => {
        $($crate::batch_setters::batch_setters!(@$setter [$(#[$doc])*]);)*
    };
    (@max_rows [$($doc:tt)*]) => {
        /// Rows in a batch. Default 32,768; at least 1.
        $($doc)*
        pub fn max_rows(mut self, rows: usize) -> Self {
            self.options = self.options.with_max_rows(rows);
            self
        }
    };
    (@max_bytes [$($doc:tt)*]) => {
        /// Size of a batch, bytes. Default 8 MiB. A batch always accepts one row, however large.
        $($doc)*
        pub fn max_bytes(mut self, bytes: usize) -> Self {
            self.options = self.options.with_max_bytes(bytes);
            self
        }
    };
    (@max_age [$($doc:tt)*]) => {
        /// Age of a batch since its first row. Default 1 s.
        $($doc)*
        pub fn max_age(mut self, age: std::time::Duration) -> Self {
            self.options = self.options.with_max_age(age);
            self
        }
    };
    (@max_in_flight [$($doc:tt)*]) => {
        /// Concurrent deliveries; at least 1.
        $($doc)*
        pub fn max_in_flight(mut self, deliveries: usize) -> Self {
            self.options = self.options.with_max_in_flight(deliveries);
            self
        }
    };
    (@attempt_timeout [$($doc:tt)*]) => {
        /// Time limit of one attempt. Default 20 s.
        $($doc)*
        pub fn attempt_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options = self.options.with_attempt_timeout(timeout);
            self
        }
    };
    (@retry [$($doc:tt)*]) => {
        /// Backoff between attempts, and the retry limit. Default: 100 ms doubling up to 10 s, for
        /// 5 minutes.
        $($doc)*
        pub fn retry(mut self, retry: kmr_core::RetryPolicy) -> Self {
            self.options = self.options.with_retry(retry);
            self
        }
    };
    (@partial_batch [$($doc:tt)*]) => {
        /// What happens to the open batch when the consumer stops. Default: it is delivered.
        $($doc)*
        pub fn partial_batch(mut self, partial_batch: kmr_core::PartialBatch) -> Self {
            self.options = self.options.with_partial_batch(partial_batch);
            self
        }
    };
}

pub(crate) use batch_setters;
