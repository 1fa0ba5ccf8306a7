//! What a daemon keeps: its folder and the files in it, and its database, wherever that lies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::books::Books;
use super::clock::MovableClock;
use super::daemon::{Daemon, DaemonOutput};
use super::database::{Database, Guest};

impl Daemon {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder().join("hookledger.toml")
    }

    /// Puts this text in the place of the configuration file, whole at once: a reader sees the old one or the new one.
    pub fn write_config(&self, text: &str) {
        let fresh = self.folder().join("hookledger.toml.fresh");
        fs::write(&fresh, text).expect("the configuration can be written");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        fs::rename(&fresh, self.config_file()).expect("the configuration can be replaced");
    }

    /// The file of the embedded database; a test that asks for it begins with `only_on_sqlite!()`.
    #[track_caller]
    pub fn database_file(&self) -> &Path {
        match &self.database {
            Database::File(file) => file,
            Database::Guest(_) => panic!("only SQLite's database is a file"),
        }
    }

    /// The databases of a daemon that is a guest on a server.
    #[track_caller]
    pub fn guest(&self) -> &Guest {
        match &self.database {
            Database::Guest(guest) => guest,
            Database::File(_) => panic!("SQLite has no guests"),
        }
    }

    /// What leads the daemon to its database, with whatever secrets that needs.
    pub fn database_url(&self) -> String {
        match &self.database {
            Database::File(file) => format!("sqlite://{}", file.display()),
            Database::Guest(guest) => guest.url(),
        }
    }

    /// The same as it may be shown.
    pub fn masked_database_url(&self) -> String {
        match &self.database {
            Database::File(_) => self.database_url(),
            Database::Guest(guest) => self.database_url().replace(&guest.login().password, "***"),
        }
    }

    /// By what a person recognises the database: a file's path, or the name of the platform's database.
    pub fn database_name(&self) -> String {
        match &self.database {
            Database::File(file) => file.display().to_string(),
            Database::Guest(guest) => guest.platform().to_owned(),
        }
    }

    /// Where the daemon keeps what is not in the database: beside a database file, else in a folder of its own.
    pub fn state_folder(&self) -> PathBuf {
        match &self.database {
            Database::File(_) => self.folder().to_owned(),
            Database::Guest(_) => self.folder().join("hookledger-data"),
        }
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.state_folder().join("admin.sock")
    }

    pub fn books(&self) -> Books {
        match &self.database {
            Database::File(file) => Books::at(file),
            Database::Guest(guest) => Books::of(guest),
        }
    }

    /// The clock of a daemon whose options say `movable_clock`.
    #[track_caller]
    pub fn clock(&self) -> MovableClock {
        let file = self.options.environment.get("HOOKLEDGER_TEST_CLOCK_FILE");
        MovableClock::at(Path::new(&self.filled(file.expect("the options say movable_clock"))))
    }

    pub fn output(&self) -> DaemonOutput {
        let text = |name: &str| match fs::read(self.folder().join(name)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        };
        DaemonOutput { stdout: text("stdout"), stderr: text("stderr") }
    }
}
