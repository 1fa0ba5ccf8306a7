//! Settings of the operators' side: the socket through which the command line talks to a running daemon, and the token
//! that opens the same routes on the listener for senders.

use std::path::PathBuf;

use secrecy::SecretString;

use super::database;
use super::keys::{Effect, Kind, SectionKeys};
use super::reader::{Reader, Section};
use super::{token, values};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "admin",
    keys: &[
        ("socket", Kind::Text, Effect::AtStart),
        ("token", Kind::Secret, Effect::AtReload),
        ("token_file", Kind::Text, Effect::AtReload),
    ],
};

/// Whoever has the token can give credits away: it must be beyond guessing.
const MIN_TOKEN_CHARS: usize = 32;

const SOCKET_NAME: &str = "admin.sock";

/// The kernel keeps the path in 108 bytes, the last of them zero.
pub(super) const LONGEST_SOCKET_BYTES: usize = 107;

/// Where the daemon takes commands.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// Absolute.
    pub socket: PathBuf,
    /// What opens the admin routes on `server.listen`. None: they do not exist there.
    pub token: Option<SecretString>,
}

impl AdminSettings {
    /// Without a value the socket lies in the state folder, and so depends on `database.url`.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let url = reader.peek("database.url", database::parse_url);
        let mut section = reader.section(KEYS.name);
        let token = read_token(&mut section);
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
        Some(AdminSettings { socket, token: token? })
    }
}

fn read_token(section: &mut Section<'_>) -> Option<Option<SecretString>> {
    let Some(given) = token::read(section)? else { return Some(None) };
    let chars = given.text.chars().count();
    if chars < MIN_TOKEN_CHARS {
        section.refuse(
            given.key,
            format!(
                "must be a token of at least {MIN_TOKEN_CHARS} characters, and it has {chars}: \
                 `hookledger secret` makes one"
            ),
        );
        return None;
    }
    Some(Some(SecretString::from(given.text)))
}
