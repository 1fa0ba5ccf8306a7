//! Decides what one batch of usage events books: pure, from a snapshot read under the ledger's locks.
//!
//! Every store runs this same function between its reads and its writes, so that money is decided in one place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::accounts::{Account, AccountChange, Movement, OpenAccounts, Transaction, TransactionKind};
use super::adoption::{ForeignRecord, ForeignRecords};
use super::event::UsageEvent;
use super::ids::{KeyId, RecordId, RecordIds, RemoteKeyId, UserId};
use super::known::{KnownEvent, KnownEvents, OpenEvent, Standing, standing};
use super::money::{AmountTooLarge, Credits, Remainder};
use super::outcome::{Failure, InboxStatus, SettlementOutcome};
use super::ownership::{Call, Grace, KeyHolder, Owner, PastOwner, TokenHistory, who_pays};
use super::pricing::{ExactPrice, Overdraft, Price, PriceBook, Rounding, credits_to_move};
use super::recording::{InboxRow, WaitReason, Waiting};
use super::retry::RetryPolicy;
use super::time::UnixMillis;

/// The operator's choices that decide what is booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerPolicy {
    pub rounding: Rounding,
    pub overdraft: Overdraft,
    /// How much older than its key a parked call may be.
    pub key_grace: Duration,
    pub retry: RetryPolicy,
}

/// Why a batch is settled: it decides which stored events are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The sender delivered them. What failed before is told, not tried.
    Delivery,
    /// Their time has come, or what they waited for has changed.
    Retry,
    /// A person asked for them, the dead ones too.
    Replay { beyond_grace: bool, is_dry_run: bool },
}

impl Purpose {
    /// Nothing of it is to be committed.
    pub fn is_dry_run(self) -> bool {
        matches!(self, Purpose::Replay { is_dry_run: true, .. })
    }

    fn tries(self, status: InboxStatus) -> bool {
        match status {
            InboxStatus::Pending => true,
            InboxStatus::Failed => self != Purpose::Delivery,
            InboxStatus::Dead => matches!(self, Purpose::Replay { .. }),
            InboxStatus::Processed => false,
        }
    }
}

/// What the books said of everything that the batch touches.
#[derive(Debug)]
pub struct Snapshot {
    pub known: KnownEvents,
    /// Tokens that have no entry have no key.
    pub owners: HashMap<RemoteKeyId, Owner>,
    /// Tokens that have no entry were never looked at before.
    pub tokens: HashMap<RemoteKeyId, TokenHistory>,
    pub accounts: HashMap<UserId, Account>,
    /// Users of whom another session holds a row: their events wait, and nobody waits for them.
    pub busy_users: HashSet<UserId>,
    pub prices: PriceBook,
    /// The second from which claims are remembered; none: all are.
    pub memory_from_second: Option<i64>,
    /// Usage records of other programs that may be of these calls.
    pub foreign: ForeignRecords,
}

/// What to write, and what to tell each caller. A store writes all of it in one transaction, or nothing.
#[derive(Debug, Default)]
pub struct Plan {
    /// One for each event, in their order.
    pub outcomes: Vec<SettlementOutcome>,
    pub inbox: Vec<InboxRow>,
    pub charges: Vec<Charge>,
    /// Calls that another program has billed.
    pub adopted: Vec<Adopted>,
    pub transactions: Vec<Transaction>,
    pub accounts: Vec<AccountChange>,
    /// Each key's newest call in this batch.
    pub key_uses: Vec<(KeyId, UnixMillis)>,
    /// Tokens that no key has, at this look.
    pub unknown_tokens: BTreeSet<RemoteKeyId>,
    /// Tokens that this look is the first to see with this owner, and from when on he counts as such.
    pub new_owners: BTreeMap<RemoteKeyId, (UnixMillis, KeyHolder)>,
}

/// A call that is charged by this batch: a claim and its usage record.
#[derive(Debug, Clone)]
pub struct Charge {
    /// `usage_records.id`, and the claim's.
    pub id: RecordId,
    pub event: Arc<UsageEvent>,
    pub user_id: UserId,
    pub key_id: KeyId,
    pub price: ExactPrice,
    pub rounding: Rounding,
    /// Whole credits deducted.
    pub credits: Credits,
    /// Whole credits that should have been deducted, and were not.
    pub unpaid: Credits,
    pub remainder_before: Remainder,
    pub remainder_after: Remainder,
}

/// A call that another program has billed: a claim of its usage record, and nothing else.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// As if we had charged what the other program did.
    pub charge: Charge,
    /// The record's own time.
    pub recorded_at: UnixMillis,
}

