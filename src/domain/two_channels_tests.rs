//! One call, two channels: a small set of books in memory, into which events and rows are settled in any order.
//!
//! The books keep claims and open sides as a store does, whole and in sight of every batch; a store's looks only choose
//! which of them a batch can see.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::domain::event::Tokens;
use crate::domain::ids::EventId;
use crate::domain::known::{KnownEvent, OpenEvent};
use crate::domain::log_row::{LogRow, RowIdentity, RowKind, number_rows};
use crate::domain::log_snapshot::{NearCharge, OpenEventSide, OpenRowSide, RowState};
use crate::domain::matching::{MatchPolicy, Neighbours, Standing, facts};
use crate::domain::money::{QuotaPerUnit, QuotaUnits, Rate};
use crate::domain::outcome::InboxStatus;
use crate::domain::ownership::KeyHolder;
use crate::domain::pricing::{Dated, Price};
use crate::domain::recording::WaitReason;
use crate::domain::side::{ConsumptionRow, Side};

const START: i64 = 1_800_000_000;

const POLICY: LedgerPolicy = LedgerPolicy {
    rounding: Rounding::Carry,
    overdraft: Overdraft::Allow,
    key_grace: Duration::from_secs(3600),
    retry: RetryPolicy { max_attempts: 3, base_delay: Duration::from_secs(2), max_delay: Duration::from_secs(60) },
    reads_log: true,
    windows: Windows { match_window: Duration::from_secs(60), dispute_window: Duration::from_secs(900) },
};

/// A call as one channel tells it.
#[derive(Debug, Clone)]
struct Told {
    second: i64,
    units: i64,
    model: &'static str,
    request: Option<String>,
}

fn at(second: i64) -> Told {
    Told { second, units: 500, model: "gpt-4", request: None }
}

impl Told {
    fn units(self, units: i64) -> Self {
        Told { units, ..self }
    }

    fn request(self, request: &str) -> Self {
        Told { request: Some(request.to_owned()), ..self }
    }

    fn event(&self, name: &str) -> Arc<UsageEvent> {
        Arc::new(UsageEvent {
            event_id: EventId::parse(name).unwrap(),
            content: Content {
                remote_key_id: RemoteKeyId::new(1).unwrap(),
                model: Arc::from(self.model),
                tokens: Tokens { prompt: 10, completion: 5, total: 15 },
                price: Price::Quota(QuotaUnits::new(self.units).unwrap()),
                called_at: UnixMillis::new((START + self.second) * 1000),
            },
            request_id: self.request.as_deref().and_then(|id| crate::domain::ids::RequestId::parse(id).ok()),
            log_id: None,
            payload: Arc::from("{}"),
        })
    }

    fn row(&self) -> LogRow {
        LogRow {
            second: START + self.second,
            kind: RowKind::Consumption,
            token: RemoteKeyId::new(1).unwrap(),
            token_name: "key".into(),
            model: self.model.into(),
            prompt_tokens: 10,
            completion_tokens: 5,
            quota_units: self.units,
            request_id: self.request.as_deref().and_then(|id| crate::domain::ids::RequestId::parse(id).ok()),
            log_id: None,
            task: None,
        }
    }
}

#[derive(Default)]
struct Stored {
    charge: Option<Charge>,
    sides: (Option<ClaimSide>, Option<ClaimSide>, Option<TieRule>),
}

/// The books of one user with one token.
#[derive(Default)]
struct Ledger {
    claims: BTreeMap<ChargeKey, Stored>,
    balance: i64,
    known: HashMap<EventId, (Arc<UsageEvent>, KnownEvent, Option<WaitReason>)>,
    rows: HashMap<RowIdentity, (RowState, Option<Arc<LogRow>>)>,
    request_ids_prove: bool,
    ids: RecordIds,
}

