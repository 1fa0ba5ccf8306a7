//! Unit tests of the decision what a batch books.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::domain::accounts::{NewestTransaction, next_stamp};
use crate::domain::adoption::ForeignRecord;
use crate::domain::event::{Content, Tokens};
use crate::domain::ids::EventId;
use crate::domain::known::{KnownEvent, OpenEvent};
use crate::domain::log_row::{RowDigest, RowIdentity};
use crate::domain::matching::{MatchPolicy, Neighbours, Standing, facts};
use crate::domain::money::{QuotaPerUnit, QuotaUnits, Rate};
use crate::domain::outcome::Failure;
use crate::domain::pricing::{Dated, Price};
use crate::domain::side::{ConsumptionRow, Side};

const NOW: i64 = 1_795_558_800_000;

fn now() -> UnixMillis {
    UnixMillis::new(NOW)
}

fn event(id: &str, token: i64, units: i64) -> Arc<UsageEvent> {
    Arc::new(UsageEvent {
        event_id: EventId::parse(id).unwrap(),
        content: Content {
            remote_key_id: RemoteKeyId::new(token).unwrap(),
            model: Arc::from("m"),
            tokens: Tokens { prompt: 1, completion: 1, total: 2 },
            price: Price::Quota(QuotaUnits::new(units).unwrap()),
            called_at: now(),
        },
        request_id: None,
        log_id: None,
        payload: Arc::from("{}"),
    })
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// Token n belongs to the user `un` with the given balance; 500 units are one credit.
fn snapshot(balances: &[(i64, i64)]) -> Snapshot {
    let one = |token: i64| {
        let (user_id, key_id) = (user(&format!("u{token}")), KeyId::parse(&format!("k{token}")).unwrap());
        Owner::One(KeyHolder { user_id, key_id, key_created_at: now() })
    };
    let account = |balance: i64| Account { balance: Some(Credits::new(balance)), ..Account::default() };
    Snapshot {
        known: KnownEvents::new(),
        owners: balances.iter().map(|(token, _)| (RemoteKeyId::new(*token).unwrap(), one(*token))).collect(),
        tokens: HashMap::new(),
        accounts: balances.iter().map(|(token, balance)| (user(&format!("u{token}")), account(*balance))).collect(),
        prices: PriceBook::new(
            vec![Dated { from_second: 0, value: Rate::parse("1000").unwrap() }],
            vec![Dated { from_second: 0, value: QuotaPerUnit::new(500_000).unwrap() }],
        )
        .unwrap(),
        busy_users: HashSet::new(),
        memory_from_second: None,
        foreign: ForeignRecords::default(),
        log: None,
    }
}

const CARRY: LedgerPolicy = LedgerPolicy {
    rounding: Rounding::Carry,
    overdraft: Overdraft::Allow,
    key_grace: Duration::from_secs(3600),
    retry: RetryPolicy { max_attempts: 3, base_delay: Duration::from_secs(2), max_delay: Duration::from_secs(60) },
    reads_log: false,
    windows: Windows { match_window: Duration::from_secs(60), dispute_window: Duration::from_secs(900) },
};

fn settle(events: &[Arc<UsageEvent>], snapshot: Snapshot) -> Plan {
    settle_for(Purpose::Delivery, events, snapshot)
}

fn settle_for(purpose: Purpose, events: &[Arc<UsageEvent>], snapshot: Snapshot) -> Plan {
    plan(&Batch::of_events(events.to_vec()), snapshot, CARRY, purpose, now(), &RecordIds::new())
}

#[test]
fn a_call_moves_its_credits_and_keeps_the_rest() {
    let plan = settle(&[event("e", 1, 1250)], snapshot(&[(1, 10)]));
    assert_eq!(plan.outcomes, [SettlementOutcome::Settled { credits: Credits::new(2) }]);
    let [transaction] = plan.transactions.as_slice() else { panic!("{plan:?}") };
    assert_eq!((transaction.amount.get(), transaction.balance_after.get()), (-2, 8));
    assert_eq!(transaction.charge_id.as_ref(), Some(&plan.charges[0].id));
    assert_eq!(plan.accounts[0].remainder.get(), 500_000_000_000_000, "half a credit");
    assert_eq!(plan.inbox[0].status, InboxStatus::Processed);
}

#[test]
fn a_call_below_one_credit_moves_nothing_yet_and_is_claimed() {
    let plan = settle(&[event("e", 1, 499)], snapshot(&[(1, 10)]));
    assert_eq!(plan.outcomes, [SettlementOutcome::Settled { credits: Credits::ZERO }]);
    assert!(plan.transactions.is_empty());
    assert_eq!(plan.charges.len(), 1);
}

#[test]
fn the_same_event_twice_in_a_batch_is_charged_once() {
    let mut other = (*event("e", 1, 500)).clone();
    other.content.tokens.prompt = 9;
    let plan = settle(&[event("e", 1, 500), event("e", 1, 500), Arc::new(other)], snapshot(&[(1, 10)]));
    assert_eq!(
        plan.outcomes,
        [
            SettlementOutcome::Settled { credits: Credits::new(1) },
            SettlementOutcome::AlreadySettled,
            SettlementOutcome::Conflict,
        ]
    );
    assert_eq!((plan.charges.len(), plan.inbox.len()), (1, 1));
}

#[test]
fn nobody_pays_for_an_unknown_an_ambiguous_or_nobodys_token() {
    let mut snapshot = snapshot(&[(1, 10), (0, 10)]);
    snapshot.owners.insert(RemoteKeyId::new(2).unwrap(), Owner::Several);
    let plan = settle(&[event("a", 2, 500), event("b", 3, 500), event("c", 0, 500), event("d", 1, 500)], snapshot);
    let failed = |failure| SettlementOutcome::Failed(failure);
    assert_eq!(
        plan.outcomes,
        [
            failed(Failure::AmbiguousKey(RemoteKeyId::new(2).unwrap())),
            failed(Failure::UnknownKey(RemoteKeyId::new(3).unwrap())),
            failed(Failure::UnknownKey(RemoteKeyId::new(0).unwrap())),
            SettlementOutcome::Settled { credits: Credits::new(1) },
        ]
    );
    assert_eq!(plan.charges.len(), 1);
    assert_eq!(plan.inbox[1].message.as_deref(), Some("API Key not found for remoteKeyId: 3"));
}

#[test]
fn what_the_columns_cannot_hold_leaves_its_batch() {
    let lowest = -i64::from(i32::MAX);
    let events = [event("dear", 1, i64::MAX), event("deep", 2, 500), event("fine", 1, 500)];
    let plan = settle(&events, snapshot(&[(1, 10), (2, lowest)]));
    assert!(matches!(plan.outcomes[0], SettlementOutcome::Failed(Failure::Unbookable(_))));
    assert!(matches!(plan.outcomes[1], SettlementOutcome::Failed(Failure::Unbookable(_))));
    assert_eq!(plan.outcomes[2], SettlementOutcome::Settled { credits: Credits::new(1) });
    assert_eq!((plan.transactions.len(), plan.accounts.len()), (1, 1), "nothing of the others is left behind");
}

#[test]
fn an_empty_account_is_overdrawn_or_refused_as_configured() {
    let refuse = LedgerPolicy { overdraft: Overdraft::Refuse, ..CARRY };
    let events = [event("a", 1, 1000), event("b", 1, 1000)];
    let allowed = settle(&events, snapshot(&[(1, 0)]));
    assert_eq!(allowed.accounts[0].balance_delta, Credits::new(-4));
    let refused = plan(
        &Batch::of_events(events.to_vec()),
        snapshot(&[(1, 1)]),
        refuse,
        Purpose::Delivery,
        now(),
        &RecordIds::new(),
    );
    assert_eq!(
        refused.outcomes,
        [
            SettlementOutcome::Settled { credits: Credits::new(2) },
            SettlementOutcome::Unpaid { credits: Credits::new(2) },
        ]
    );
    assert_eq!((refused.accounts[0].balance_delta.get(), refused.accounts[0].unpaid.get()), (-2, 2));
    assert_eq!(refused.charges.len(), 2, "the refused call is claimed too");
}

/// A snapshot in which `e` waits in the given state, after some errors.
fn waiting(status: InboxStatus, attempts: u32) -> Snapshot {
    let content = Some(event("e", 1, 500).content.clone());
    let (inbox_id, message) = (RecordId::parse("row").unwrap(), Some("why".to_owned()));
    let known = KnownEvent::Open(OpenEvent { inbox_id, status, message, attempts, is_ambiguous: false, content });
    let mut snapshot = snapshot(&[(1, 10)]);
    snapshot.known = HashMap::from([(EventId::parse("e").unwrap(), known)]);
    snapshot
}

#[test]
fn a_stored_event_is_tried_by_whoever_may_try_it() {
    let replay = Purpose::Replay { beyond_grace: false, is_dry_run: false };
    for (purpose, status, is_tried) in [
        (Purpose::Delivery, InboxStatus::Pending, true),
        (Purpose::Delivery, InboxStatus::Failed, false),
        (Purpose::Delivery, InboxStatus::Dead, false),
        (Purpose::Retry, InboxStatus::Pending, true),
        (Purpose::Retry, InboxStatus::Failed, true),
        (Purpose::Retry, InboxStatus::Dead, false),
        (replay, InboxStatus::Dead, true),
    ] {
        let plan = settle_for(purpose, &[event("e", 1, 500)], waiting(status, 1));
        if is_tried {
            assert_eq!(plan.outcomes, [SettlementOutcome::Settled { credits: Credits::new(1) }], "{purpose:?}");
            assert!(plan.inbox[0].exists && plan.inbox[0].id.as_str() == "row", "settled in place");
        } else {
            assert_eq!(plan.outcomes, [SettlementOutcome::Failed(Failure::Stored("why".to_owned()))]);
            assert!(plan.charges.is_empty() && plan.inbox.is_empty(), "{purpose:?} leaves {status:?} alone");
        }
    }
}

#[test]
fn only_errors_use_up_attempts() {
    let mut dear = (*event("e", 1, 500)).clone();
    dear.content.price = Price::Quota(QuotaUnits::new(i64::MAX).unwrap());
    let tried = |attempts: u32, key_is_there: bool| {
        let mut snapshot = waiting(InboxStatus::Failed, attempts);
        let known = snapshot.known.values_mut().next().unwrap();
        let KnownEvent::Open(open) = known else { panic!() };
        open.content = Some(dear.content.clone());
        if !key_is_there {
            snapshot.owners.clear();
        }
        let plan = settle_for(Purpose::Retry, &[Arc::new(dear.clone())], snapshot);
        let waiting = plan.inbox[0].waiting.unwrap();
        (plan.inbox[0].status, waiting.attempts, waiting.due_at.is_some())
    };
    assert_eq!(tried(0, true), (InboxStatus::Failed, 1, true));
    assert_eq!(tried(2, true), (InboxStatus::Dead, 3, false), "the last try");
    assert_eq!(tried(2, false), (InboxStatus::Failed, 2, false), "waiting for a key is no error");
}

#[test]
fn a_look_keeps_what_it_saw_of_the_tokens() {
    let plan = settle(&[event("a", 1, 500), event("b", 7, 500), event("c", 0, 500)], snapshot(&[(1, 10)]));
    let token = |number| RemoteKeyId::new(number).unwrap();
    assert_eq!(plan.unknown_tokens, BTreeSet::from([token(7)]), "0 is nobody's, not unknown");
}

#[test]
fn stamps_increase_and_repeat_only_when_a_second_ahead() {
    let newest = |ahead: i64| NewestTransaction { created_at: UnixMillis::new(NOW + ahead), id: None };
    assert_eq!(next_stamp(now(), None), now());
    assert_eq!(next_stamp(now(), Some(&newest(-5))), now());
    assert_eq!(next_stamp(now(), Some(&newest(0))), UnixMillis::new(NOW + 1));
    assert_eq!(next_stamp(now(), Some(&newest(999))), UnixMillis::new(NOW + 1000));
    assert_eq!(next_stamp(now(), Some(&newest(1000))), UnixMillis::new(NOW + 1000), "repeats");
    assert_eq!(next_stamp(now(), Some(&newest(3_600_000))), UnixMillis::new(NOW + 3_600_000), "a clock set back");
}

#[test]
fn one_hot_user_tells_one_story() {
    let events: Vec<_> = (0..3000).map(|number| event(&format!("e{number}"), 1, 500)).collect();
    let plan = settle(&events, snapshot(&[(1, 5000)]));
    for pair in plan.transactions.windows(2) {
        let key = |transaction: &Transaction| (transaction.created_at, transaction.id.clone());
        assert!(key(&pair[0]) < key(&pair[1]));
        assert_eq!(pair[1].balance_after.get(), pair[0].balance_after.get() - 1);
    }
    assert_eq!(plan.transactions.last().unwrap().balance_after, Credits::new(2000));
}

proptest! {
    /// However calls are ordered and cut into batches, the end balances are the same.
    #[test]
    fn any_order_gives_the_same_end(
        calls in prop::collection::vec((1i64..4, 0i64..3000), 1..60),
        order in any::<u64>(),
        cut in 1usize..60,
    ) {
        let run = |calls: &[(usize, (i64, i64))], batch: usize| {
            let mut accounts = snapshot(&[(1, 100), (2, 100), (3, 100)]).accounts;
            for chunk in calls.chunks(batch) {
                let events: Vec<_> =
                    chunk.iter().map(|(number, (token, units))| event(&format!("e{number}"), *token, *units)).collect();
                let snapshot = Snapshot { accounts: accounts.clone(), ..snapshot(&[(1, 0), (2, 0), (3, 0)]) };
                for change in settle(&events, snapshot).accounts {
                    let account = accounts.get_mut(&change.user_id).unwrap();
                    let balance = account.balance.unwrap().get() + change.balance_delta.get();
                    account.balance = Some(Credits::new(balance));
                    account.remainder = change.remainder;
                }
            }
            let mut ends: Vec<_> =
                accounts.into_iter().map(|(id, account)| (id, account.balance, account.remainder)).collect();
            ends.sort();
            ends
        };
        let in_order: Vec<_> = calls.iter().copied().enumerate().collect();
        let mut shuffled = in_order.clone();
        shuffled.sort_by_key(|(number, _)| (*number as u64).wrapping_mul(order | 1) >> 7);
        prop_assert_eq!(run(&in_order, 60), run(&shuffled, cut));
    }
}

#[test]
fn a_user_whose_row_is_held_holds_up_nobody() {
    let mut books = snapshot(&[(1, 10), (2, 10)]);
    books.busy_users.insert(user("u1"));
    let plan = settle(&[event("a", 1, 500), event("b", 2, 500)], books);
    assert_eq!(plan.outcomes, [SettlementOutcome::Deferred, SettlementOutcome::Settled { credits: Credits::new(1) }]);
    let waiting = plan.inbox[0].waiting.unwrap();
    assert_eq!((plan.inbox[0].status, waiting.attempts, waiting.due_at), (InboxStatus::Pending, 0, None));
    assert_eq!(plan.accounts.len(), 1, "nothing of the other's books moves");
}

/// What another program wrote of calls as `event` makes them, for token 1.
fn foreign(ids: &[&str], credits: i64) -> ForeignRecords {
    let record = |id: &str| ForeignRecord {
        id: RecordId::parse(id).unwrap(),
        key_id: KeyId::parse("its-key").unwrap(),
        user_id: user("u1"),
        model: "m".to_owned(),
        prompt_tokens: 1,
        completion_tokens: 1,
        recorded_at: UnixMillis::new(NOW - 1500),
        credits: Credits::new(credits),
    };
    ForeignRecords::new(ids.iter().map(|id| (RemoteKeyId::new(1).unwrap(), record(id))))
}

#[test]
fn a_call_that_another_program_billed_is_claimed_and_moves_nothing() {
    for credits in [0, 3, 900] {
        let snapshot = Snapshot { foreign: foreign(&["theirs"], credits), ..snapshot(&[(1, 10)]) };
        let plan = settle(&[event("e", 1, 1250), event("e", 1, 1250)], snapshot);
        assert_eq!(plan.outcomes, [SettlementOutcome::Tied, SettlementOutcome::AlreadySettled]);
        assert!(plan.charges.is_empty() && plan.transactions.is_empty() && plan.accounts.is_empty(), "{plan:?}");
        let [Adopted { charge, recorded_at }] = plan.adopted.as_slice() else { panic!("{plan:?}") };
        assert_eq!((charge.id.as_str(), charge.key_id.as_str(), charge.credits.get()), ("theirs", "its-key", credits));
        assert_eq!(charge.price.credits.split().unwrap(), (Credits::new(credits), Remainder::ZERO));
        assert_eq!((charge.price.units, charge.unpaid, charge.remainder_after), (None, Credits::ZERO, Remainder::ZERO));
        assert_eq!(*recorded_at, UnixMillis::new(NOW - 1500));
        assert_eq!(plan.inbox[0].status, InboxStatus::Processed);
    }
}

#[test]
fn of_eleven_equal_calls_the_one_that_nobody_billed_is_charged() {
    let ids: Vec<String> = (0..10).map(|number| format!("theirs-{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let snapshot = Snapshot { foreign: foreign(&ids, 2), ..snapshot(&[(1, 10)]) };
    let events: Vec<_> = (0..11).map(|number| event(&format!("e{number}"), 1, 500)).collect();
    let plan = settle(&events, snapshot);
    assert_eq!((plan.adopted.len(), plan.charges.len()), (10, 1));
    assert_eq!(plan.transactions.iter().map(|told| told.amount.get()).sum::<i64>(), -1);
}

#[test]
fn what_cannot_be_charged_takes_no_record() {
    let mut snapshot = Snapshot { foreign: foreign(&["theirs"], 2), ..snapshot(&[(1, 10)]) };
    snapshot.busy_users.insert(user("u1"));
    let plan = settle(&[event("e", 1, 500)], snapshot);
    assert_eq!((plan.outcomes.as_slice(), plan.adopted.len()), ([SettlementOutcome::Deferred].as_slice(), 0));
}

#[test]
fn a_waiting_side_that_another_program_has_billed_meanwhile_is_adopted() {
    let told = event("e", 1, 500);
    let identity =
        RowIdentity { source: Arc::from("s"), second: NOW / 1000, digest: RowDigest::of_text("d"), number: 0 };
    let row = ConsumptionRow {
        identity: identity.clone(),
        content: told.content.clone(),
        request_id: None,
        log_id: None,
        task_id: None,
    };
    let waiting = Side::Row(Arc::new(row));
    let policy = MatchPolicy {
        match_window: CARRY.windows.match_window,
        dispute_window: CARRY.windows.dispute_window,
        request_ids_prove: false,
    };
    for billed in [true, false] {
        let mut books = snapshot(&[(1, 10)]);
        let mut neighbours = Neighbours::default();
        let facts = facts(&waiting, &books.prices).unwrap();
        neighbours.add(waiting.identity(), facts, Standing::Open(waiting.clone()), false);
        books.log = Some(LogSnapshot {
            policy,
            neighbours,
            charges: HashMap::new(),
            known_rows: HashMap::new(),
            open_events: HashMap::new(),
            open_rows: HashMap::new(),
            taken_over_at: None,
        });
        books.foreign = if billed { foreign(&["theirs"], 1) } else { ForeignRecords::default() };
        let batch = Batch { revisited: BTreeSet::from([told.content.remote_key_id]), ..Batch::default() };
        let plan = plan(&batch, books, CARRY, Purpose::Retry, now(), &RecordIds::new());
        assert_eq!((plan.adopted.len(), plan.charges.len()), if billed { (1, 0) } else { (0, 1) });
        assert_eq!(plan.transactions.len(), plan.charges.len());
        let write = plan.rows.last().unwrap();
        assert!(write.identity == identity && write.claim.is_some() && write.open.is_none(), "it waits no longer");
    }
}
