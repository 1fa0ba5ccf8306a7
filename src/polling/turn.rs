//! Whose turn it is with new-api's log: a pass has it for all of its way, a sync for a piece at a time.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Whoever waits wakes this often. A catch-up may have the turn for hours: he is not to be taken for one that hangs, since
/// the one who has it is watched himself.
const LOOK: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct LogTurn(Mutex<()>);

impl LogTurn {
    /// Waits for it, behind those who came before.
    pub async fn take(&self) -> MutexGuard<'_, ()> {
        let mut taken = pin!(self.0.lock());
        loop {
            if let Ok(turn) = timeout(LOOK, &mut taken).await {
                return turn;
            }
        }
    }
}
