//! Keeps a database's writer waiting, as another program does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Another program that holds the database's write lock until this goes out of scope.
pub struct WriteLock {
    holder: Child,
    input: Option<ChildStdin>,
}

impl WriteLock {
    /// Takes the lock of this database, and returns once it has it.
    pub fn take(database: &Path) -> Self {
        let mut command = Command::new("sqlite3");
        command.arg("-batch").arg(database).env("HOME", "/nonexistent");
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = holder.stdin.take().unwrap();
        input.write_all(b".timeout 10000\nBEGIN IMMEDIATE;\nSELECT 'locked';\n").unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "locked");
        WriteLock { holder, input: Some(input) }
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // The end of its input ends it, and its transaction with it.
        drop(self.input.take());
        self.holder.wait().ok();
    }
}
