//! What supervision needs of the embedded database: a fenced view of it, and how its one owner gets on.
//!
//! SQLite itself asks the fence, in its commit hook: whatever a transaction is made of, and wherever it commits.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::storage::Store;
use crate::storage::fence::{Fence, Supervised, may_write};
use crate::storage::pulse::OwnerPulse;

/// Whose work the owner carries out.
pub type CurrentFence = Arc<ArcSwapOption<Fence>>;

/// Has the connection roll back what somebody asked for who was replaced meanwhile.
pub async fn guard(connection: &mut SqliteConnection, current: &CurrentFence) -> Result<(), sqlx::Error> {
    let current = current.clone();
    connection.lock_handle().await?.set_commit_hook(move || may_write(current.load().as_deref()));
    Ok(())
}

impl Supervised for SqliteStore {
    fn fenced(&self, fence: Fence) -> Arc<dyn Store> {
        let mut store = self.clone();
        store.writer.fence = Some(fence);
        Arc::new(store)
    }

    fn pulses(&self) -> Vec<Arc<OwnerPulse>> {
        vec![self.writer.pulse.clone()]
    }
}
