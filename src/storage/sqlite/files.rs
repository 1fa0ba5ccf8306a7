//! Files beside the database: their names, and how one is put into place so that a power cut leaves all of it or none.
//!
//! What stands in them is the business of `lock`, `marker`, `backup` and `restore`.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags};

/// Links that are followed from one to the next.
const MAX_LINKS: usize = 40;

/// What SQLite itself puts beside a database: parts of it that are not folded in yet.
pub const SQLITES_OWN: [&str; 3] = ["-wal", "-shm", "-journal"];

/// `path` with `ending` behind its name.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(ending);
    PathBuf::from(name)
}

/// The file that is meant, whatever links lead to it: the same for each of its names, also before it exists.
pub fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Ok(real) = fs::canonicalize(&path) {
            return real;
        }
        let Ok(target) = fs::read_link(&path) else { break };
        path = folder_of(&path).join(target);
    }
    match (fs::canonicalize(folder_of(&path)), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

/// Something has this name, be it a link to nowhere.
pub fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// An error where this user may not write to the file. Opens nothing: see `presence`.
pub fn check_writable(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::accessat(rustix::fs::CWD, path, Access::WRITE_OK, AtFlags::EACCESS)?)
}

/// Makes the folder of `path` with those above it, for this user's eyes only: the ledger and the secret lie there.
pub fn make_folder_of(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    if folder.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A new file that only this user may read; fails where the name is taken.
pub fn create_new(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Gives the finished `draft` its name, if that is free, and has the disk remember it.
///
/// `contents` is the open draft: another file under its name is not put into place.
pub fn place(draft: &Path, contents: &File, path: &Path) -> io::Result<()> {
    contents.sync_all()?;
    if !is_same_file(draft, contents)? {
        return Err(io::Error::new(ErrorKind::NotFound, "another program replaced the unfinished file"));
    }
    match fs::hard_link(draft, path) {
        Ok(()) => fs::remove_file(draft)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
        // File systems without links: a look and a rename is the best they have.
        Err(_) if is_there(path) => return Err(ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(draft, path)?,
    }
    sync_folder_of(path)
}

/// Has the disk remember which names the folder of `path` holds.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Removes a file, if there is one.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a database that never got its name, with what SQLite put beside it.
pub fn remove_draft(draft: &Path) -> io::Result<()> {
    for ending in SQLITES_OWN {
        remove(&beside(draft, ending))?;
    }
    remove(draft)
}

fn is_same_file(path: &Path, open: &File) -> io::Result<bool> {
    let (named, open) = (fs::symlink_metadata(path)?, open.metadata()?);
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
