//! Settings of the socket through which the command line talks to a running daemon.

use std::path::PathBuf;

use super::database;
use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::values;

pub(super) const KEYS: SectionKeys = SectionKeys { name: "admin", keys: &[("socket", Kind::Text, Effect::AtStart)] };

const SOCKET_NAME: &str = "admin.sock";

/// The kernel keeps the path in 108 bytes, the last of them zero.
pub(super) const LONGEST_SOCKET_BYTES: usize = 107;

/// Where the daemon takes commands.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// Absolute.
    pub socket: PathBuf,
}

impl AdminSettings {
    /// Without a value the socket lies in the state folder, and so depends on `database.url`.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let url = reader.peek("database.url", database::parse_url);
        let mut section = reader.section(KEYS.name);
        let given = section.parse_optional("socket", values::path)?;
        let socket = given.or_else(|| url.map(|url| url.state_folder().join(SOCKET_NAME)))?;
        let bytes = socket.as_os_str().len();
        if bytes > LONGEST_SOCKET_BYTES {
            let path = socket.display();
            let message =
                format!("must have at most {LONGEST_SOCKET_BYTES} bytes, as a socket's path, and has {bytes}: {path}");
            section.refuse("socket", message);
            return None;
        }
        section.show("socket", socket.display());
        Some(AdminSettings { socket })
    }
}