impl Ledger {
    fn prices() -> PriceBook {
        let rate = vec![Dated { from_second: 0, value: Rate::parse("1000").unwrap() }];
        let quota = vec![Dated { from_second: 0, value: QuotaPerUnit::new(500_000).unwrap() }];
        PriceBook::new(rate, quota).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        let policy = MatchPolicy {
            match_window: POLICY.windows.match_window,
            dispute_window: POLICY.windows.dispute_window,
            request_ids_prove: self.request_ids_prove,
        };
        let mut log = LogSnapshot {
            policy,
            neighbours: Neighbours::default(),
            charges: HashMap::new(),
            known_rows: self.rows.iter().map(|(identity, (state, _))| (identity.clone(), *state)).collect(),
            open_events: HashMap::new(),
            open_rows: HashMap::new(),
            taken_over_at: None,
        };
        for (key, stored) in &self.claims {
            let charge = stored.charge.as_ref().unwrap();
            let mut put = |side: &Option<ClaimSide>| {
                let side = side.clone()?;
                let mut facts = facts(&Side::Event(at(0).event("x")), &Ledger::prices()).unwrap();
                facts.model = charge.content.model.clone();
                facts.units = charge.price.units;
                facts.credits = charge.price.credits;
                facts.at = side.at;
                Some(log.neighbours.add(side.identity, facts, Standing::Charged(key.clone()), false))
            };
            if let (Some(event), Some(row)) = (put(&stored.sides.0), put(&stored.sides.1)) {
                log.neighbours.join(event, row, stored.sides.2.unwrap());
            }
            let near = NearCharge {
                user_id: charge.user_id.clone(),
                key_id: charge.key_id.clone(),
                price: charge.price,
                credits: charge.credits,
                unpaid: charge.unpaid,
                rounding: charge.rounding,
            };
            log.charges.insert(key.clone(), near);
        }
        for (event_id, (event, known, reason)) in &self.known {
            let (KnownEvent::Open(open), Some(WaitReason::Alike | WaitReason::Disputed)) = (known, reason) else {
                continue;
            };
            let side = Side::Event(event.clone());
            let facts = facts(&side, &Ledger::prices()).unwrap();
            let place = log.neighbours.add(side.identity(), facts, Standing::Open(side), false);
            let is_disputed = *reason == Some(WaitReason::Disputed);
            log.open_events.insert(event_id.clone(), OpenEventSide { place, open: open.clone(), is_disputed });
        }
        for (identity, (state, row)) in &self.rows {
            let (RowState::Waiting | RowState::Disputed, Some(row)) = (state, row) else { continue };
            let side = Side::Row(Arc::new(ConsumptionRow::parse(identity.clone(), row).unwrap()));
            let facts = facts(&side, &Ledger::prices()).unwrap();
            let place = log.neighbours.add(side.identity(), facts, Standing::Open(side), false);
            let is_disputed = *state == RowState::Disputed;
            log.open_rows.insert(identity.clone(), OpenRowSide { place, row: row.clone(), is_disputed });
        }
        let user_id = UserId::parse("u").unwrap();
        let holder = KeyHolder {
            user_id: user_id.clone(),
            key_id: KeyId::parse("k").unwrap(),
            key_created_at: UnixMillis::ZERO,
        };
        let account = Account { balance: Some(Credits::new(self.balance)), ..Account::default() };
        Snapshot {
            known: self.known.iter().map(|(id, (_, known, _))| (id.clone(), known.clone())).collect(),
            owners: HashMap::from([(RemoteKeyId::new(1).unwrap(), Owner::One(holder))]),
            tokens: HashMap::new(),
            accounts: HashMap::from([(user_id, account)]),
            busy_users: HashSet::new(),
            prices: Ledger::prices(),
            memory_from_second: None,
            foreign: ForeignRecords::default(),
            log: Some(log),
        }
    }

    fn settle(&mut self, batch: Batch) -> Plan {
        let now = UnixMillis::new((START + 3600) * 1000);
        let plan = plan(&batch, self.snapshot(), POLICY, Purpose::Retry, now, &self.ids);
        for charge in &plan.charges {
            let sides = (charge.event.clone(), charge.row.clone(), charge.tie);
            assert_eq!(sides.2.is_some(), sides.0.is_some() && sides.1.is_some());
            self.claims.insert(charge.key(), Stored { charge: Some(charge.clone()), sides });
        }
        for tie in &plan.ties {
            let stored = self.claims.get_mut(&tie.claim).unwrap();
            stored.sides = (Some(tie.event.clone()), Some(tie.row.clone()), Some(tie.rule));
        }
        for correction in &plan.corrections {
            let charge = self.claims.get_mut(&correction.claim).unwrap().charge.as_mut().unwrap();
            (charge.price, charge.credits) = (correction.price, correction.credits);
        }
        self.balance += plan.transactions.iter().map(|transaction| transaction.amount.get()).sum::<i64>();
        for row in &plan.inbox {
            let event = batch.events.iter().find(|event| event.event_id == row.event_id).cloned();
            let event = event.unwrap_or_else(|| self.known[&row.event_id].0.clone());
            let content = Some(event.content.clone());
            let known = match &row.waiting {
                None => KnownEvent::Charged { content },
                Some(waiting) => KnownEvent::Open(OpenEvent {
                    inbox_id: row.id.clone(),
                    status: row.status,
                    message: row.message.clone(),
                    attempts: waiting.attempts,
                    is_ambiguous: false,
                    content,
                }),
            };
            let reason = row.waiting.map(|waiting| waiting.reason);
            self.known.insert(row.event_id.clone(), (event, known, reason));
        }
        for write in &plan.rows {
            self.rows.insert(write.identity.clone(), (write.state, write.open.clone()));
        }
        self.request_ids_prove |= plan.tied_by_request_id;
        plan
    }

