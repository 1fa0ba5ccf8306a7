//! What an audit tells, in the shapes that people and programs see; their JSON names and the kinds stay.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::domain::money::FEMTOS_PER_CREDIT;
use crate::storage::audit::{AcceptedDifference, DIFFERENCE_ID_DIGITS};

/// What kind of difference it is. In the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A charge has no usage record, while its user and key are there.
    RecordMissing,
    /// A usage record says otherwise than its charge.
    RecordDiffers,
    /// A usage record of ours has no charge.
    ClaimMissing,
    /// The figures of a charge do not add up.
    ClaimDiffers,
    /// Two charges name one event.
    EventChargedTwice,
    /// Two charges name one row of new-api's log.
    RowChargedTwice,
    /// A charge names a row that is not among those that were read.
    RowUnknown,
    /// A charge moved credits, and no transaction tells of it.
    TransactionMissing,
    /// Two transactions tell of one deduction or refund.
    TransactionDoubled,
    /// The transactions of a charge are of another amount or user.
    TransactionDiffers,
    /// A transaction refers to a charge that never was.
    TransactionUnexplained,
    /// A refund and its transaction disagree, or its figures do not add up.
    RefundDiffers,
    /// What a user owes below one credit is not what his charges and refunds leave.
    RemainderDiffers,
    /// The unpaid amount of a user is not what his charges and refunds leave.
    UnpaidDiffers,
    /// A balance differs from the transactions of a user whose own chain is broken.
    BalanceDiffers,
    /// Another program wrote a balance over what was booked since it read it.
    BalanceOverwritten,
    /// A balance changed without a transaction.
    BalanceChanged,
    /// new-api's log has a call that is not charged.
    CallMissing,
    /// new-api's log has a refund that is not known here.
    RefundMissing,
    /// A row that was read is no longer in new-api's log.
    RowDeleted,
    /// A call that was charged by its event has no row in new-api's log.
    CallWithoutRow,
}

impl DifferenceKind {
    /// Another program's doing, while our own chain is whole.
    pub fn is_of_others(self) -> bool {
        matches!(self, DifferenceKind::BalanceOverwritten | DifferenceKind::BalanceChanged)
    }

    /// Found by sums, and named by a second look.
    pub fn is_named_by_sums(self) -> bool {
        use DifferenceKind::{TransactionDiffers, TransactionDoubled, TransactionMissing, TransactionUnexplained};
        matches!(self, TransactionMissing | TransactionDoubled | TransactionDiffers | TransactionUnexplained)
    }
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The same at each audit, as long as it says the same.
    pub id: String,
    pub kind: DifferenceKind,
    /// Absent where nobody's books differ.
    pub user_id: Option<String>,
    pub email: Option<String>,
    /// What differs: the charge, transaction, refund or row.
    pub subject: Option<String>,
    /// Credits, a decimal: above zero, the user has more than the books explain, or paid less than they say.
    pub credits: String,
    /// The same, in parts of credits.
    #[serde(skip)]
    pub femtos: i128,
    /// UTC; the first and the last instant between which it came to be.
    pub since: Option<String>,
    pub until: Option<String>,
    /// In a sentence.
    pub says: String,
    pub what_to_do: &'static str,
    /// By a person, who knows of it.
    pub accepted: Option<AcceptedDifference>,
}

impl Difference {
    /// Its id is a digest of everything that it says of what, whose and how much; the end of a span, which may move, and
    /// words are no part of it.
    pub fn new(kind: DifferenceKind, user_id: Option<&str>, subject: Option<&str>, femtos: i128) -> Self {
        Difference {
            id: String::new(),
            kind,
            user_id: user_id.map(str::to_owned),
            email: None,
            subject: subject.map(str::to_owned),
            credits: credits_text(femtos),
            femtos,
            since: None,
            until: None,
            says: String::new(),
            what_to_do: super::says::what_to_do(kind),
            accepted: None,
        }
        .named()
    }

    pub fn since(mut self, since: Option<String>) -> Self {
        self.since = since;
        self.named()
    }

    pub fn until(mut self, until: Option<String>) -> Self {
        self.until = until;
        self
    }

    pub fn saying(mut self, says: String) -> Self {
        self.says = says;
        self
    }

    /// The same, judged otherwise.
    pub fn of_kind(self, kind: DifferenceKind) -> Self {
        Difference { kind, what_to_do: super::says::what_to_do(kind), ..self }.named()
    }

    fn named(mut self) -> Self {
        let mut hash = Sha256::new();
        let kind = format!("{:?}", self.kind);
        let credits = Some(self.credits.as_str());
        let parts =
            [Some(kind.as_str()), self.user_id.as_deref(), self.subject.as_deref(), credits, self.since.as_deref()];
        for part in parts {
            hash.update(part.unwrap_or_default());
            hash.update("\n");
        }
        self.id = hex::encode(hash.finalize())[..DIFFERENCE_ID_DIGITS].to_owned();
        self
    }
}

