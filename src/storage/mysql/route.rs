//! Which owner settles which events: all of a user's by one, so that his rows are never waited for by another.
//!
//! Only an arrangement: whatever it says, the rows that a settlement writes first keep the books right.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;

use super::context::Names;
use super::snapshot::texts;
use crate::domain::event::{Delivery, UsageEvent};
use crate::storage::Part;
use crate::storage::rows::parameter;

const USERS: &str = concat!(
    "SELECT e.v, MIN(k.userId) FROM ",
    texts!(),
    " STRAIGHT_JOIN api_keys AS k ON k.remoteKeyId = e.v COLLATE {collation} GROUP BY e.v"
);

/// How long a batch waits to be arranged.
const USERS_WAIT: Duration = Duration::from_secs(2);

/// What a row has beside its payload, amply.
const BESIDE_PAYLOAD_BYTES: usize = 1024;

/// The batch by owner; groups that are too large for the server to take at once are cut.
pub async fn by_user(readers: &MySqlPool, names: &Names, events: &[Arc<UsageEvent>], owners: usize) -> Vec<Part> {
    let users = if owners > 1 { users(readers, names, events).await } else { HashMap::new() };
    let limit_bytes = part_bytes(names);
    let mut groups: Vec<Part> = Vec::new();
    let mut open: HashMap<usize, (usize, usize)> = HashMap::new();
    for (place, event) in events.iter().enumerate() {
        let token = event.content.remote_key_id.to_string();
        let owner = share_of(users.get(&token).unwrap_or(&token), owners);
        let bytes = event.payload.len() + BESIDE_PAYLOAD_BYTES;
        let group = match open.get_mut(&owner) {
            Some((group, used)) if *used + bytes <= limit_bytes => {
                *used += bytes;
                *group
            }
            _ => {
                groups.push(Part { lane: owner, places: Vec::new(), events: Vec::new() });
                open.insert(owner, (groups.len() - 1, bytes));
                groups.len() - 1
            }
        };
        groups[group].places.push(place);
        groups[group].events.push(event.clone());
    }
    groups
}

/// Deliveries in parts that the server takes at once, in their order.
pub fn by_size(names: &Names, deliveries: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let limit_bytes = part_bytes(names);
    let mut parts: Vec<Vec<Delivery>> = Vec::new();
    let mut used_bytes = 0;
    for delivery in deliveries {
        let bytes = BESIDE_PAYLOAD_BYTES
            + match &delivery {
                Delivery::Usage(event) => event.payload.len(),
                Delivery::Notice(notice) => notice.payload.len(),
            };
        match parts.last_mut() {
            Some(part) if used_bytes + bytes <= limit_bytes => part.push(delivery),
            _ => {
                parts.push(vec![delivery]);
                used_bytes = 0;
            }
        }
        used_bytes += bytes;
    }
    parts
}

/// The largest parameter is the list of payloads, which JSON may make longer by its quotation marks.
fn part_bytes(names: &Names) -> usize {
    names.max_packet_bytes / 4
}

fn share_of(name: &str, owners: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish() % owners.max(1) as u64).unwrap_or(0)
}

/// The user of each token; without an answer, tokens themselves are spread.
async fn users(readers: &MySqlPool, names: &Names, events: &[Arc<UsageEvent>]) -> HashMap<String, String> {
    let mut tokens: Vec<String> = events.iter().map(|event| event.content.remote_key_id.to_string()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let Ok(tokens) = parameter(&tokens) else { return HashMap::new() };
    let found = sqlx::query_as::<_, (String, String)>(names.sql(USERS)).bind(tokens).fetch_all(readers);
    let found = tokio::time::timeout(USERS_WAIT, found).await;
    found.ok().and_then(Result::ok).map(|rows| rows.into_iter().collect()).unwrap_or_default()
}
