//! Which actors ended and by what, read from the daemon's own log: its counters end with the process, the log stays.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

const ENDED: &str = "an actor ended and will be replaced";

/// A place in a log that grows.
#[derive(Debug)]
pub struct ActorLog {
    file: PathBuf,
    offset: u64,
    /// What was read of a line that is still being written.
    rest: String,
}

/// One end of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub actor: String,
    pub cause: String,
}

impl ActorLog {
    pub fn at(file: PathBuf) -> Self {
        ActorLog { file, offset: 0, rest: String::new() }
    }

    /// The ends that were told since the last look.
    pub fn new_ends(&mut self) -> Vec<End> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.file) {
            file.seek(SeekFrom::Start(self.offset)).expect("a log can be sought in");
            file.read_to_end(&mut bytes).expect("a log can be read");
        }
        self.offset += bytes.len() as u64;
        let text = std::mem::take(&mut self.rest) + &String::from_utf8_lossy(&bytes);
        let (whole, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
        self.rest = rest.to_owned();
        whole.lines().filter(|line| line.contains(ENDED)).filter_map(end_of).collect()
    }
}

fn end_of(line: &str) -> Option<End> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| entry["fields"][name].as_str().or(entry[name].as_str()).map(str::to_owned);
    Some(End { actor: field("actor")?, cause: field("cause")? })
}
