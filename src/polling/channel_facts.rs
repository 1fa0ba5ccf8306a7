//! What the log says of the event channel: which of its rows came without their event, and whether both channels agree.

use super::source::Source;
use crate::domain::time::UnixMillis;
use crate::storage::log::RowLoss;

/// What was found of the log's rows, beside when the last event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelFacts {
    pub loss: RowLoss,
    /// Whether new-api has somewhere to send webhooks to, where that can be seen.
    pub has_webhook_url: Option<bool>,
    pub out_of_reach_since: Option<UnixMillis>,
}

impl ChannelFacts {
    pub fn of(source: &Source, loss: RowLoss) -> Self {
        let memory = source.memory();
        ChannelFacts { loss, has_webhook_url: memory.has_webhook_url, out_of_reach_since: memory.out_of_reach_since }
    }
}