/// Plans a batch in its order, so that the deductions of a user keep theirs.
pub fn plan(
    events: &[Arc<UsageEvent>],
    snapshot: Snapshot,
    policy: LedgerPolicy,
    purpose: Purpose,
    now: UnixMillis,
    ids: &RecordIds,
) -> Plan {
    let mut planner = Planner {
        known: snapshot.known,
        owners: snapshot.owners,
        tokens: snapshot.tokens,
        open_accounts: OpenAccounts::new(snapshot.accounts),
        busy_users: snapshot.busy_users,
        prices: snapshot.prices,
        memory_from_second: snapshot.memory_from_second,
        foreign: snapshot.foreign,
        key_uses: BTreeMap::new(),
        plan: Plan::default(),
        policy,
        purpose,
        now,
        ids,
    };
    for event in events {
        let outcome = planner.settle(event);
        planner.plan.outcomes.push(outcome);
    }
    planner.finish()
}

struct Planner<'a> {
    known: KnownEvents,
    owners: HashMap<RemoteKeyId, Owner>,
    tokens: HashMap<RemoteKeyId, TokenHistory>,
    open_accounts: OpenAccounts,
    busy_users: HashSet<UserId>,
    prices: PriceBook,
    memory_from_second: Option<i64>,
    foreign: ForeignRecords,
    key_uses: BTreeMap<KeyId, UnixMillis>,
    plan: Plan,
    policy: LedgerPolicy,
    purpose: Purpose,
    now: UnixMillis,
    ids: &'a RecordIds,
}

