//! A small file system of a test's own, in a mount namespace that nobody else sees and that ends with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::process::run;
use super::wait::poll;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A file system in memory, and the process that holds its namespace.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one at this folder; nothing where that is not permitted.
    pub fn mount(at: &Path, kib: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder can be made");
        // It waits for the end of its input, which comes with the end of the test, however that ends.
        let script = format!("mount -t tmpfs -o size={kib}k,mode=700 tmpfs \"$0\" && touch \"$0/mounted\" && exec cat");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).arg(at);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = command.spawn().ok()?;
        let mut disk = SmallDisk { holder, at: at.to_owned() };
        let mark = disk.seen_from_outside(&at.join("mounted"));
        let is_mounted = poll(TIMEOUT, || match disk.holder.try_wait() {
            Ok(None) => mark.exists().then_some(true),
            _ => Some(false),
        });
        (is_mounted == Some(true)).then_some(disk)
    }

    /// Runs a daemon or a command on it: what comes before the program, in this working folder.
    pub fn wrapper(&self, working_folder: &str) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let words = ["nsenter", "--target", &holder, "--mount", "sh", "-c", "cd \"$0\" && exec \"$@\"", working_folder];
        words.map(str::to_owned).to_vec()
    }

    /// A file on it, for programs that do not run on it.
    pub fn seen_from_outside(&self, file: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(file.strip_prefix("/").expect("the path is absolute"))
    }

    /// `ro`, `rw`, `size=8m` …
    #[track_caller]
    pub fn remount(&self, option: &str) {
        let output = self.run(&["mount", "-o", &format!("remount,{option}"), &self.at.display().to_string()]);
        assert!(output.status.success(), "remount,{option}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&self, words: &[&str]) -> Output {
        let wrapper = self.wrapper("/");
        let mut command = Command::new(&wrapper[0]);
        run(command.args(&wrapper[1..]).args(words), b"", TIMEOUT)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
