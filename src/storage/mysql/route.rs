//! Which owner settles which events: all of a user's by one, so that his rows are never waited for by another.
//!
//! Only an arrangement: whatever it says, the rows that a settlement writes first keep the books right.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;

use super::context::Names;
use super::snapshot::texts;
use crate::domain::event::{Delivery, UsageEvent};
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::NumberedRow;
use crate::storage::Part;
use crate::storage::log::RowPart;
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
    let sizes = events.iter().map(|event| (event.content.remote_key_id, event.payload.len()));
    let groups = groups(readers, names, sizes.collect(), owners).await.into_iter();
    let part = |(lane, places): (usize, Vec<usize>)| {
        let events = places.iter().map(|place| events[*place].clone()).collect();
        Part { lane, places, events }
    };
    groups.map(part).collect()
}

/// Rows of the log in the same way.
pub async fn rows_by_user(readers: &MySqlPool, names: &Names, rows: Vec<NumberedRow>, owners: usize) -> Vec<RowPart> {
    let sizes = rows.iter().map(|row| (row.row.token, row.row.model.len()));
    let groups = groups(readers, names, sizes.collect(), owners).await.into_iter();
    let part = |(lane, places): (usize, Vec<usize>)| {
        let rows = places.iter().map(|place| rows[*place].clone()).collect();
        RowPart { lane, places, rows }
    };
    groups.map(part).collect()
}

/// Owners, each with the places of what is his, in their order. `sizes`: token and bytes of each.
async fn groups(
    readers: &MySqlPool,
    names: &Names,
    sizes: Vec<(RemoteKeyId, usize)>,
    owners: usize,
) -> Vec<(usize, Vec<usize>)> {
    let tokens: BTreeSet<RemoteKeyId> = sizes.iter().map(|(token, _)| *token).collect();
    let users = if owners > 1 { users(readers, names, &tokens).await } else { HashMap::new() };
    let limit_bytes = part_bytes(names);
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut open: HashMap<usize, (usize, usize)> = HashMap::new();
    for (place, (token, bytes)) in sizes.into_iter().enumerate() {
        let token = token.to_string();
        let owner = share_of(users.get(&token).unwrap_or(&token), owners);
        let bytes = bytes + BESIDE_PAYLOAD_BYTES;
        let group = match open.get_mut(&owner) {
            Some((group, used)) if *used + bytes <= limit_bytes => {
                *used += bytes;
                *group
            }
            _ => {
                groups.push((owner, Vec::new()));
                open.insert(owner, (groups.len() - 1, bytes));
                groups.len() - 1
            }
        };
        groups[group].1.push(place);
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
async fn users(readers: &MySqlPool, names: &Names, tokens: &BTreeSet<RemoteKeyId>) -> HashMap<String, String> {
    let tokens: Vec<String> = tokens.iter().map(RemoteKeyId::to_string).collect();
    let Ok(tokens) = parameter(&tokens) else { return HashMap::new() };
    let found = sqlx::query_as::<_, (String, String)>(names.sql(USERS)).bind(tokens).fetch_all(readers);
    let found = tokio::time::timeout(USERS_WAIT, found).await;
    found.ok().and_then(Result::ok).map(|rows| rows.into_iter().collect()).unwrap_or_default()
}
