//! Decides what one batch of usage events books: pure, from a snapshot read under the ledger's locks.
//!
//! Every store runs this same function between its reads and its writes, so that money is decided in one place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::event::UsageEvent;
use super::ids::{KeyId, RecordId, RecordIds, RemoteKeyId, UserId};
use super::known::{KnownEvent, KnownEvents, OpenEvent, Standing, standing};
use super::money::{AmountTooLarge, Credits, Remainder};
use super::outcome::{Failure, InboxStatus, SettlementOutcome};
use super::ownership::{Grace, KeyHolder, Owner, TokenHistory, who_pays};
use super::pricing::{ExactPrice, Overdraft, PriceBook, Rounding, credits_to_move};
use super::recording::{InboxRow, WaitReason, Waiting};
use super::retry::RetryPolicy;
use super::time::UnixMillis;

/// How far a user's newest stamp may run ahead of the clock before stamps repeat.
const MAX_STAMP_LEAD_MILLIS: i64 = 1000;

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
    pub prices: PriceBook,
}

/// One user's books before the batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Absent where the user has no balance row yet.
    pub balance: Option<Credits>,
    pub remainder: Remainder,
    pub unpaid: Credits,
    pub newest_transaction: Option<NewestTransaction>,
}

/// Where a user's history ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestTransaction {
    pub created_at: UnixMillis,
    pub id: Option<RecordId>,
}

/// What to write, and what to tell each caller. A store writes all of it in one transaction, or nothing.
#[derive(Debug, Default)]
pub struct Plan {
    /// One for each event, in their order.
    pub outcomes: Vec<SettlementOutcome>,
    pub inbox: Vec<InboxRow>,
    pub charges: Vec<Charge>,
    pub transactions: Vec<Transaction>,
    pub accounts: Vec<AccountChange>,
    /// Each key's newest call in this batch.
    pub key_uses: Vec<(KeyId, UnixMillis)>,
    /// Tokens that no key has, at this look.
    pub unknown_tokens: BTreeSet<RemoteKeyId>,
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
    /// Whole credits deducted.
    pub credits: Credits,
    /// Whole credits that should have been deducted, and were not.
    pub unpaid: Credits,
    pub remainder_before: Remainder,
    pub remainder_after: Remainder,
}

/// A row of `credit_transactions` of type `DEDUCT`.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub id: RecordId,
    pub user_id: UserId,
    /// Signed: a deduction is negative.
    pub amount: Credits,
    pub balance_after: Credits,
    pub charge_id: RecordId,
    pub model: Arc<str>,
    pub created_at: UnixMillis,
}

/// What becomes of one user's balance and of our own account beside it.
#[derive(Debug, Clone)]
pub struct AccountChange {
    pub user_id: UserId,
    /// Applied relative to what is there.
    pub balance_delta: Credits,
    pub remainder: Remainder,
    pub unpaid: Credits,
    pub creates_balance: bool,
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
        open_accounts: OpenAccounts { accounts: snapshot.accounts, changes: BTreeMap::new() },
        prices: snapshot.prices,
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

/// The stamp of a user's next transaction: later than his last, unless that runs too far ahead of the clock.
pub fn next_stamp(now: UnixMillis, newest: Option<&NewestTransaction>) -> UnixMillis {
    let Some(newest) = newest.map(|newest| newest.created_at).filter(|newest| *newest >= now) else {
        return now;
    };
    let next = UnixMillis::new(newest.as_millis() + 1);
    if next.as_millis() > now.as_millis() + MAX_STAMP_LEAD_MILLIS { newest } else { next }
}

struct Planner<'a> {
    known: KnownEvents,
    owners: HashMap<RemoteKeyId, Owner>,
    tokens: HashMap<RemoteKeyId, TokenHistory>,
    open_accounts: OpenAccounts,
    prices: PriceBook,
    key_uses: BTreeMap<KeyId, UnixMillis>,
    plan: Plan,
    policy: LedgerPolicy,
    purpose: Purpose,
    now: UnixMillis,
    ids: &'a RecordIds,
}

struct OpenAccounts {
    accounts: HashMap<UserId, Account>,
    changes: BTreeMap<UserId, AccountChange>,
}

