//! Makes system calls of a running daemon fail or dawdle, on the files that a test names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::daemon::Daemon;
use super::process::send_signal;
use super::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// What befalls some of the system calls on some files.
#[derive(Debug, Clone)]
pub struct Fault {
    /// As strace names them, with commas between.
    pub calls: String,
    /// `error=ENOSPC`, `delay_enter=200000` (microseconds) …
    pub what: String,
    /// Which of the calls: `3` is the third alone, `3+` that and all later ones, of each thread.
    pub when: String,
    /// Files of the daemon's folder.
    pub files: Vec<String>,
}

impl Fault {
    pub fn new(calls: &str, what: &str, when: impl ToString, files: &[&str]) -> Self {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        Fault { calls: calls.to_owned(), what: what.to_owned(), when: when.to_string(), files }
    }

    /// What comes behind `strace`, for files in this folder.
    pub fn arguments(&self, folder: &Path) -> Vec<String> {
        let Fault { calls, what, when, files } = self;
        // The syncs of the same files are traced beside them: they show how far the daemon got.
        let trace = format!("trace={calls},fdatasync");
        let inject = format!("inject={calls}:{what}:when={when}");
        let mut arguments = ["-f", "-y", "-s", "0", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec();
        for file in files {
            arguments.extend(["-P".to_owned(), folder.join(file).display().to_string()]);
        }
        arguments
    }

    /// From here on, until what this returns goes out of scope.
    #[track_caller]
    pub fn begin(&self, daemon: &Daemon) -> Injection {
        let (trace, complaints) = (daemon.folder().join("trace"), daemon.folder().join("strace"));
        fs::remove_file(&trace).ok();
        let mut command = Command::new("strace");
        command.args(self.arguments(daemon.folder())).arg("-o").arg(&trace).args(["-p", &daemon.pid().to_string()]);
        let strace = command.stderr(File::create(&complaints).unwrap()).spawn().unwrap();
        wait_until("strace is attached", PATIENCE, || {
            fs::read_to_string(&complaints).unwrap().contains("attached").then_some(())
        });
        Injection { strace, trace }
    }
}

/// A fault that is in force.
#[derive(Debug)]
pub struct Injection {
    strace: Child,
    trace: PathBuf,
}

impl Injection {
    /// Some call was reached that it was meant for.
    pub fn was_reached(&self) -> bool {
        let trace = self.trace();
        trace.contains("(INJECTED)") || trace.contains("(DELAYED)")
    }

    /// What was called so far, as strace wrote it down.
    pub fn trace(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.trace).unwrap_or_default()).into_owned()
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // An interrupt lets strace detach, where a kill would leave the daemon stopped.
        send_signal("INT", self.strace.id());
        self.strace.wait().ok();
    }
}
