//! Do our own state and the platform's tables belong together? And what puts them together again.
//!
//! Each can be restored, dropped or replaced without the other. Claims and usage records carry all that is needed to
//! tell, and to make one again from the other. Reading and writing them is the store's.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::accounts::{Account, AccountChange};
use super::ids::{RecordId, UserId};
use super::money::{AmountTooLarge, Credits, Remainder};
use super::outcome::InboxStatus;
use super::recording::WaitReason;

/// In which way the two don't belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apart {
    /// Charges of ours are missing among the platform's usage records: those are of an earlier time.
    Platform { missing: usize },
    /// Usage records that we wrote are unknown to our state: it is of an earlier time, or was made anew.
    State { missing: usize },
    /// The usage records are of another state, and this one has charges of its own.
    Foreign { installation: String },
}

impl fmt::Display for Apart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Apart::Platform { missing } => write!(
                formatter,
                "the platform's database and hookledger's state do not belong together: {missing} of the newest charges \
                 are missing in usage_records, which was restored or replaced"
            ),
            Apart::State { missing } => write!(
                formatter,
                "the platform's database and hookledger's state do not belong together: {missing} of the newest usage \
                 records are unknown to the state schema, which was restored, dropped or replaced"
            ),
            Apart::Foreign { installation } => write!(
                formatter,
                "the platform's database and hookledger's state do not belong together: the newest usage records were \
                 written by the installation {installation}, whose state is another schema"
            ),
        }
    }
}

/// A usage record that some hookledger wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRecord {
    pub id: String,
    pub installation: String,
    /// The second of its call.
    pub call_second: i64,
}

/// What a look found at the newest ends of both.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// Claims whose user and key still exist and whose usage record does not.
    pub unbooked_claims: usize,
    pub has_claims: bool,
    /// Newest first.
    pub records: Vec<WrittenRecord>,
    /// Ids of those records that have a claim.
    pub claimed: HashSet<String>,
    /// The second from which claims are remembered; none: all are.
    pub remembered_from_second: Option<i64>,
}

/// Whether the two belong together; none: they do.
pub fn judge(ends: &Ends, installation: &str) -> Option<Apart> {
    if let Some(newest) = ends.records.first()
        && ends.has_claims
        && ends.records.iter().all(|record| record.installation != installation)
    {
        return Some(Apart::Foreign { installation: newest.installation.clone() });
    }
    let own = own_installation(ends, installation);
    let is_forgotten = |record: &&WrittenRecord| {
        record.installation == own && ends.remembered_from_second.is_none_or(|second| record.call_second >= second)
    };
    let missing = ends.records.iter().filter(is_forgotten).filter(|record| !ends.claimed.contains(&record.id)).count();
    if missing > 0 {
        return Some(Apart::State { missing });
    }
    (ends.unbooked_claims > 0).then_some(Apart::Platform { missing: ends.unbooked_claims })
}

/// Under which id the records are ours: a state without charges is that of the newest records.
pub fn own_installation<'a>(ends: &'a Ends, installation: &'a str) -> &'a str {
    match ends.records.first() {
        Some(newest) if !ends.has_claims => &newest.installation,
        _ => installation,
    }
}

/// What a claim that is made again says of its user's account.
#[derive(Debug, Clone)]
pub struct RebuiltClaim {
    pub id: RecordId,
    pub user_id: UserId,
    pub unpaid: Credits,
    pub remainder_after: Remainder,
}

/// What each account comes to: the newest record tells what is owed below one credit, and what was not paid adds up.
pub fn rebuilt_accounts<'a>(
    claims: impl Iterator<Item = RebuiltClaim>,
    account: impl Fn(&UserId) -> Option<&'a Account>,
) -> Result<Vec<AccountChange>, AmountTooLarge> {
    let mut changes: BTreeMap<UserId, (RecordId, AccountChange)> = BTreeMap::new();
    for claim in claims {
        let known = account(&claim.user_id);
        let (newest, change) = changes.entry(claim.user_id.clone()).or_insert_with(|| {
            let change = AccountChange {
                user_id: claim.user_id.clone(),
                balance_delta: Credits::ZERO,
                remainder: claim.remainder_after,
                unpaid: known.map(|account| account.unpaid).unwrap_or_default(),
                creates_balance: false,
            };
            (claim.id.clone(), change)
        });
        change.unpaid = change.unpaid.checked_add(claim.unpaid)?;
        if claim.id >= *newest {
            *newest = claim.id;
            change.remainder = claim.remainder_after;
        }
    }
    Ok(changes.into_values().map(|(_, change)| change).collect())
}

