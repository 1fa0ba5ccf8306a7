//! Whether the gateway that answers is the one whose rows the books know. What it says of itself tells that something
//! changed; rows that the books know tell whether it is another. Nothing is read of another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pass::PassError;
use super::source::Source;
use crate::domain::log_row::RowKind;
use crate::domain::time::UnixMillis;
use crate::gateway::{Gateway, GatewayStatus, Reading, ReadingError, Window};
use crate::storage::log::{KnownRow, SourceFilter};
use crate::storage::{LogStore, StoreError};

/// How long before the newest row the others lie that are looked for: a log that lost its end still has these.
const SAMPLES_BEFORE_SECS: [i64; 5] = [0, 3600, 86_400, 7 * 86_400, 30 * 86_400];

/// Longest version that is kept.
const VERSION_CHARS: usize = 100;

/// What a gateway says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayIdentity {
    /// Empty if not told.
    pub version: String,
    pub started_at_second: Option<i64>,
}

impl GatewayIdentity {
    pub fn of(status: &GatewayStatus) -> Self {
        let version = status.version.chars().take(VERSION_CHARS).collect();
        GatewayIdentity { version, started_at_second: status.started_at_second }
    }

    fn words(&self) -> String {
        let version = if self.version.is_empty() { "of a version that it does not tell" } else { &self.version };
        match self.started_at_second {
            Some(second) => format!("{version}, started {}", moment(second)),
            None => version.to_owned(),
        }
    }
}

fn moment(second: i64) -> String {
    UnixMillis::new(second.saturating_mul(1000)).to_rfc3339()
}

/// Looks whether it is the one that is known under this name. Why not, if it is another.
pub async fn recognise(
    source: &Source,
    gateway: &Arc<dyn Gateway>,
    store: &dyn LogStore,
    said: &GatewayIdentity,
) -> Result<Option<String>, PassError> {
    let (another, note) = look(source, gateway, store, said).await?;
    if let Some((name, value)) = note {
        store.set_note(&name, value).await?;
    }
    Ok(another)
}

/// Why what answers is another gateway than the one that the books know, if it is. Nothing is noted.
pub async fn another(
    source: &Source,
    gateway: &Arc<dyn Gateway>,
    store: &dyn LogStore,
) -> Result<Option<String>, PassError> {
    let said = GatewayIdentity::of(&gateway.status().await.map_err(ReadingError::from)?);
    Ok(look(source, gateway, store, &said).await?.0)
}

/// The same without a word about it in the books: why not, and what is to be noted, under which name.
pub async fn look(
    source: &Source,
    gateway: &Arc<dyn Gateway>,
    store: &dyn LogStore,
    said: &GatewayIdentity,
) -> Result<(Option<String>, Option<(String, String)>), PassError> {
    let of = source.source_filter();
    if source.memory().recognised.is_some_and(|known| known == (of.source.clone(), said.clone())) {
        return Ok((None, None));
    }
    let (note, now) = (of.gateway_name(), serde_json::to_string(said).unwrap_or_default());
    let is_noted = store.note(&note).await?.is_some_and(|noted| noted == now);
    let another = if is_noted { None } else { has_none_of_ours(gateway, store, &of, said).await? };
    source.remember(|memory| {
        memory.recognised = another.is_none().then(|| (of.source.clone(), said.clone()));
        memory.refused = another.clone().map(|why| (of.source.clone(), why));
    });
    let is_news = another.is_none() && !is_noted;
    Ok((another, is_news.then_some((note, now))))
}

/// Looks for rows that the books know, the newest first; one is enough. Where the books know none, any gateway will do.
async fn has_none_of_ours(
    gateway: &Arc<dyn Gateway>,
    store: &dyn LogStore,
    of: &SourceFilter,
    said: &GatewayIdentity,
) -> Result<Option<String>, PassError> {
    let samples = samples(store, of).await?;
    let Some(newest) = samples.first() else { return Ok(None) };
    for row in &samples {
        if has_row(gateway, row).await? {
            return Ok(None);
        }
    }
    let (source, count) = (&of.source, samples.len());
    Ok(Some(format!(
        "another new-api answers ({}): it has none of {count} rows that were read of the source {source:?}, the newest \
         of {}; nothing is read until newapi.source names it",
        said.words(),
        moment(newest.second)
    )))
}

async fn samples(store: &dyn LogStore, of: &SourceFilter) -> Result<Vec<KnownRow>, StoreError> {
    let mut samples: Vec<KnownRow> = Vec::new();
    for before_secs in SAMPLES_BEFORE_SECS {
        let until_second = samples.first().map_or(i64::MAX, |newest| newest.second - before_secs);
        let Some(row) = store.newest_row(of, until_second).await? else { break };
        if samples.last() != Some(&row) {
            samples.push(row);
        }
    }
    Ok(samples)
}

async fn has_row(gateway: &Arc<dyn Gateway>, row: &KnownRow) -> Result<bool, PassError> {
    let Some(window) = Window::new(row.second, row.second) else { return Ok(false) };
    let kind = if row.is_refund { RowKind::Refund } else { RowKind::Consumption };
    let mut reading = Reading::new(gateway.clone(), window, kind, crate::gateway::Ids::Unknown);
    while let Some(piece) = reading.next_piece().await? {
        if piece.rows.iter().any(|found| found.digest() == row.digest) {
            return Ok(true);
        }
    }
    Ok(false)
}
