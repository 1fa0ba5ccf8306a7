//! What waits for tokens that no key has, summed; the same for every database.

use std::collections::BTreeMap;

use super::books::{Ignored, UnmatchedToken};
use super::stored::usage_event;
use crate::domain::money::{CreditFemtos, QuotaUnits};
use crate::domain::pricing::PriceBook;
use crate::domain::time::UnixMillis;

/// Waiting events that ignoring a token closes in one transaction.
pub const CLOSED_PAGE: i64 = 500;

impl Ignored {
    /// More may wait.
    pub fn is_full_page(&self) -> bool {
        self.closed_events == CLOSED_PAGE as u64
    }
}

/// What waits for one token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parked {
    calls: u64,
    quota: i64,
    credits: CreditFemtos,
    first: UnixMillis,
    last: UnixMillis,
}

impl Parked {
    pub fn add(&mut self, called_at: UnixMillis, payload: &str, prices: &PriceBook) {
        self.first = if self.calls == 0 { called_at } else { self.first.min(called_at) };
        self.last = self.last.max(called_at);
        self.calls += 1;
        let price = usage_event(payload).and_then(|event| prices.price(event.content.price, called_at).ok());
        if let Some(price) = price {
            self.quota = self.quota.saturating_add(price.units.map_or(0, QuotaUnits::get));
            self.credits = self.credits.checked_add(price.credits).unwrap_or(self.credits);
        }
    }
}

/// What a command that writes keys has to say where the platform makes them.
pub const ON_A_PLATFORM: &str = " --platform-database";

/// As people see them. `behind`: what the command for each has to say beside token and user.
pub fn most_calls_first(tokens: BTreeMap<i64, Parked>, limit: u32, behind: &str) -> Vec<UnmatchedToken> {
    let mut tokens: Vec<(i64, Parked)> = tokens.into_iter().collect();
    tokens.sort_by_key(|(token, parked)| (std::cmp::Reverse(parked.calls), *token));
    tokens.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let view = |(remote_id, parked): (i64, Parked)| UnmatchedToken {
        remote_id,
        name: None,
        calls: parked.calls,
        quota: parked.quota,
        credits: parked.credits.to_string(),
        first_seen: parked.first.to_column(),
        last_seen: parked.last.to_column(),
        command: format!("hookledger key add --remote-id {remote_id} --user ID_OR_EMAIL{behind}"),
    };
    tokens.into_iter().map(view).collect()
}
