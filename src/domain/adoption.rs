//! Which calls another program has billed already: its usage records are adopted as charges, one record a call.
//!
//! Pure: a store reads the records that may matter under its locks, and writes down what was taken.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::event::Content;
use super::ids::{KeyId, RecordId, RemoteKeyId, UserId};
use super::money::Credits;
use super::outcome::fit_column;
use super::time::UnixMillis;

/// How far the other program's time of a call may lie from the event's.
pub const TIE_WITHIN: Duration = Duration::from_secs(300);

/// A usage record that another program wrote, and no event has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRecord {
    /// `usage_records.id`
    pub id: RecordId,
    pub key_id: KeyId,
    /// The key's.
    pub user_id: UserId,
    /// As the column has it.
    pub model: String,
    pub prompt_tokens: i32,
    pub completion_tokens: i32,
    pub recorded_at: UnixMillis,
    /// Whole credits that it moved.
    pub credits: Credits,
}

/// The free records of each token, earliest first.
#[derive(Debug, Default)]
pub struct ForeignRecords {
    by_token: HashMap<RemoteKeyId, Vec<ForeignRecord>>,
}

impl ForeignRecords {
    /// A record may lie under several tokens, where its key had several over time. It is taken under one of them.
    pub fn new(records: impl IntoIterator<Item = (RemoteKeyId, ForeignRecord)>) -> Self {
        let mut by_token: HashMap<RemoteKeyId, Vec<ForeignRecord>> = HashMap::new();
        for (token, record) in records {
            by_token.entry(token).or_default().push(record);
        }
        for records in by_token.values_mut() {
            records.sort_by(|one, other| (one.recorded_at, &one.id).cmp(&(other.recorded_at, &other.id)));
            records.dedup();
        }
        ForeignRecords { by_token }
    }

    /// Takes the earliest free record of this call, whatever its price: nobody else gets it.
    pub fn take(&mut self, call: &Content) -> Option<ForeignRecord> {
        let records = self.by_token.get(&call.remote_key_id)?;
        let model = fit_column(&call.model);
        let record = records.iter().find(|record| record.is_of(call, &model))?.clone();
        for records in self.by_token.values_mut() {
            records.retain(|other| other.id != record.id);
        }
        Some(record)
    }
}

impl ForeignRecord {
    fn is_of(&self, call: &Content, model: &str) -> bool {
        let (from, until) = (call.called_at.minus(TIE_WITHIN), call.called_at.plus(TIE_WITHIN));
        (from..=until).contains(&self.recorded_at)
            && self.model == model
            && (self.prompt_tokens, self.completion_tokens) == (call.tokens.prompt, call.tokens.completion)
    }
}

/// What the calls of a batch are told by, but for their time. Records of others are many; these few are kept of them.
#[derive(Debug)]
pub struct Wanted(HashSet<(RemoteKeyId, String, i32, i32)>);

impl Wanted {
    pub fn of<'a>(calls: impl Iterator<Item = &'a Content>) -> Self {
        let told_by = |call: &Content| {
            let Content { remote_key_id, model, tokens, .. } = call;
            (*remote_key_id, fit_column(model), tokens.prompt, tokens.completion)
        };
        Wanted(calls.map(told_by).collect())
    }

    /// Whether a call of that token may take this record.
    pub fn has(&self, token: RemoteKeyId, record: &ForeignRecord) -> bool {
        self.0.contains(&(token, record.model.clone(), record.prompt_tokens, record.completion_tokens))
    }
}

/// When records of each token may lie that tie a call of a batch: spans without overlap, none before `adopted_from`.
pub fn spans(
    all: impl Iterator<Item = (RemoteKeyId, UnixMillis)>,
    adopted_from: UnixMillis,
) -> BTreeMap<RemoteKeyId, Vec<(UnixMillis, UnixMillis)>> {
    let mut calls: BTreeMap<RemoteKeyId, Vec<UnixMillis>> = BTreeMap::new();
    for (token, called_at) in all.filter(|(_, called_at)| called_at.plus(TIE_WITHIN) >= adopted_from) {
        calls.entry(token).or_default().push(called_at);
    }
    let joined = |mut times: Vec<UnixMillis>| {
        times.sort_unstable();
        let mut spans: Vec<(UnixMillis, UnixMillis)> = Vec::new();
        for at in times {
            let (from, until) = (at.minus(TIE_WITHIN).max(adopted_from), at.plus(TIE_WITHIN));
            match spans.last_mut() {
                Some(last) if from <= last.1 => last.1 = until,
                _ => spans.push((from, until)),
            }
        }
        spans
    };
    calls.into_iter().map(|(token, times)| (token, joined(times))).collect()
}

#[cfg(test)]
#[path = "adoption_tests.rs"]
mod tests;
