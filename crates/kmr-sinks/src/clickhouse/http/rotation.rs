//! What the rotation of passwords, tokens and certificates shares: how files are read again, and
//! how long a rejection may be temporary.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A file is read again at most this often. A read of a small file takes microseconds.
pub(crate) const RECHECK: Duration = Duration::from_secs(2);
/// How long a rejection may be temporary, after the server has accepted what came from the same
/// source. Server and file change one after the other: Kubernetes writes a changed Secret into a
/// container within about a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Longer files hold no password, token or certificate. A wrong path must not fill the memory.
const LONGEST_FILE: u64 = 1 << 20;

/// The content of a small file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut content));
    match read {
        Err(error) => Err(format!("the file {shown} cannot be read: {error}")),
        Ok(read) if read as u64 > LONGEST_FILE => Err(format!("the file {shown} is longer than 1 MiB")),
        Ok(_) if content.trim_ascii().is_empty() => Err(format!("the file {shown} is empty")),
        Ok(_) => Ok(content),
    }
}

/// When a file was read last, and the problem that was logged.
#[derive(Debug, Default)]
pub(crate) struct Rereading {
    read_at: Option<Instant>,
    problem: Option<String>,
}

impl Rereading {
    /// Whether the file is due to be read again; the caller reads it then. `now` overrides the
    /// interval.
    pub(crate) fn is_due(&mut self, now: bool) -> bool {
        let time = Instant::now();
        let is_due = now || self.read_at.is_none_or(|read_at| time >= read_at + RECHECK);
        if is_due {
            self.read_at = Some(time);
        }
        is_due
    }

    /// Whether the problem is a new one, which is logged. `None`: the files are good.
    pub(crate) fn is_new(&mut self, problem: Option<&str>) -> bool {
        // Another text for the same half-written files is no news.
        let is_new = problem.is_some() && self.problem.is_none();
        self.problem = problem.map(str::to_owned);
        is_new
    }
}

/// Decides whether a rejection by the server may be temporary.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<Acceptance>);

#[derive(Debug, Default)]
struct Acceptance {
    accepted: bool,
    rejected_since: Option<Instant>,
}

impl Patience {
    pub(crate) fn accepted(&self) {
        *self.lock() = Acceptance { accepted: true, rejected_since: None };
    }

    /// Records a rejection. Returns how long rejections may still be temporary; `None` if this one
    /// is final, because the server never accepted anything from this source, or no longer does.
    pub(crate) fn rejected(&self) -> Option<Duration> {
        let mut acceptance = self.lock();
        if !acceptance.accepted {
            return None;
        }
        let since = *acceptance.rejected_since.get_or_insert_with(Instant::now);
        PATIENCE.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, Acceptance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rejection_is_temporary_for_two_minutes_after_an_acceptance() {
        let patience = Patience::default();
        assert_eq!(patience.rejected(), None, "a wrong password at the start is final");
        patience.accepted();
        assert_eq!(patience.rejected(), Some(PATIENCE));
        tokio::time::advance(PATIENCE / 2).await;
        assert_eq!(patience.rejected(), Some(PATIENCE / 2));
        tokio::time::advance(PATIENCE / 2).await;
        assert_eq!(patience.rejected(), None);
        patience.accepted();
        assert_eq!(patience.rejected(), Some(PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_read_at_most_once_an_interval_and_one_problem_is_logged() {
        let mut rereading = Rereading::default();
        assert!(rereading.is_due(false) && !rereading.is_due(false) && rereading.is_due(true));
        tokio::time::advance(RECHECK).await;
        assert!(rereading.is_due(false));
        assert!(rereading.is_new(Some("a")) && !rereading.is_new(Some("b")));
        assert!(!rereading.is_new(None) && rereading.is_new(Some("a")));
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_its_end() {
        let text = read_file(Path::new("/dev/zero")).unwrap_err();
        assert!(text.contains("/dev/zero is longer than 1 MiB"), "{text}");
    }
}
