//! What `usage_records.rawMeta` carries of a charge: enough to rebuild its claim, should our own tables be lost.
//!
//! The same text on every database.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{EventId, MAX_ID_CHARS, RequestId};
use crate::domain::log_row::{RowDigest, RowIdentity};
use crate::domain::money::QuotaUnits;
use crate::domain::settlement::{Charge, ClaimSide};
use crate::domain::side::{Channel, SideIdentity};
use crate::domain::time::UnixMillis;

/// A model that was cut for the shared column is kept whole here, up to this many characters.
const MAX_MODEL_CHARS: usize = 4000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta<'a> {
    installation: &'a str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<RowMeta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_id: Option<i64>,
    remote_key_id: i64,
    /// Where neither side tells it: the side that was charged has gone to another charge of its batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    called_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<i64>,
    /// Exact price in credits, a decimal.
    price: String,
    rate: String,
    quota_per_unit: i64,
    rounding: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    unpaid: i64,
    /// In 1e-15 credit.
    remainder_before: i64,
    remainder_after: i64,
}

/// The identity of a row.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RowMeta<'a> {
    source: &'a str,
    second: i64,
    digest: &'a str,
    number: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_id: Option<i64>,
}

fn row_meta(side: &ClaimSide) -> Option<RowMeta<'_>> {
    let SideIdentity::Row { row, request_id, log_id } = &side.identity else { return None };
    Some(RowMeta {
        source: &row.source,
        second: row.second,
        digest: row.digest.as_str(),
        number: row.number,
        request_id: request_id.as_ref().map(RequestId::as_str),
        log_id: *log_id,
    })
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// When the side of the charging channel lies, in milliseconds.
fn charged_side_at(charge: &Charge) -> Option<i64> {
    let (first, second) = match charge.channel {
        Channel::Webhook => (&charge.event, &charge.row),
        Channel::Log => (&charge.row, &charge.event),
    };
    first.as_ref().or(second.as_ref()).map(|side| side.at.as_millis())
}

/// The JSON text for one charge.
pub fn raw_meta(installation: &str, charge: &Charge) -> Result<String, serde_json::Error> {
    let event = charge.event.as_ref();
    let event_id = event.and_then(|side| match &side.identity {
        SideIdentity::Event { event_id, .. } => Some(event_id.as_str()),
        SideIdentity::Row { .. } => None,
    });
    let model = &charge.content.model;
    let is_cut = model.chars().nth(MAX_ID_CHARS).is_some();
    serde_json::to_string(&RawMeta {
        installation,
        source: charge.channel.as_str(),
        event_id,
        event_at_ms: event.map(|side| side.at.as_millis()),
        row: charge.row.as_ref().and_then(row_meta),
        request_id: event.and_then(|side| side.identity.request_id()).map(RequestId::as_str),
        log_id: event.and_then(|side| side.identity.log_id()),
        remote_key_id: charge.content.remote_key_id.get(),
        called_at_ms: Some(charge.content.called_at.as_millis()).filter(|at| charged_side_at(charge) != Some(*at)),
        model: is_cut.then(|| model.chars().take(MAX_MODEL_CHARS).collect()),
        quota: charge.price.units.map(QuotaUnits::get),
        price: charge.price.credits.to_string(),
        rate: charge.price.rate.to_string(),
        quota_per_unit: charge.price.quota_per_unit.get(),
        rounding: charge.rounding.as_str(),
        unpaid: charge.unpaid.get(),
        remainder_before: charge.remainder_before.get(),
        remainder_after: charge.remainder_after.get(),
    })
}

/// What was read back of a usage record's `rawMeta`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMeta {
    pub installation: String,
    pub source: String,
    pub event_id: Option<String>,
    pub event_at_ms: Option<i64>,
    pub row: Option<StoredRow>,
    pub request_id: Option<String>,
    pub log_id: Option<i64>,
    pub remote_key_id: i64,
    pub called_at_ms: Option<i64>,
    /// Whole, where the shared column holds it cut.
    pub model: Option<String>,
    pub quota: Option<i64>,
    pub price: String,
    pub rate: String,
    pub quota_per_unit: i64,
    /// Absent where an earlier version wrote it.
    pub rounding: Option<String>,
    #[serde(default)]
    pub unpaid: i64,
    pub remainder_before: i64,
    pub remainder_after: i64,
}

/// The identity of a row, as it was read back.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredRow {
    pub source: String,
    pub second: i64,
    pub digest: String,
    pub number: u32,
    pub request_id: Option<String>,
    pub log_id: Option<i64>,
}

impl StoredMeta {
    /// The time of the side that was charged.
    pub fn called_at(&self) -> UnixMillis {
        let row_at = self.row.as_ref().map(|row| row.second.saturating_mul(1000));
        let at = if self.channel() == Channel::Log { row_at.or(self.event_at_ms) } else { self.event_at_ms.or(row_at) };
        let at = self.called_at_ms.or(at);
        UnixMillis::new(at.unwrap_or_default())
    }

    pub fn channel(&self) -> Channel {
        if self.source == Channel::Log.as_str() { Channel::Log } else { Channel::Webhook }
    }

    /// The event and its time, where it is known.
    pub fn event_side(&self) -> Option<ClaimSide> {
        let request_id = self.request_id.as_deref().and_then(|id| RequestId::parse(id).ok());
        let event_id = EventId::parse(self.event_id.as_deref()?).ok()?;
        let identity = SideIdentity::Event { event_id, request_id, log_id: self.log_id };
        Some(ClaimSide { identity, at: UnixMillis::new(self.event_at_ms?) })
    }

    /// The row and its time, where it is known.
    pub fn row_side(&self) -> Option<ClaimSide> {
        let row = self.row.as_ref()?;
        let identity = RowIdentity {
            source: Arc::from(row.source.as_str()),
            second: row.second,
            digest: RowDigest::of_text(&row.digest),
            number: row.number,
        };
        let request_id = row.request_id.as_deref().and_then(|id| RequestId::parse(id).ok());
        let at = UnixMillis::new(row.second.saturating_mul(1000));
        Some(ClaimSide { identity: SideIdentity::Row { row: identity, request_id, log_id: row.log_id }, at })
    }
}

/// Reads a text that we wrote; none: it is another program's.
pub fn read(text: &str) -> Option<StoredMeta> {
    let meta: StoredMeta = serde_json::from_str(text).ok()?;
    Some(meta).filter(|meta| meta.event_side().is_some() || meta.row.is_some())
}