impl Planner<'_> {
    fn settle(&mut self, event: &Arc<UsageEvent>) -> SettlementOutcome {
        let open = match standing(self.known.get(&event.event_id), event) {
            Standing::Conflicting => return SettlementOutcome::Conflict,
            Standing::Charged => return SettlementOutcome::AlreadySettled,
            Standing::Open(open) if !self.purpose.tries(open.status) => {
                return SettlementOutcome::Failed(Failure::Stored(open.message.unwrap_or_default()));
            }
            Standing::Open(open) => Some(open),
            Standing::New => None,
        };
        match self.charge(event) {
            Ok(outcome) => {
                self.keep(event, open.as_ref(), None);
                outcome
            }
            Err((failure, reason)) => {
                self.keep(event, open.as_ref(), Some((failure.message(), reason)));
                SettlementOutcome::Failed(failure)
            }
        }
    }

    /// Books the event if it can be booked; changes nothing otherwise.
    fn charge(&mut self, event: &Arc<UsageEvent>) -> Result<SettlementOutcome, (Failure, WaitReason)> {
        let KeyHolder { user_id, key_id, .. } = self.who_pays(event)?;
        let unbookable = |error: AmountTooLarge| (Failure::Unbookable(error.to_string()), WaitReason::Unbookable);
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

    /// Looks whose call it is, and keeps what this look saw of the token.
    fn who_pays(&mut self, event: &UsageEvent) -> Result<KeyHolder, (Failure, WaitReason)> {
        let token = event.content.remote_key_id;
        let owner = self.owners.get(&token);
        // A look that a clock ahead of time has stored counts as now.
        let last_unknown_at = self.tokens.get(&token).and_then(|history| history.last_unknown_at);
        let history = TokenHistory { last_unknown_at: last_unknown_at.map(|at| at.min(self.now)) };
        let grace = match self.purpose {
            Purpose::Replay { beyond_grace: true, .. } => Grace::Unlimited,
            _ => Grace::Within(self.policy.key_grace),
        };
        let payer = who_pays(token, event.content.called_at, owner, history, grace);
        if let Err((_, WaitReason::UnknownKey)) = payer
            && !token.is_nobody()
        {
            self.plan.unknown_tokens.insert(token);
        }
        payer
    }

    fn book(
        &mut self,
        event: &Arc<UsageEvent>,
        user_id: UserId,
        key_id: KeyId,
        price: ExactPrice,
    ) -> Result<Charge, AmountTooLarge> {
        let account = self.open_accounts.accounts.entry(user_id.clone()).or_default();
        let balance = account.balance.unwrap_or_default();
        let remainder_before = account.remainder;
        let (due, remainder_after) = credits_to_move(price.credits, remainder_before, self.policy.rounding)?;
        let refused = self.policy.overdraft == Overdraft::Refuse && balance <= Credits::ZERO;
        let (credits, unpaid) = if refused { (Credits::ZERO, due) } else { (due, Credits::ZERO) };
        let balance_after = balance.checked_sub(credits)?;
        let unpaid_after = account.unpaid.checked_add(unpaid)?;
        let id = self.ids.next(self.now);
        if credits != Credits::ZERO {
            let created_at = next_stamp(self.now, account.newest_transaction.as_ref());
            let newest = account.newest_transaction.as_ref().and_then(|newest| newest.id.as_ref());
            let transaction_id = self.ids.next_after(created_at, newest);
            account.newest_transaction = Some(NewestTransaction { created_at, id: Some(transaction_id.clone()) });
            self.plan.transactions.push(Transaction {
                id: transaction_id,
                user_id: user_id.clone(),
                amount: Credits::ZERO.checked_sub(credits)?,
                balance_after,
                charge_id: id.clone(),
                model: event.content.model.clone(),
                created_at,
            });
        }
        let creates_balance = account.balance.is_none();
        account.balance = Some(balance_after);
        account.remainder = remainder_after;
        account.unpaid = unpaid_after;
        self.open_accounts.note(&user_id, credits, creates_balance);
        let event = event.clone();
        Ok(Charge { id, event, user_id, key_id, price, credits, unpaid, remainder_before, remainder_after })
    }

    /// Writes down what became of the event, in the inbox and for the rest of this batch.
    fn keep(&mut self, event: &UsageEvent, open: Option<&OpenEvent>, failure: Option<(String, WaitReason)>) {
        let id = open.map_or_else(|| self.ids.next(self.now), |open| open.inbox_id.clone());
        let (message, reason) = failure.unzip();
        let waiting = reason.map(|reason| self.waiting(event, open, reason));
        let status = waiting.map_or(InboxStatus::Processed, |(status, _)| status);
        let content = Some(event.content.clone());
        let known = match waiting {
            None => KnownEvent::Charged { content },
            Some((status, Waiting { attempts, .. })) => KnownEvent::Open(OpenEvent {
                inbox_id: id.clone(),
                status,
                message: message.clone(),
                attempts,
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
        let (status, attempts, due_at) = if reason == WaitReason::Unbookable {
            let after = self.policy.retry.after_error(attempts, &event.event_id, self.now);
            (after.status, after.attempts, after.due_at)
        } else {
            (InboxStatus::Failed, attempts, None)
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

impl OpenAccounts {
    fn note(&mut self, user_id: &UserId, deducted: Credits, creates_balance: bool) {
        let change = self.changes.entry(user_id.clone()).or_insert_with(|| AccountChange {
            user_id: user_id.clone(),
            balance_delta: Credits::ZERO,
            remainder: Remainder::ZERO,
            unpaid: Credits::ZERO,
            creates_balance,
        });
        change.balance_delta = Credits::new(change.balance_delta.get() - deducted.get());
    }

    fn finish(self) -> Vec<AccountChange> {
        let OpenAccounts { accounts, changes } = self;
        let with_ends = changes.into_values().map(|change| match accounts.get(&change.user_id) {
            Some(account) => AccountChange { remainder: account.remainder, unpaid: account.unpaid, ..change },
            None => change,
        });
        with_ends.collect()
    }
}

#[cfg(test)]
#[path = "settlement_tests.rs"]
mod tests;
