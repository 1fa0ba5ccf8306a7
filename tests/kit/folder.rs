//! A folder of its own for each test: gone afterwards, kept when the test failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static MADE: AtomicU32 = AtomicU32::new(0);

/// Removed with everything in it when it goes out of scope, unless the test panicked.
#[derive(Debug)]
pub struct TestFolder {
    path: PathBuf,
}

/// What a server's files may need.
const ROOM_BYTES: u64 = 6 << 30;

/// A path for a folder, handed out once by this process, at which nothing lies.
pub fn unused_path() -> PathBuf {
    unused_path_in(&std::env::temp_dir())
}

/// The same in memory, where there is room: a server syncs there for nothing. No test takes its machine's power away.
pub fn unused_path_in_memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    if room < ROOM_BYTES { unused_path() } else { unused_path_in(memory) }
}

fn unused_path_in(base: &Path) -> PathBuf {
    // Short: the path of a Unix socket in it must fit 107 bytes.
    for _ in 0..1000 {
        let number = MADE.fetch_add(1, Ordering::SeqCst);
        let path = base.join(format!("hookledger-test-{}-{number}", std::process::id()));
        if !path.exists() {
            return path;
        }
    }
    panic!("{} is full of old test folders", base.display());
}

impl TestFolder {
    pub fn new() -> Self {
        let path = unused_path();
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        TestFolder { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for TestFolder {
    fn default() -> Self {
        TestFolder::new()
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