    fn event(&mut self, name: &str, told: &Told) -> SettlementOutcome {
        self.settle(Batch::of_events(vec![told.event(name)])).outcomes.remove(0)
    }

    /// Rows of seconds that are read together.
    fn rows(&mut self, told: &[Told]) -> Vec<crate::domain::log_snapshot::RowOutcome> {
        let rows = told.iter().map(Told::row).collect();
        let numbered = number_rows(&"default".into(), rows);
        let rows = numbered.into_iter().map(|(identity, row)| NumberedRow { identity, row }).collect();
        self.settle(Batch { rows, ..Batch::default() }).row_outcomes
    }

    fn cover(&mut self, second: i64) -> Plan {
        let revisited = BTreeSet::from([RemoteKeyId::new(1).unwrap()]);
        self.settle(Batch { revisited, covered_until_second: Some(START + second), ..Batch::default() })
    }

    fn charges(&self) -> usize {
        self.claims.len()
    }

    fn units(&self) -> i64 {
        let units = |stored: &Stored| stored.charge.as_ref().unwrap().price.units.unwrap().get();
        self.claims.values().map(units).sum()
    }

    fn open(&self) -> usize {
        let events = self.known.values().filter(|(_, known, _)| matches!(known, KnownEvent::Open(_))).count();
        events + self.rows.values().filter(|(state, _)| state.is_open()).count()
    }
}

#[test]
fn whichever_channel_is_first_a_call_is_charged_once() {
    let mut ledger = Ledger::default();
    assert!(matches!(ledger.event("e", &at(0)), SettlementOutcome::Settled { .. }));
    assert_eq!(ledger.rows(&[at(2)]), [crate::domain::log_snapshot::RowOutcome::Tied]);
    let mut ledger = Ledger::default();
    ledger.rows(&[at(2)]);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::Tied);
    assert_eq!((ledger.charges(), ledger.balance), (1, -1));
    ledger.rows(&[at(2)]);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::AlreadySettled);
    assert_eq!((ledger.charges(), ledger.open()), (1, 0), "repeats change nothing");
}

#[test]
fn a_moved_tie_takes_its_claim_along() {
    for order in [[0, 1, 2, 3], [3, 0, 2, 1], [2, 1, 3, 0], [1, 2, 0, 3], [0, 3, 2, 1], [2, 3, 1, 0]] {
        let mut ledger = Ledger::default();
        for step in order {
            match step {
                0 => drop(ledger.event("e0", &at(0))),
                1 => drop(ledger.event("e50", &at(50))),
                2 => drop(ledger.rows(&[at(50)])),
                _ => drop(ledger.rows(&[at(100)])),
            }
        }
        ledger.cover(2000);
        assert_eq!((ledger.charges(), ledger.open()), (2, 0), "{order:?}");
    }
}

#[test]
fn calls_with_different_request_ids_are_two_where_the_source_puts_them_there() {
    let mut ledger = Ledger::default();
    ledger.event("known", &at(0).request("r-0"));
    ledger.rows(&[at(0).request("r-0")]);
    ledger.event("only-event", &at(10).request("r-1"));
    ledger.rows(&[at(10).request("r-2")]);
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open()), (3, 0));
}

