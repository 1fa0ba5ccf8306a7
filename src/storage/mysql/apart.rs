//! What the store does while our state and the platform's tables don't belong together: it takes events, and settles and
//! gives nothing.

use std::sync::Arc;

use super::{MysqlStore, belonging};
use crate::domain::event::{Delivery, UsageEvent};
use crate::domain::outcome::{RecordOutcome, SettlementOutcome};
use crate::domain::repair::{Apart, judge};
use crate::domain::settlement::Purpose;
use crate::storage::{BooksError, LedgerStore, StoreError};

impl MysqlStore {
    pub(super) fn is_apart(&self) -> bool {
        self.apart.load().is_some()
    }

    /// Looks, and holds to what was found until the next look.
    pub(super) async fn look_apart(&self) -> Result<Option<Apart>, StoreError> {
        let ends = belonging::look(&self.readers, &self.context.names).await?;
        let apart = judge(&ends, &self.context.installation.load());
        self.apart.store(apart.clone().map(Arc::new));
        Ok(apart)
    }

    pub(super) fn needs_whole_books(&self) -> Result<(), BooksError> {
        match self.apart() {
            Some(apart) => Err(BooksError::Apart(apart)),
            None => Ok(()),
        }
    }

    /// Makes fresh events durable; what is stored already stays as it is.
    pub(super) async fn keep_unsettled(
        &self,
        events: Vec<Arc<UsageEvent>>,
        purpose: Purpose,
    ) -> Result<Vec<SettlementOutcome>, StoreError> {
        if purpose != Purpose::Delivery {
            return Ok(vec![SettlementOutcome::Deferred; events.len()]);
        }
        let deliveries = events.iter().map(|event| Delivery::Usage((**event).clone())).collect();
        let outcome = |recorded| match recorded {
            RecordOutcome::Conflict => SettlementOutcome::Conflict,
            RecordOutcome::Recorded | RecordOutcome::Known { .. } => SettlementOutcome::Deferred,
        };
        Ok(self.record(deliveries).await?.into_iter().map(outcome).collect())
    }
}
