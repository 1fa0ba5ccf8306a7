//! What the log says of the event channel: which of its rows came without their event.

use std::time::Duration;

use super::source::Source;
use crate::domain::time::UnixMillis;
use crate::storage::log::RowLoss;
use crate::storage::{LogStore, StoreError};

/// Over how long lost events are counted.
const LOSS_OVER: Duration = Duration::from_secs(3600);

/// What was found of the log's rows, beside when the last event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelFacts {
    pub loss: RowLoss,
    /// Whether new-api has somewhere to send webhooks to, where that can be seen.
    pub has_webhook_url: Option<bool>,
    pub out_of_reach_since: Option<UnixMillis>,
}

impl ChannelFacts {
    /// Asks the books about the last hour.
    pub async fn look(source: &Source, store: &dyn LogStore, now: UnixMillis) -> Result<Self, StoreError> {
        let memory = source.memory();
        let loss = store.row_loss(&source.source_filter(), now.minus(LOSS_OVER).as_secs(), now.as_secs()).await?;
        Ok(ChannelFacts {
            loss,
            has_webhook_url: memory.has_webhook_url,
            out_of_reach_since: memory.out_of_reach_since,
        })
    }
}
