//! What a store tells of a database that had a history before us: the moment, what was found, who else still bills.

use crate::domain::time::UnixMillis;

/// What the first start on a database found of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundHistory {
    /// From now on we bill.
    pub taken_over_at: UnixMillis,
    /// Usage records of others from here on are adopted.
    pub adopted_from: UnixMillis,
    /// Of others, since `adopted_from`.
    pub usage_records: i64,
    pub newest_record_at: Option<UnixMillis>,
    pub webhook_logs: i64,
    pub users: i64,
    pub keys: i64,
}

/// How a taking over stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    pub taken_over_at: UnixMillis,
    /// Usage records of others that took a call of ours.
    pub adopted: i64,
    /// Absent where nobody else has billed for a day.
    pub foreign: Option<ForeignDeductions>,
}

/// What others billed after we took over, as far as it was noticed in the last day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignDeductions {
    /// Usage records.
    pub records: i64,
    pub users: i64,
    /// Of a few of these users.
    pub emails: Vec<String>,
    /// Time of the newest record.
    pub newest_at: UnixMillis,
    /// Sum of what they moved.
    pub credits: i64,
    /// Those that took a call of ours.
    pub adopted: i64,
}

impl ForeignDeductions {
    /// One sentence with the figures.
    pub fn sentence(&self) -> String {
        let ForeignDeductions { records, users, emails, newest_at, credits, adopted } = self;
        let more = if *users > i64::try_from(emails.len()).unwrap_or(i64::MAX) { ", and more" } else { "" };
        let named = emails.join(", ");
        format!(
            "another program still bills: {records} usage records of {users} users ({named}{more}) since we took over, \
             {credits} credits, the newest of {newest_at}; {adopted} of them stand for a call that we did not charge"
        )
    }
}
