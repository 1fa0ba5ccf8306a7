//! Remembers on disk how often in a row the supervisor gave up, so that the next start waits longer each time: systemd
//! itself has no growing pauses before version 254.
//!
//! The file lies beside the database. Where that is on a server, it lies in systemd's state directory, or else in the
//! folder in which the daemon keeps its socket.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::config::{DatabaseUrl, Settings};
use crate::domain::time::UnixMillis;
use crate::telemetry::metrics;

const FILE_NAME: &str = "gave-up.json";

/// Before the start after the first one; doubled with each that follows.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Shorter than systemd waits for a start by default, so that a start that waits is not taken for one that failed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A run of so many windows of the restart budget is a healthy one.
const HEALTHY_WINDOWS: u32 = 10;

/// Nobody waits longer for a disk that does not answer.
const WRITE_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// In a row.
    times: u32,
    last_at_ms: i64,
    /// Of the last one.
    reason: String,
}

/// How often it gave up before, and where that is kept.
#[derive(Clone)]
pub struct GiveUps {
    path: PathBuf,
    clock: SharedClock,
    times: Arc<AtomicU32>,
    last: Option<Kept>,
    /// One writer at a time.
    writing: Arc<Mutex<()>>,
}

impl GiveUps {
    pub fn read(settings: &Settings, clock: SharedClock) -> Self {
        GiveUps::at(path(settings), clock)
    }

    fn at(path: PathBuf, clock: SharedClock) -> Self {
        let last = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let last = last.unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "how often the supervisor gave up cannot be read: this start waits for nothing");
            None
        });
        let times = Arc::new(AtomicU32::new(last.as_ref().map_or(0, |last| last.times)));
        GiveUps { path, clock, times, last, writing: Arc::default() }
    }

    /// In a row, before this start.
    pub fn times(&self) -> u32 {
        self.times.load(Ordering::Acquire)
    }

    /// Waits before a start as long as what went before asks for.
    pub async fn wait(&self) {
        let Some(last) = &self.last else { return };
        let wait = wait_after(last, self.clock.now());
        let (times, reason) = (last.times, last.reason.as_str());
        tracing::warn!(
            times,
            reason,
            wait_ms = wait.as_millis(),
            "the supervisor has given up {times} times in a row: this start waits {wait:?}"
        );
        tokio::time::sleep(wait).await;
    }

    /// Once more.
    pub fn note(&self, reason: &str) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let times = self.times().saturating_add(1);
        self.times.store(times, Ordering::Release);
        let kept = Kept { times, last_at_ms: self.clock.now().as_millis(), reason: reason.to_owned() };
        if let Err(error) = self.write(&kept) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "that the supervisor gave up cannot be kept: the next start will not wait");
        }
    }

    /// The same, from a process that ends at once: a disk that hangs does not hold it up.
    pub fn note_at_once(&self, reason: String) {
        let (done, is_done) = sync_channel(1);
        let note = self.clone();
        thread::spawn(move || {
            note.note(&reason);
            done.send(()).ok();
        });
        is_done.recv_timeout(WRITE_WAIT).ok();
    }

    /// A healthy run makes up for what went before.
    pub fn forget(&self) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        metrics::gave_up(0);
        if self.times.swap(0, Ordering::AcqRel) > 0
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "that the supervisor gave up once cannot be forgotten");
        }
    }

    /// Forgets once this run has lasted for long enough.
    pub async fn forget_when_healthy(self, window: Duration) {
        tokio::time::sleep(window * HEALTHY_WINDOWS).await;
        self.forget();
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let draft = self.path.with_extension("draft");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_all()?;
        fs::rename(draft, &self.path)
    }
}

fn path(settings: &Settings) -> PathBuf {
    let url = &settings.database.url;
    let folder = match url {
        DatabaseUrl::Sqlite(_) => None,
        DatabaseUrl::Mysql(_) => std::env::var("STATE_DIRECTORY").ok(),
    };
    // systemd names several with colons between them.
    let folder = folder.as_deref().and_then(|all| all.split(':').next()).filter(|first| !first.is_empty());
    folder.map_or_else(|| url.state_folder().to_owned(), PathBuf::from).join(FILE_NAME)
}

/// What is left of the pause since then. A clock that was set back asks for all of it once more.
fn wait_after(last: &Kept, now: UnixMillis) -> Duration {
    let doublings = last.times.saturating_sub(1).min(16);
    let pause = FIRST_WAIT.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_WAIT);
    pause.saturating_sub(now.since(UnixMillis::new(last.last_at_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> UnixMillis {
            UnixMillis::new(1_800_000_000_000)
        }
    }

    #[test]
    fn the_pauses_grow_up_to_a_minute_and_count_from_the_last_end() {
        let at = |times, millis_ago: i64| {
            let now = Still.now();
            let kept = Kept { times, last_at_ms: now.as_millis() - millis_ago, reason: String::new() };
            wait_after(&kept, now).as_millis()
        };
        assert_eq!([1, 2, 3, 6, 7, 100].map(|times| at(times, 0)), [1000, 2000, 4000, 32_000, 60_000, 60_000]);
        assert_eq!((at(3, 1500), at(3, 5000), at(3, -3_600_000)), (2500, 0, 4000));
    }

    #[test]
    fn it_is_kept_from_start_to_start_until_it_is_forgotten() {
        let folder = std::env::temp_dir().join(format!("hookledger-give-ups-{}", std::process::id()));
        let open = || GiveUps::at(folder.join("below").join(FILE_NAME), Arc::new(Still));
        assert_eq!(open().times(), 0);
        open().note("first");
        open().note_at_once("second".to_owned());
        // It waits for no more than a moment, since the process is about to end.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while open().times() < 2 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let third = open();
        assert_eq!((third.times(), third.last.as_ref().unwrap().reason.as_str()), (2, "second"));
        third.forget();
        assert_eq!((third.times(), open().times()), (0, 0));
        third.note("after a healthy run");
        assert_eq!(open().times(), 1);
        fs::write(folder.join("below").join(FILE_NAME), "junk").unwrap();
        assert_eq!(open().times(), 0);
        fs::remove_dir_all(folder).unwrap();
    }
}
