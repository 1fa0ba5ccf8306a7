//! Takes over listening sockets that the service manager opened: they stay open while the daemon is away, so that a
//! restart refuses no connection.
//!
//! They are told apart by name (`FileDescriptorName=` of a socket unit). One that is unknown ends the start: who listens
//! behind it would be a guess.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

const NAMES_VARIABLE: &str = "LISTEN_FDNAMES";

/// What a service manager says that gives no name.
const UNNAMED: [&str; 2] = ["unknown", ""];

/// Why the sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    #[error(
        "the service manager hands over a socket named {0:?}: set FileDescriptorName= in its unit to webhook, metrics or \
         admin"
    )]
    UnknownName(String),
    #[error("the service manager hands over {0} sockets and names {1} of them: set FileDescriptorName= in each unit")]
    Unnamed(usize, usize),
    #[error("the service manager hands over two sockets named {0}, and only webhook may have several")]
    Twice(&'static str),
    #[error("the socket named {0:?} that the service manager hands over cannot be listened on: {1}")]
    Unfit(String, io::Error),
}

/// Sockets that were open before the daemon was.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    /// For senders, instead of `server.listen`.
    pub webhook: Vec<TcpListener>,
    /// Instead of `metrics.listen`.
    pub metrics: Option<TcpListener>,
    /// Instead of the file at `admin.socket`.
    pub admin: Option<UnixListener>,
}

impl InheritedSockets {
    /// What the environment says that this process was given. To be asked once, before any thread is started.
    pub fn from_environment() -> Result<Self, SocketsError> {
        let names = std::env::var(NAMES_VARIABLE).unwrap_or_default();
        let mut given = ListenFd::from_env();
        let names = named(given.len(), &names)?;
        let mut sockets = InheritedSockets::default();
        for (index, name) in names.iter().enumerate() {
            sockets.take(&mut given, index, name)?;
        }
        Ok(sockets)
    }

    fn take(&mut self, given: &mut ListenFd, index: usize, name: &str) -> Result<(), SocketsError> {
        let unfit = |error| SocketsError::Unfit(name.to_owned(), error);
        let is_twice = match name {
            "webhook" => {
                self.webhook.extend(given.take_tcp_listener(index).map_err(unfit)?);
                None
            }
            "metrics" => {
                let taken = given.take_tcp_listener(index).map_err(unfit)?;
                taken.and_then(|taken| self.metrics.replace(taken)).map(|_| "metrics")
            }
            "admin" => {
                let taken = given.take_unix_listener(index).map_err(unfit)?;
                taken.and_then(|taken| self.admin.replace(taken)).map(|_| "admin")
            }
            other => return Err(SocketsError::UnknownName(other.to_owned())),
        };
        is_twice.map_or(Ok(()), |name| Err(SocketsError::Twice(name)))
    }
}

/// A name for each socket. A single one without a name is the senders': that is what there is always one of.
fn named(count: usize, names: &str) -> Result<Vec<String>, SocketsError> {
    let names: Vec<String> = names.split(':').filter(|name| !UNNAMED.contains(name)).map(str::to_owned).collect();
    match (count, names.len()) {
        (0, _) => Ok(Vec::new()),
        (1, 0) => Ok(vec!["webhook".to_owned()]),
        (count, known) if count == known => Ok(names),
        (count, known) => Err(SocketsError::Unnamed(count, known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_apart_by_name_and_a_single_one_needs_none() {
        assert_eq!(named(2, "webhook:metrics").unwrap(), ["webhook", "metrics"]);
        assert_eq!(named(1, "").unwrap(), ["webhook"]);
        assert_eq!(named(1, "unknown").unwrap(), ["webhook"]);
        assert_eq!(named(1, "metrics").unwrap(), ["metrics"]);
        assert_eq!(named(0, "left over").unwrap(), Vec::<String>::new());
        for (count, names) in [(2, ""), (2, "webhook"), (2, "webhook:unknown"), (1, "webhook:metrics")] {
            assert!(matches!(named(count, names), Err(SocketsError::Unnamed(..))), "{count} {names:?}");
        }
    }
}
