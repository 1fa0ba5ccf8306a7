//! File descriptors: each connection takes one, and so does whatever the daemon itself opens. Senders get only so many that
//! the database, new-api and the operators always find theirs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the database, the threads, new-api, the operators and what is opened for a moment.
const RESERVED: u64 = 256;

/// So many connections are taken however few descriptors there are.
const FEWEST_CONNECTIONS: u64 = 16;

/// Asks for as many descriptors as the configured connections need, and tells how many connections there may be.
pub(super) fn make_room(max_connections: usize) -> usize {
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_add(RESERVED);
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let mut available = current;
    if current < wanted {
        // The hard limit is for somebody else to raise.
        let raised = wanted.min(limit.maximum.unwrap_or(u64::MAX));
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
            Ok(()) => available = raised,
            Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised to {raised}"),
        }
    }
    if available >= wanted {
        return max_connections;
    }
    let room = room_for(available);
    tracing::warn!(
        "this process may have {available} open files, and server.max_connections = {max_connections} needs {wanted}: no \
         more than {room} connections are taken at a time. Raise the limit (LimitNOFILE= of the unit, `ulimit -Hn`), or \
         lower server.max_connections"
    );
    usize::try_from(room).unwrap_or(max_connections)
}

fn room_for(available: u64) -> u64 {
    available.saturating_sub(RESERVED).max(FEWEST_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_get_what_the_daemon_does_not_need_itself() {
        assert_eq!([1024, 20_000, 300, 100, 0].map(room_for), [768, 19_744, 44, 16, 16]);
    }
}
