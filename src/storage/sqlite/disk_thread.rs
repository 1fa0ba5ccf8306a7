//! Whether the thread that carries out what the writer asks of the disk gets on, by what the system counts of it.
//!
//! A commit to a slow disk may take minutes. Taking that for a hang would end the process in the middle of it, and the
//! next one would meet the same.

use std::fs;
use std::path::Path;

use crate::storage::pulse::DiskSign;

/// Of the thread. The system keeps fifteen bytes of a name.
pub const NAME: &str = "ledger-disk";

/// Threads of this process.
const THREADS: &str = "/proc/self/task";

/// What the thread has done so far; nothing where there is none, or the system does not tell.
pub fn look() -> Option<DiskSign> {
    let mut calls = None;
    // Beside the one that works there may be one that a connection left behind, and that still closes its files.
    for thread in fs::read_dir(THREADS).ok()?.flatten() {
        let folder = thread.path();
        if fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim_end() == NAME) {
            match sign(&folder) {
                Some(DiskSign::Calls(more)) => calls = Some(calls.unwrap_or(0) + more),
                sign => return sign,
            }
        }
    }
    calls.map(DiskSign::Calls)
}

fn sign(thread: &Path) -> Option<DiskSign> {
    if waits_in_the_system(&fs::read_to_string(thread.join("stat")).ok()?) {
        return Some(DiskSign::InTheSystem);
    }
    calls(&fs::read_to_string(thread.join("io")).ok()?).map(DiskSign::Calls)
}

/// The state comes behind the name, which may hold anything.
fn waits_in_the_system(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, behind)| behind.trim_start().starts_with('D'))
}

fn calls(io: &str) -> Option<u64> {
    let count = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(count("syscr:")?.wrapping_add(count("syscw:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read() {
        assert_eq!(calls("rchar: 7\nwchar: 8\nsyscr: 3\nsyscw: 4\nread_bytes: 0\n"), Some(7));
        assert_eq!(calls("rchar: 7\n"), None);
        assert!(waits_in_the_system("17 (a name) D) D 1 17 17"));
        assert!(!waits_in_the_system("17 (D) S 1 17 17"));
    }

    #[test]
    fn a_thread_of_this_name_is_found() {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
        let work = move || stopped.recv().is_err();
        let thread = std::thread::Builder::new().name(NAME.to_owned()).spawn(work).unwrap();
        // A thread gives itself its name, and may be in the system for an instant.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut found = look();
        while !matches!(found, Some(DiskSign::Calls(_))) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
            found = look();
        }
        assert!(matches!(found, Some(DiskSign::Calls(_))), "{found:?}");
        drop(stop);
        thread.join().unwrap();
    }
}