/// Why a stored event waits, by what stands beside it.
pub fn wait_reason(status: InboxStatus, message: Option<&str>) -> WaitReason {
    const REASONS: [(&str, WaitReason); 7] = [
        ("API Key not found for remoteKeyId:", WaitReason::UnknownKey),
        ("Several users have the API key", WaitReason::AmbiguousKey),
        ("Call is older than the API key", WaitReason::BeyondGrace),
        ("Call was made when remoteKeyId:", WaitReason::BeyondGrace),
        ("Call is older than what is remembered", WaitReason::BeyondMemory),
        ("Another program holds", WaitReason::Busy),
        ("Held: ", WaitReason::QuotaUnknown),
    ];
    if status == InboxStatus::Pending {
        return WaitReason::Recorded;
    }
    let message = message.unwrap_or_default();
    let known = REASONS.into_iter().find(|(beginning, _)| message.starts_with(beginning));
    known.map_or(WaitReason::Unbookable, |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::super::ids::RemoteKeyId;
    use super::super::outcome::Failure;
    use super::*;

    fn record(id: &str, installation: &str) -> WrittenRecord {
        WrittenRecord { id: id.to_owned(), installation: installation.to_owned(), call_second: 100 }
    }

    fn ends(records: &[WrittenRecord], claimed: &[&str]) -> Ends {
        Ends {
            has_claims: true,
            records: records.to_vec(),
            claimed: claimed.iter().map(|id| (*id).to_owned()).collect(),
            ..Ends::default()
        }
    }

    #[test]
    fn claims_and_records_of_one_time_belong_together() {
        assert_eq!(judge(&Ends::default(), "own"), None, "a first start");
        assert_eq!(judge(&ends(&[record("b", "own"), record("a", "own")], &["a", "b"]), "own"), None);
        let beside = ends(&[record("b", "other"), record("a", "own")], &["a"]);
        assert_eq!(judge(&beside, "own"), None, "an earlier installation's records may lie beside ours");
    }

    #[test]
    fn what_is_missing_tells_which_side_was_moved() {
        let restored = Ends { unbooked_claims: 3, ..ends(&[record("a", "own")], &["a"]) };
        assert_eq!(judge(&restored, "own"), Some(Apart::Platform { missing: 3 }));
        let state = ends(&[record("b", "own"), record("a", "own")], &["a"]);
        assert_eq!(judge(&state, "own"), Some(Apart::State { missing: 1 }));
        let remembered = Ends { remembered_from_second: Some(101), ..state };
        assert_eq!(judge(&remembered, "own"), None, "what is older than our memory is no sign");
        let foreign = ends(&[record("a", "other")], &[]);
        assert_eq!(judge(&foreign, "own"), Some(Apart::Foreign { installation: "other".to_owned() }));
    }

    #[test]
    fn an_empty_state_beside_records_is_never_a_first_start() {
        let fresh = Ends { has_claims: false, ..ends(&[record("b", "old"), record("a", "older")], &[]) };
        assert_eq!(judge(&fresh, "new"), Some(Apart::State { missing: 1 }));
        assert_eq!(own_installation(&fresh, "new"), "old");
        assert_eq!(own_installation(&ends(&[record("b", "old")], &[]), "new"), "new", "it has charges of its own");
    }

    #[test]
    fn an_account_is_what_its_newest_record_left() {
        let user = UserId::parse("u").unwrap();
        let claim = |id: &str, unpaid, after| RebuiltClaim {
            id: RecordId::parse(id).unwrap(),
            user_id: user.clone(),
            unpaid: Credits::new(unpaid),
            remainder_after: Remainder::new(after).unwrap(),
        };
        let known = Account { unpaid: Credits::new(5), ..Account::default() };
        let claims = [claim("01", 0, 7), claim("03", 2, 9), claim("02", 1, 8)];
        let changes = rebuilt_accounts(claims.into_iter(), |_| Some(&known)).unwrap();
        let [change] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((change.unpaid, change.remainder.get()), (Credits::new(8), 9));
        assert_eq!(change.balance_delta, Credits::ZERO, "the platform's side has all of it");
    }

    #[test]
    fn what_an_event_waits_for_stands_in_its_message() {
        let token = RemoteKeyId::new(7).unwrap();
        let failures = [
            (Failure::UnknownKey(token), WaitReason::UnknownKey),
            (Failure::AmbiguousKey(token), WaitReason::AmbiguousKey),
            (Failure::BeyondGrace(token), WaitReason::BeyondGrace),
            (Failure::FormerOwner(token), WaitReason::BeyondGrace),
            (Failure::BeyondMemory, WaitReason::BeyondMemory),
            (Failure::QuotaUnknown, WaitReason::QuotaUnknown),
            (Failure::Unbookable("x".to_owned()), WaitReason::Unbookable),
        ];
        for (failure, reason) in failures {
            assert_eq!(wait_reason(InboxStatus::Failed, Some(&failure.message())), reason, "{failure}");
        }
        assert_eq!(wait_reason(InboxStatus::Pending, None), WaitReason::Recorded);
    }
}
