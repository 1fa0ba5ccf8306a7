//! A small set of books in memory, for tests of the two channels: events and rows are settled into it in any order.
//!
//! It keeps claims and open sides as a store does, whole and in sight of every batch; a store's looks only choose
//! which of them a batch can see.

use std::collections::HashMap;

use super::*;
use crate::domain::event::Tokens;
use crate::domain::ids::EventId;
use crate::domain::known::{KnownEvent, OpenEvent};
use crate::domain::log_row::{LogRow, RowIdentity, RowKind, number_rows};
use crate::domain::log_snapshot::{NearCharge, OpenEventSide, OpenRowSide, RowState};
use crate::domain::matching::{MatchPolicy, Neighbours, Standing, facts};
use crate::domain::money::{QuotaPerUnit, QuotaUnits, Rate};
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
pub(super) struct Told {
    pub(super) second: i64,
    pub(super) units: i64,
    pub(super) model: &'static str,
    pub(super) request: Option<String>,
}

pub(super) fn at(second: i64) -> Told {
    Told { second, units: 500, model: "gpt-4", request: None }
}

impl Told {
    pub(super) fn units(self, units: i64) -> Self {
        Told { units, ..self }
    }

    pub(super) fn request(self, request: &str) -> Self {
        Told { request: Some(request.to_owned()), ..self }
    }

    pub(super) fn event(&self, name: &str) -> Arc<UsageEvent> {
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

    pub(super) fn row(&self) -> LogRow {
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
pub(super) struct Stored {
    charge: Option<Charge>,
    sides: (Option<ClaimSide>, Option<ClaimSide>, Option<TieRule>),
}

/// The books of one user with one token.
#[derive(Default)]
pub(super) struct Ledger {
    claims: BTreeMap<ChargeKey, Stored>,
    pub(super) balance: i64,
    pub(super) known: HashMap<EventId, (Arc<UsageEvent>, KnownEvent, Option<WaitReason>)>,
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
        self.put_claims(&mut log);
        self.put_open_sides(&mut log);
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

    fn put_claims(&self, log: &mut LogSnapshot) {
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
            log.charges.insert(key.clone(), NearCharge::of(charge));
        }
    }

    fn put_open_sides(&self, log: &mut LogSnapshot) {
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
    }

    pub(super) fn settle(&mut self, batch: Batch) -> Plan {
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
                None => match row.message.clone() {
                    Some(message) => KnownEvent::Closed { content, message },
                    None => KnownEvent::Charged { content },
                },
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

    pub(super) fn event(&mut self, name: &str, told: &Told) -> SettlementOutcome {
        self.settle(Batch::of_events(vec![told.event(name)])).outcomes.remove(0)
    }

    /// Rows of seconds that are read together.
    pub(super) fn rows(&mut self, told: &[Told]) -> Vec<crate::domain::log_snapshot::RowOutcome> {
        let rows = told.iter().map(Told::row).collect();
        let numbered = number_rows(&"default".into(), rows);
        let rows = numbered.into_iter().map(|(identity, row)| NumberedRow { identity, row }).collect();
        self.settle(Batch { rows, ..Batch::default() }).row_outcomes
    }

    pub(super) fn cover(&mut self, second: i64) -> Plan {
        let revisited = BTreeSet::from([RemoteKeyId::new(1).unwrap()]);
        self.settle(Batch { revisited, covered_until_second: Some(START + second), ..Batch::default() })
    }

    /// What a person decided, in one transaction.
    pub(super) fn decide(&mut self, decisions: Vec<Decision>) -> Vec<DecisionOutcome> {
        self.settle(Batch { decisions, ..Batch::default() }).decisions
    }

    /// Every row that a person may decide about.
    pub(super) fn open_rows(&self) -> Vec<Subject> {
        let open = self.rows.iter().filter_map(|(identity, (state, row))| match (state, row) {
            (RowState::Waiting | RowState::Disputed, Some(row)) => Some((identity.clone(), row)),
            _ => None,
        });
        open.map(|(identity, row)| Subject::Row(Arc::new(NumberedRow { identity, row: (**row).clone() }))).collect()
    }

    pub(super) fn charge_ids(&self) -> Vec<RecordId> {
        self.claims.keys().map(|key| key.id.clone()).collect()
    }

    pub(super) fn charges(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn units(&self) -> i64 {
        let units = |stored: &Stored| stored.charge.as_ref().unwrap().price.units.unwrap().get();
        self.claims.values().map(units).sum()
    }

    /// Rows that wait, and are not disputed.
    pub(super) fn waiting_rows(&self) -> usize {
        self.rows.values().filter(|(state, _)| *state == RowState::Waiting).count()
    }

    pub(super) fn open(&self) -> usize {
        let events = self.known.values().filter(|(_, known, _)| matches!(known, KnownEvent::Open(_))).count();
        events + self.rows.values().filter(|(state, _)| state.is_open()).count()
    }
}
