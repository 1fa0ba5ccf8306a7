//! Whether what the daemon has open still lies under its names: a file that somebody removed or replaced goes on taking
//! writes without a complaint, and loses them with the process.
//!
//! One connection stays open as long as the daemon runs. While it does, SQLite itself neither removes nor replaces the
//! log beside the database, so whoever did was somebody else; and what was acknowledged can still be saved from it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use sqlx::{Connection, SqliteConnection};

use super::{SqliteOptions, connect, files};

/// What every database of SQLite begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Where the header holds the size of a page, how often it was changed, how many pages there are, and whose it is.
const PAGE_SIZE_AT: usize = 16;
const CHANGES_AT: usize = 24;
const PAGES_AT: usize = 28;
const APPLICATION_AT: usize = 68;
const HEADER_BYTES: usize = 72;

/// So many in a row find damage where there is some.
const LOOKS: u32 = 3;

/// What became of a file that is open.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error(
        "{} was removed or replaced while the daemon has it open: nothing is written any more. Put the very same file \
         back, and it goes on; until it is stopped, what was there can be saved from its open files (docs/OPERATIONS.md)",
        .0.display()
    )]
    Gone(PathBuf),
    #[error(
        "{} was overwritten or cut off by another program: nothing is written any more. Stop the daemon, keep what is \
         there with its -wal, and restore a backup with `hookledger restore FILE`",
        .0.display()
    )]
    Damaged(PathBuf),
    #[error("{} cannot be looked at: {}", .0.display(), .1)]
    Unseen(PathBuf, io::Error),
}

/// What a running daemon has open.
pub struct Presence {
    opened: Vec<Opened>,
    /// Never closed: with any descriptor of the file that a process closes, it loses SQLite's locks on it.
    header: ManuallyDrop<File>,
    state: Mutex<State>,
}

/// One file, under its name and as itself.
struct Opened {
    path: PathBuf,
    device: u64,
    inode: u64,
}

struct State {
    anchor: Option<SqliteConnection>,
    /// Of the database, at the last look.
    bytes: u64,
    header: Header,
    is_damaged: bool,
    was_lost: bool,
}

impl Presence {
    /// Opens what stays open. The caller holds the lock, and the database is known.
    pub async fn begin(options: &SqliteOptions) -> Result<Self, sqlx::Error> {
        let mut anchor = connect::looker(options).await?;
        // What opens the log beside the database.
        sqlx::query("SELECT COUNT(*) FROM sqlite_master").execute(&mut anchor).await?;
        let database = files::resolved(&options.path);
        let opened = ["", "-wal", "-shm"].map(|ending| Opened::now(files::beside(&database, ending)));
        let opened = opened.into_iter().collect::<io::Result<Vec<_>>>()?;
        let header = ManuallyDrop::new(File::open(&database)?);
        let bytes = header.metadata()?.len();
        let found = Header::read(&header)?;
        let state = State { anchor: Some(anchor), bytes, header: found, is_damaged: false, was_lost: false };
        Ok(Presence { opened, header, state: Mutex::new(state) })
    }

    /// An error where the next write would go to a file that is not the ledger any more.
    pub fn check(&self) -> Result<(), Lost> {
        let mut state = self.lock();
        let looked = self.opened.iter().try_for_each(Opened::check).and_then(|()| self.check_contents(&mut state));
        match &looked {
            Err(lost) if !state.was_lost => tracing::error!(%lost, "the database is lost"),
            Ok(()) if state.was_lost => tracing::info!("the database is there again, and is written to"),
            _ => {}
        }
        state.was_lost = looked.is_err();
        looked
    }

    /// Lets go of what was kept open, so that SQLite can tidy up, if everything is where it belongs. Where it is not,
    /// everything stays as it is, for a person.
    pub async fn end(&self) -> Result<(), Lost> {
        let checked = self.check();
        let anchor = self.lock().anchor.take();
        match (&checked, anchor) {
            // The last connection that is closed would fold the log into whatever is there.
            (Err(_), anchor) => std::mem::forget(anchor),
            (Ok(()), Some(anchor)) => drop(anchor.close().await),
            (Ok(()), None) => {}
        }
        checked
    }

    /// Damage stays: the next copying of pages may make a file look whole that is not.
    fn check_contents(&self, state: &mut State) -> Result<(), Lost> {
        let path = || self.opened[0].path.clone();
        // While the first page is written, a look may find half of it.
        let mut looks_left = LOOKS;
        while !state.is_damaged {
            if self.is_whole(state).map_err(|error| Lost::Unseen(path(), error))? {
                return Ok(());
            }
            looks_left -= 1;
            state.is_damaged = looks_left == 0;
            std::thread::yield_now();
        }
        Err(Lost::Damaged(path()))
    }

    fn is_whole(&self, state: &mut State) -> io::Result<bool> {
        let bytes = self.header.metadata()?.len();
        let header = match Header::read(&self.header) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        };
        let is_cut_off = bytes < state.bytes && bytes < header.claimed_bytes;
        let is_whole = !is_cut_off && header.follows(&state.header);
        if is_whole {
            (state.bytes, state.header) = (bytes, header);
        }
        Ok(is_whole)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    fn now(path: PathBuf) -> io::Result<Self> {
        let found = fs::metadata(&path)?;
        Ok(Opened { device: found.dev(), inode: found.ino(), path })
    }

    fn check(&self) -> Result<(), Lost> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(()),
            Ok(_) => Err(Lost::Gone(self.path.clone())),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(Lost::Gone(self.path.clone()))
            }
            Err(error) => Err(Lost::Unseen(self.path.clone(), error)),
        }
    }
}

/// What the first page says of the file.
struct Header {
    is_database: bool,
    /// While pages are copied into the file, it may say more than there is yet.
    claimed_bytes: u64,
    /// Never fewer than before.
    changes: u64,
    application: u64,
}

impl Header {
    fn read(file: &File) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let number =
            |at: usize, bytes: usize| header[at..at + bytes].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let page_size = match number(PAGE_SIZE_AT, 2) {
            // The largest size does not fit two bytes.
            1 => 65_536,
            size => size,
        };
        Ok(Header {
            is_database: header.starts_with(MAGIC),
            claimed_bytes: page_size * number(PAGES_AT, 4),
            changes: number(CHANGES_AT, 4),
            application: number(APPLICATION_AT, 4),
        })
    }

    /// Whether it can be the same file, later.
    fn follows(&self, before: &Header) -> bool {
        self.is_database && self.changes >= before.changes && self.application == before.application
    }
}

/// By this number in its header a database is known as that of its installation, also where another one is written over
/// it while it is open.
pub fn application_id(installation: &str) -> i32 {
    let digest = Sha256::digest(installation.as_bytes());
    i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Whether a file that no connection of this process has open begins as a database does; nothing where there is none.
pub fn is_database(path: &Path) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    match File::open(path)?.read_exact_at(&mut magic, 0) {
        Ok(()) => Ok(magic == *MAGIC),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
