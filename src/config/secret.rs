//! Secrets at rest: making one, reading them from a file, and keeping the one of an embedded installation.
//!
//! Checking signatures with them is `domain::signature`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::rngs::OsRng;
use rand::{RngCore, TryRngCore};
use secrecy::SecretString;

use super::error::ConfigError;
use super::{DatabaseUrl, Settings, values};
use crate::domain::signature::MIN_SECRET_CHARS;

/// Name of the generated secret's file in the state folder.
pub const SECRET_FILE_NAME: &str = "webhook-secret";

const SECRET_BYTES: usize = 32;

/// A new secret from the operating system's randomness: 64 hex digits.
///
/// A kernel without randomness panics here: no secret is better than one that can be guessed.
pub fn generate_secret() -> String {
    let mut bytes = [0u8; SECRET_BYTES];
    OsRng.unwrap_err().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Where no secret is configured and the database is the embedded one, takes the secret that lies in the state
/// folder, or generates it there. Gives the path of that file, or `None` where the configuration has a secret.
pub fn ensure_secret(settings: &mut Settings) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = generated_path(settings) else {
        return Ok(None);
    };
    if !path.exists() {
        create(settings.database.url.state_folder(), &path).map_err(|error| {
            let message = format!(
                "can't be created for a generated secret ({error}): set webhook.secrets, or let the daemon write there"
            );
            ConfigError::of_file(&path, message)
        })?;
    }
    settings.webhook.secrets = read_file(&path).map_err(|message| ConfigError::of_file(&path, message))?;
    Ok(Some(path))
}

/// The same, of a secret that is there: a running daemon that made a new one would refuse every good event.
pub(super) fn find_secret(settings: &mut Settings) -> Result<(), ConfigError> {
    let Some(path) = generated_path(settings) else {
        return Ok(());
    };
    settings.webhook.secrets = read_file(&path).map_err(|message| {
        let message =
            format!("{message}; no secret is configured, and only a start generates one: set webhook.secrets");
        ConfigError::of_file(&path, message)
    })?;
    Ok(())
}

/// Where the secret lies if none is configured. Beside a server none is ever generated.
fn generated_path(settings: &Settings) -> Option<PathBuf> {
    let url = &settings.database.url;
    let is_generated = settings.webhook.secrets.is_empty() && matches!(url, DatabaseUrl::Sqlite(_));
    is_generated.then(|| url.state_folder().join(SECRET_FILE_NAME))
}

/// Fragment that fits after the name of the secret.
pub(super) fn check(secret: &str) -> Result<(), String> {
    let chars = secret.chars().count();
    if chars < MIN_SECRET_CHARS {
        return Err(format!(
            "must have at least {MIN_SECRET_CHARS} characters and has {chars}: `hookledger secret` makes one"
        ));
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<SecretString>, String> {
    parse_lines(&fs::read_to_string(path).map_err(|error| format!("must be readable: {error}"))?)
}

/// One secret a line; blank lines and lines that start with `#` are skipped.
pub(super) fn parse_lines(text: &str) -> Result<Vec<SecretString>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let secrets = values::collect_all(lines.map(|(index, line)| {
        check(line).map_err(|message| format!("the secret in line {} {message}", index + 1))?;
        Ok(SecretString::from(line))
    }))?;
    if secrets.is_empty() {
        return Err("must hold at least one secret, one a line".to_owned());
    }
    Ok(secrets)
}

/// Where systemd keeps credentials: each service alone can enter its folder. What looks like a group's permission there
/// is that of the service's own user.
const CREDENTIALS_FOLDER: &str = "/run/credentials";

/// Whether someone beside the owner can read or write the file. Not for files that can't be looked at.
pub(super) fn is_open_to_others(path: &Path) -> bool {
    has_mode_bits(path, 0o077) && !path.starts_with(CREDENTIALS_FOLDER)
}

/// Whether everyone on the machine can read or write the file; its group may.
pub(super) fn is_open_to_everyone(path: &Path) -> bool {
    has_mode_bits(path, 0o007)
}

/// Whether others than its owner can change the file.
pub(super) fn is_changeable_by_others(path: &Path) -> bool {
    has_mode_bits(path, 0o022)
}

/// Whether any of these permissions is given. False for what can't be looked at.
pub fn has_mode_bits(path: &Path, bits: u32) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.mode() & bits != 0)
}

/// The file appears under its name only when it is whole and on disk, so that neither a crash nor a second start
/// at the same moment leaves an empty or a second secret.
fn create(folder: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = folder.join(format!(".{SECRET_FILE_NAME}.{}", &generate_secret()[..16]));
    let placed = write_draft(&draft).and_then(|()| place(&draft, path));
    let removed = fs::remove_file(&draft);
    placed?;
    // A rename has taken the draft away already.
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    File::open(folder)?.sync_all()
}

fn write_draft(draft: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(format!("{}\n", generate_secret()).as_bytes())?;
    file.sync_all()
}

/// A link fails where the name is taken: then another start was first, and its secret holds.
fn place(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // File systems without links: a rename is the best they have.
        Err(_) => fs::rename(draft, path),
    }
}
