//! A row of new-api's log, as parsed: what it tells, and what makes two readings of it the same row.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::ids::{RemoteKeyId, RequestId};
use super::planted;

/// What a row is, for us. Other types of row are never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// Type 2: a call, and its price.
    Consumption,
    /// Type 6: a task failed, or cost less than was taken.
    Refund,
}

impl RowKind {
    /// new-api's number of this type.
    pub fn number(self) -> i64 {
        match self {
            RowKind::Consumption => 2,
            RowKind::Refund => 6,
        }
    }

    pub fn from_number(number: i64) -> Option<Self> {
        [RowKind::Consumption, RowKind::Refund].into_iter().find(|kind| kind.number() == number)
    }
}

/// One row. Numbers are as the gateway stated them: whether the books can hold them is judged where they are booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// `created_at`: Unix seconds.
    pub second: i64,
    pub kind: RowKind,
    /// `token_id`; 0 is nobody's.
    pub token: RemoteKeyId,
    /// An administrator can rename it: shown, never compared.
    pub token_name: Arc<str>,
    pub model: Arc<str>,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    /// `quota`, in quota units. Below zero in the refunds of older versions, which wrote them as type 2.
    pub quota_units: i64,
    /// Absent in older versions; not unique.
    pub request_id: Option<RequestId>,
    /// `id`: never an identity by itself, since logs are truncated, restored and moved.
    pub log_id: Option<i64>,
    /// What `other` says of an asynchronous task.
    pub task: Option<TaskNote>,
}

/// The part of a row that belongs to an asynchronous task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskNote {
    /// `other.task_id`; the row of the submission may lack it.
    pub task_id: Option<Arc<str>>,
    /// `other.is_task`: this row is a submission.
    pub is_submission: bool,
    /// `other.pre_consumed_quota`: what the submission cost, in quota units.
    pub pre_consumed_units: Option<i64>,
    /// `other.reason`, for people.
    pub reason: Option<Arc<str>>,
}

impl LogRow {
    pub fn task_id(&self) -> Option<&str> {
        self.task.as_ref()?.task_id.as_deref()
    }

    /// It gives something back: type 6, or a quota below zero as older versions wrote it.
    pub fn is_refund(&self) -> bool {
        self.kind == RowKind::Refund || self.quota_units < 0
    }

    /// What it gives back, in quota units; none where that cannot be.
    pub fn refunded_units(&self) -> Option<i64> {
        let units = match self.kind {
            RowKind::Refund => Some(self.quota_units),
            RowKind::Consumption => self.quota_units.checked_neg(),
        };
        units.filter(|units| self.is_refund() && *units >= 0)
    }

    /// What a later row of a task says that its submission cost.
    pub fn stated_units(&self) -> Option<i64> {
        let task = self.task.as_ref().filter(|task| !task.is_submission)?;
        task.pre_consumed_units.filter(|units| *units >= 0)
    }

    /// Says the same for two readings of one row, whatever an administrator renamed, and whatever became of its id.
    /// Rows that are equal in all of it are told apart by their number within their second ([`RowIdentity`]).
    pub fn digest(&self) -> RowDigest {
        let mut hash = Sha256::new();
        for number in [
            self.second,
            self.kind.number(),
            self.token.get(),
            self.quota_units,
            self.prompt_tokens,
            self.completion_tokens,
        ] {
            hash.update(number.to_be_bytes());
        }
        let texts = [Some(&*self.model), self.request_id.as_ref().map(RequestId::as_str), self.task_id()];
        for text in texts {
            // The length first, so that no two lists of texts look alike.
            hash.update((text.map_or(-1, |text| text.len() as i64)).to_be_bytes());
            hash.update(text.unwrap_or_default());
        }
        if planted::is_on("row_id_is_identity") {
            hash.update(self.log_id.unwrap_or_default().to_be_bytes());
        }
        let digest = hash.finalize();
        RowDigest(hex::encode(&digest[..DIGEST_BYTES]))
    }
}

const DIGEST_BYTES: usize = 16;

/// Half a SHA-256 over everything of a row that nobody can change, in hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowDigest(String);

impl RowDigest {
    /// Characters of every digest.
    pub const LENGTH: usize = 2 * DIGEST_BYTES;

    /// As it was stored.
    pub fn of_text(text: &str) -> Self {
        RowDigest(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One row of one source: which of the equal rows of its second it is counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowIdentity {
    /// `newapi.source`: under which name the gateway's rows are known.
    pub source: Arc<str>,
    pub second: i64,
    pub digest: RowDigest,
    pub number: u32,
}

/// Numbers the rows of seconds that were read completely, in their order.
pub fn number_rows(source: &Arc<str>, rows: Vec<LogRow>) -> Vec<(RowIdentity, LogRow)> {
    let mut seen = std::collections::HashMap::<(i64, RowDigest), u32>::new();
    rows.into_iter()
        .map(|row| {
            let digest = row.digest();
            let next = seen.entry((row.second, digest.clone())).or_insert(0);
            let identity = RowIdentity { source: source.clone(), second: row.second, digest, number: *next };
            *next += u32::from(!planted::is_on("row_number_ignored"));
            (identity, row)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> LogRow {
        LogRow {
            second: 1_800_000_000,
            kind: RowKind::Consumption,
            token: RemoteKeyId::new(7).unwrap(),
            token_name: "alice-key".into(),
            model: "gpt-4".into(),
            prompt_tokens: 10,
            completion_tokens: 5,
            quota_units: 300,
            request_id: RequestId::parse("r-1").ok(),
            log_id: Some(12),
            task: None,
        }
    }

    #[test]
    fn a_new_id_and_a_new_name_leave_a_row_what_it_was() {
        let renamed = LogRow { token_name: "bob-key".into(), log_id: Some(1), ..row() };
        assert_eq!(renamed.digest(), row().digest());
    }

    #[test]
    fn whatever_a_row_tells_of_its_call_is_part_of_it() {
        let task = Some(TaskNote { task_id: Some("r-1".into()), ..TaskNote::default() });
        let others = [
            LogRow { second: 1_800_000_001, ..row() },
            LogRow { kind: RowKind::Refund, ..row() },
            LogRow { token: RemoteKeyId::new(8).unwrap(), ..row() },
            LogRow { model: "gpt-4o".into(), ..row() },
            LogRow { prompt_tokens: 5, completion_tokens: 10, ..row() },
            LogRow { quota_units: 301, ..row() },
            LogRow { request_id: None, ..row() },
            LogRow { request_id: None, task, ..row() },
        ];
        let digests: std::collections::HashSet<_> = others.iter().chain([&row()]).map(LogRow::digest).collect();
        assert_eq!(digests.len(), others.len() + 1);
    }

    #[test]
    fn equal_rows_are_told_apart_by_their_number() {
        let later = LogRow { second: 1_800_000_001, ..row() };
        let numbers: Vec<u32> = number_rows(&"default".into(), vec![row(), later, row()])
            .into_iter()
            .map(|(identity, _)| identity.number)
            .collect();
        assert_eq!(numbers, [0, 0, 1]);
    }
}
