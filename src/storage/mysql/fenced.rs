//! What supervision needs of a server's database: a fenced view of it, and how the owners of its connections get on.

use std::sync::Arc;

use super::MysqlStore;
use crate::storage::Store;
use crate::storage::fence::{Fence, Supervised};
use crate::storage::pulse::OwnerPulse;

impl Supervised for MysqlStore {
    fn fenced(&self, fence: Fence) -> Arc<dyn Store> {
        let mut store = self.clone();
        store.shards.iter_mut().chain([&mut store.recorder]).for_each(|owner| owner.fence = Some(fence.clone()));
        Arc::new(store)
    }

    fn pulses(&self) -> Vec<Arc<OwnerPulse>> {
        self.shards.iter().chain([&self.recorder]).map(|owner| owner.pulse.clone()).collect()
    }
}