impl Planner<'_> {
    fn settle(&mut self, event: &Arc<UsageEvent>) -> SettlementOutcome {
        let open = match standing(self.known.get(&event.event_id), event) {
            Standing::Conflicting => return SettlementOutcome::Conflict,
            Standing::Charged => return SettlementOutcome::AlreadySettled,
            Standing::Closed(message) => return SettlementOutcome::Failed(Failure::Stored(message)),
            Standing::Open(open) if !self.purpose.tries(open.status) => {
                return SettlementOutcome::Failed(Failure::Stored(open.message.unwrap_or_default()));
            }
            Standing::Open(open) => Some(open),
            Standing::New => None,
        };
        let was_ambiguous = open.as_ref().is_some_and(|open| open.is_ambiguous);
        match self.charge(event, was_ambiguous) {
            Ok(outcome) => {
                self.keep(event, open.as_ref(), None);
                outcome
            }
            Err((failure, reason)) => {
                self.keep(event, open.as_ref(), Some((failure.message(), reason)));
                match reason {
                    WaitReason::Busy => SettlementOutcome::Deferred,
                    _ => SettlementOutcome::Failed(failure),
                }
            }
        }
    }

    /// Books the event if it can be booked; changes nothing otherwise.
    fn charge(
        &mut self,
        event: &Arc<UsageEvent>,
        was_ambiguous: bool,
    ) -> Result<SettlementOutcome, (Failure, WaitReason)> {
        let KeyHolder { user_id, key_id, .. } = self.who_pays(event, was_ambiguous)?;
        if self.busy_users.contains(&user_id) {
            return Err((Failure::Busy, WaitReason::Busy));
        }
        let unbookable = |error: AmountTooLarge| (Failure::Unbookable(error.to_string()), WaitReason::Unbookable);
        if let Some(record) = self.foreign.take(&event.content) {
            return self.adopt(event, record).map_err(unbookable);
        }
        let price = self.prices.price(event.content.price, event.content.called_at).map_err(unbookable)?;
        let charge = self.book(event, user_id, key_id.clone(), price).map_err(unbookable)?;
        let used_at = self.key_uses.entry(key_id).or_insert(event.content.called_at);
        *used_at = event.content.called_at.max(*used_at);
        let outcome = match charge.unpaid {
            Credits::ZERO => SettlementOutcome::Settled { credits: charge.credits },
            credits => SettlementOutcome::Unpaid { credits },
        };
        self.plan.charges.push(charge);
        Ok(outcome)
    }

    /// Another program has billed this call: that is kept, and nothing moves.
    fn adopt(&mut self, event: &Arc<UsageEvent>, record: ForeignRecord) -> Result<SettlementOutcome, AmountTooLarge> {
        let ForeignRecord { id, key_id, user_id, recorded_at, credits, .. } = record;
        // Rate and quota are those of the call's second; what it cost is what the other program took.
        let price = self.prices.price(Price::CreditCost(credits.max(Credits::ZERO)), event.content.called_at)?;
        let remainder = self.open_accounts.get(&user_id).remainder;
        let charge = Charge {
            id,
            event: event.clone(),
            user_id,
            key_id,
            price,
            rounding: self.policy.rounding,
            credits,
            unpaid: Credits::ZERO,
            remainder_before: remainder,
            remainder_after: remainder,
        };
        self.plan.adopted.push(Adopted { charge, recorded_at });
        Ok(SettlementOutcome::Tied)
    }

    /// Looks whose call it is, and keeps what this look saw of the token.
    fn who_pays(&mut self, event: &UsageEvent, was_ambiguous: bool) -> Result<KeyHolder, (Failure, WaitReason)> {
        let (token, called_at) = (event.content.remote_key_id, event.content.called_at);
        let call = Call { token, called_at, now: self.now, was_ambiguous };
        let owner = self.owners.get(&call.token);
        let history = self.tokens.entry(call.token).or_default();
        let grace = match self.purpose {
            Purpose::Replay { beyond_grace: true, .. } => Grace::Unlimited,
            _ => Grace::Within(self.policy.key_grace),
        };
        let payer = who_pays(call, owner, history, grace);
        if let Err((_, WaitReason::UnknownKey | WaitReason::Ignored)) = payer
            && !call.token.is_nobody()
        {
            self.plan.unknown_tokens.insert(call.token);
        }
        if let Some(Owner::One(holder)) = owner
            && let Some(from) = history.change_to(holder, self.now)
        {
            let (user_id, key_id) = (holder.user_id.clone(), holder.key_id.clone());
            history.owners.push(PastOwner { from, user_id, key_id, has_key: true });
            self.plan.new_owners.insert(call.token, (from, holder.clone()));
        }
        let payer = payer?;
        if self.memory_from_second.is_some_and(|from| call.called_at.as_secs() < from) {
            return Err((Failure::BeyondMemory, WaitReason::BeyondMemory));
        }
        Ok(payer)
    }

    fn book(
        &mut self,
        event: &Arc<UsageEvent>,
        user_id: UserId,
        key_id: KeyId,
        price: ExactPrice,
    ) -> Result<Charge, AmountTooLarge> {
        let account = self.open_accounts.get(&user_id);
        let balance = account.balance.unwrap_or_default();
        let remainder_before = account.remainder;
        let (due, remainder_after) = credits_to_move(price.credits, remainder_before, self.policy.rounding)?;
        let refused = self.policy.overdraft == Overdraft::Refuse && balance <= Credits::ZERO;
        let (credits, unpaid) = if refused { (Credits::ZERO, due) } else { (due, Credits::ZERO) };
        let unpaid_after = account.unpaid.checked_add(unpaid)?;
        let id = self.ids.next(self.now);
        let movement = Movement {
            kind: TransactionKind::Deduct,
            amount: Credits::ZERO.checked_sub(credits)?,
            remainder: remainder_after,
            unpaid: unpaid_after,
            charge_id: Some(id.clone()),
            description: event.content.model.clone(),
        };
        let transaction = self.open_accounts.book(&user_id, movement, self.now, self.ids)?;
        self.plan.transactions.extend(transaction);
        let (event, rounding) = (event.clone(), self.policy.rounding);
        Ok(Charge { id, event, user_id, key_id, price, rounding, credits, unpaid, remainder_before, remainder_after })
    }

    /// Writes down what became of the event, in the inbox and for the rest of this batch.
    fn keep(&mut self, event: &UsageEvent, open: Option<&OpenEvent>, failure: Option<(String, WaitReason)>) {
        let id = open.map_or_else(|| self.ids.next(self.now), |open| open.inbox_id.clone());
        let (message, reason) = failure.unzip();
        let waiting =
            reason.filter(|reason| *reason != WaitReason::Ignored).map(|reason| self.waiting(event, open, reason));
        let status = waiting.map_or(InboxStatus::Processed, |(status, _)| status);
        let content = Some(event.content.clone());
        let known = match waiting {
            None => match message.clone() {
                Some(message) => KnownEvent::Closed { content, message },
                None => KnownEvent::Charged { content },
            },
            Some((status, Waiting { attempts, reason, .. })) => KnownEvent::Open(OpenEvent {
                inbox_id: id.clone(),
                status,
                message: message.clone(),
                attempts,
                is_ambiguous: reason == WaitReason::AmbiguousKey,
                content,
            }),
        };
        self.known.insert(event.event_id.clone(), known);
        self.plan.inbox.push(InboxRow {
            id,
            exists: open.is_some(),
            event_id: event.event_id.clone(),
            payload: event.payload.clone(),
            status,
            message,
            waiting: waiting.map(|(_, waiting)| waiting),
        });
    }

    /// Only errors use up attempts and come back by the clock; the rest waits for a change.
    fn waiting(&self, event: &UsageEvent, open: Option<&OpenEvent>, reason: WaitReason) -> (InboxStatus, Waiting) {
        let attempts = open.map_or(0, |open| open.attempts);
        let (status, attempts, due_at) = match reason {
            WaitReason::Unbookable => {
                let after = self.policy.retry.after_error(attempts, &event.event_id, self.now);
                (after.status, after.attempts, after.due_at)
            }
            WaitReason::Busy => (InboxStatus::Pending, attempts, None),
            // Nothing will ever change that.
            WaitReason::BeyondMemory => (InboxStatus::Dead, attempts, None),
            _ => (InboxStatus::Failed, attempts, None),
        };
        let (remote_key_id, called_at) = (event.content.remote_key_id, event.content.called_at);
        (status, Waiting { reason, remote_key_id, called_at, attempts, due_at })
    }

    fn finish(self) -> Plan {
        let mut plan = self.plan;
        plan.key_uses = self.key_uses.into_iter().collect();
        plan.accounts = self.open_accounts.finish();
        plan
    }
}

#[cfg(test)]
#[path = "settlement_tests.rs"]
mod tests;
