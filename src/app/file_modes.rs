//! Looks at the modes of what the daemon keeps on disk, once at its start: who else can read a secret or write the books.
//!
//! It warns and goes on: an operator may mean it, and refused events would be the worse harm. The files that the
//! configuration names are looked at where they are read.

use std::path::{Path, PathBuf};

use crate::config::{DatabaseUrl, Settings, has_mode_bits};

/// Owner's alone.
const OTHERS: u32 = 0o077;
/// Somebody else can write.
const OTHERS_WRITE: u32 = 0o022;
/// Anybody on this machine can read or write.
const EVERYONE: u32 = 0o007;

/// What SQLite keeps beside a database.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// One sentence for each file or folder that is open to more people than it should be.
pub(super) fn warnings(settings: &Settings, secret_file: Option<&Path>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(file) = secret_file.filter(|file| has_mode_bits(file, OTHERS)) {
        let file = file.display();
        warnings.push(format!("{file} holds the webhook secret and others than its owner can read it: chmod 600 it"));
    }
    if let DatabaseUrl::Sqlite(path) = &settings.database.url {
        let parts = PARTS.map(|ending| PathBuf::from(format!("{}{ending}", path.display())));
        let is_open = |part: &&PathBuf| has_mode_bits(part, EVERYONE | OTHERS_WRITE);
        warnings.extend(
            parts.iter().filter(is_open).map(|part| {
                format!("{} holds the books and others can read or change it: chmod 600 it", part.display())
            }),
        );
    }
    let folder = settings.database.url.state_folder();
    if has_mode_bits(folder, OTHERS_WRITE) {
        let folder = folder.display();
        warnings.push(format!("others can replace what lies in {folder}, the state folder: chmod 700 it"));
    }
    warnings
}