/// Parts of credits as a signed decimal.
pub fn credits_text(femtos: i128) -> String {
    let sign = if femtos < 0 { "-" } else { "" };
    let size = femtos.unsigned_abs();
    let per_credit = FEMTOS_PER_CREDIT.unsigned_abs();
    let (whole, part) = (size / per_credit, size % per_credit);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{part:015}").trim_end_matches('0'))
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LookedAt {
    pub charges: u64,
    pub transactions: u64,
    pub refunds: u64,
    pub users: u64,
    /// Charges whose user or key is gone, and their usage records with it: no difference.
    pub erased_charges: u64,
    pub erased_credits: i64,
    /// Charges that another program billed: its own business.
    pub adopted_charges: u64,
    /// Credits that were refused for want of balance and not lowered since: no difference.
    pub unpaid_credits: i64,
}

/// How the books compare with new-api's log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceReport {
    /// `newapi.source`
    pub source: String,
    /// What was compared, UTC; absent where nothing was.
    pub since: Option<String>,
    pub until: Option<String>,
    /// Spans whose figures agreed, and spans that were read row by row.
    pub spans_agreed: u64,
    pub spans_read: u64,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    pub looked_at: LookedAt,
    /// Those that count.
    pub differences: Vec<Difference>,
    /// Put down to other programs: they count with `--strict`.
    pub of_others: Vec<Difference>,
    /// A person knows of them.
    pub accepted: Vec<Difference>,
    /// How many of each kind there are, the accepted ones apart.
    pub counts: BTreeMap<DifferenceKind, u64>,
    /// Beyond what is listed.
    pub more: u64,
    /// Beyond those of which one look keeps what they say.
    pub unverified: u64,
    /// The same, of other programs: they count with `--strict`.
    pub unverified_of_others: u64,
    /// Accepted before, and not there any more.
    pub no_longer_found: Vec<AcceptedDifference>,
    /// Our state and the platform's tables do not belong together, and why: nothing can agree before a repair.
    pub apart: Option<String>,
    /// What could not be judged, and why.
    pub notes: Vec<String>,
    /// Absent without `--against-source`.
    pub source: Option<SourceReport>,
}

impl AuditReport {
    /// Nothing counts. `strict`: what is put down to other programs does as well.
    pub fn is_whole(&self, strict: bool) -> bool {
        let counts = self.counts.iter().filter(|(kind, _)| strict || !kind.is_of_others());
        let unverified = self.unverified + if strict { self.unverified_of_others } else { 0 };
        self.apart.is_none() && counts.map(|(_, count)| count).sum::<u64>() + unverified == 0
    }

    pub(super) fn take(&mut self, difference: Difference, list_at_most: usize) {
        let list = match (&difference.accepted, difference.kind.is_of_others()) {
            (Some(_), _) => &mut self.accepted,
            (None, true) => &mut self.of_others,
            (None, false) => &mut self.differences,
        };
        if difference.accepted.is_none() {
            *self.counts.entry(difference.kind).or_default() += 1;
        }
        if list.len() < list_at_most {
            list.push(difference);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().chain(&self.of_others).chain(&self.accepted)
    }

    pub(super) fn name_users(&mut self, emails: &HashMap<String, String>) {
        for one in self.differences.iter_mut().chain(&mut self.of_others).chain(&mut self.accepted) {
            one.email = one.user_id.as_ref().and_then(|user| emails.get(user)).cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_signed_decimals() {
        assert_eq!(credits_text(0), "0");
        assert_eq!(credits_text(-5 * FEMTOS_PER_CREDIT), "-5");
        assert_eq!(credits_text(FEMTOS_PER_CREDIT / 4), "0.25");
        assert_eq!(credits_text(-1), "-0.000000000000001");
    }

    #[test]
    fn an_id_says_what_and_how_much_and_not_in_which_words() {
        let one = Difference::new(DifferenceKind::RecordMissing, Some("u"), Some("c"), 5);
        assert_eq!(one.id.len(), DIFFERENCE_ID_DIGITS);
        assert_eq!(one.clone().saying("x".to_owned()).until(Some("now".to_owned())).id, one.id);
        assert_ne!(Difference::new(DifferenceKind::RecordMissing, Some("u"), Some("c"), 6).id, one.id);
        assert_ne!(Difference::new(DifferenceKind::RecordDiffers, Some("u"), Some("c"), 5).id, one.id);
        assert_ne!(one.clone().since(Some("then".to_owned())).id, one.id);
    }

    #[test]
    fn others_count_only_where_that_is_asked_for() {
        let mut report = AuditReport::default();
        report.take(Difference::new(DifferenceKind::BalanceChanged, Some("u"), None, 5), 10);
        assert!(report.is_whole(false) && !report.is_whole(true));
        report.take(Difference::new(DifferenceKind::ClaimMissing, None, Some("r"), 0), 0);
        assert!(!report.is_whole(false), "what is not listed counts as well");
        assert_eq!((report.differences.len(), report.more), (0, 1));
        let many = AuditReport { unverified_of_others: 1, ..AuditReport::default() };
        assert!(many.is_whole(false) && !many.is_whole(true), "nor do those beyond what is kept");
        let apart = AuditReport { apart: Some("restored".to_owned()), ..AuditReport::default() };
        assert!(!apart.is_whole(false), "what came apart cannot agree");
    }
}