#[test]
fn one_call_told_differently_is_disputed_and_not_charged_twice() {
    let renamed = Told { model: "other-name", ..at(1) };
    for (event, row) in [(at(0).units(500), at(1).units(499)), (at(0), renamed), (at(0), at(180))] {
        let mut ledger = Ledger::default();
        ledger.event("e", &event);
        assert_eq!(ledger.rows(std::slice::from_ref(&row)), [crate::domain::log_snapshot::RowOutcome::Waiting]);
        assert_eq!(ledger.cover(100).disputed, u64::from(row.second < 100), "only what is covered");
        ledger.cover(2000);
        assert_eq!((ledger.charges(), ledger.open()), (1, 1));
        let mut ledger = Ledger::default();
        ledger.rows(&[row]);
        assert_eq!(ledger.event("e", &event), SettlementOutcome::Waits);
        assert_eq!(ledger.cover(2000).disputed, 1);
        assert_eq!((ledger.charges(), ledger.open()), (1, 1));
        assert_eq!(ledger.cover(2000).disputed, 0, "once");
    }
}

#[test]
fn a_dispute_ends_when_either_side_finds_its_true_partner() {
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0));
    ledger.rows(&[at(300)]);
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open()), (1, 1));
    ledger.rows(&[at(20)]);
    assert_eq!((ledger.charges(), ledger.open(), ledger.balance), (2, 0, -2), "the other row is a call of its own");
}

#[test]
fn more_waiting_sides_than_charges_beside_them_are_calls_of_their_own() {
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0));
    ledger.rows(&[at(300), at(301), at(302)]);
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open()), (3, 1));
}

#[test]
fn with_a_shared_request_id_the_rows_price_decides() {
    for row_first in [false, true] {
        let mut ledger = Ledger::default();
        let (event, row) = (at(0).units(1000).request("r"), at(400).units(4000).request("r"));
        if row_first {
            ledger.rows(std::slice::from_ref(&row));
        }
        ledger.event("e", &event);
        ledger.rows(&[row]);
        assert_eq!((ledger.charges(), ledger.units(), ledger.balance), (1, 4000, -8));
    }
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0).units(4000).request("r"));
    ledger.rows(&[at(0).units(1000).request("r")]);
    assert_eq!((ledger.charges(), ledger.units(), ledger.balance), (1, 1000, -2));
}

/// Equal calls of which each event and each row may be lost; seconds are far enough apart to be told apart, or equal.
fn calls() -> impl Strategy<Value = Vec<(i64, bool, bool, bool)>> {
    prop::collection::vec((0..4i64, any::<bool>(), any::<bool>(), any::<bool>()), 1..10)
}

proptest! {
    #[test]
    fn charges_are_events_and_rows_less_the_pairs(calls in calls(), seed in any::<u64>()) {
        // Where calls are equal in their second or over an hour apart, the largest matching is plain counting.
        let mut steps: Vec<(bool, i64)> = Vec::new();
        let mut expected = 0;
        for second in 0..4 {
            let of_second = calls.iter().filter(|call| call.0 == second);
            let events = of_second.clone().filter(|call| call.1).count();
            let rows = of_second.filter(|call| call.2).count();
            expected += events.max(rows);
            steps.extend(std::iter::repeat_n((true, second * 4000), events));
            if rows > 0 {
                steps.push((false, second * 4000));
            }
        }
        let mut random = seed;
        let mut ledger = Ledger::default();
        let mut events = 0;
        while !steps.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (is_event, second) = steps.swap_remove((random >> 33) as usize % steps.len());
            if is_event {
                events += 1;
                ledger.event(&format!("e{events}"), &at(second));
            } else {
                let rows = calls.iter().filter(|call| call.0 * 4000 == second && call.2).map(|_| at(second));
                let rows: Vec<Told> = rows.collect();
                ledger.rows(&rows);
                ledger.rows(&rows);
            }
        }
        prop_assert_eq!(ledger.charges(), expected);
        prop_assert_eq!(ledger.open(), 0);
        prop_assert_eq!(ledger.balance, -(expected as i64));
    }
}

#[test]
fn an_open_event_is_pending_and_answers_so_again() {
    let mut ledger = Ledger::default();
    ledger.rows(&[at(300)]);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::Waits);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::Waits);
    let (_, known, _) = &ledger.known[&EventId::parse("e").unwrap()];
    assert!(matches!(known, KnownEvent::Open(OpenEvent { status: InboxStatus::Pending, .. })));
}
