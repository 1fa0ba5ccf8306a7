//! A user's books while a batch is planned: balance, remainder, unpaid amount, and the transactions that tell of them.
//!
//! Charges and refunds move a user's books through here alone, so that stamps, ids and balances follow each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ids::{RecordId, RecordIds, UserId};
use super::money::{AmountTooLarge, Credits, Remainder};
use super::planted;
use super::time::UnixMillis;

/// How far a user's newest stamp may run ahead of the clock before stamps repeat.
const MAX_STAMP_LEAD_MILLIS: i64 = 1000;

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

/// Why a balance moved: the platform's names of `credit_transactions.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionKind {
    Deduct,
    Refund,
    /// A person gave credits.
    Recharge,
    /// A person corrected the balance.
    AdminAdjust,
}

impl TransactionKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            TransactionKind::Deduct => "DEDUCT",
            TransactionKind::Refund => "REFUND",
            TransactionKind::Recharge => "RECHARGE",
            TransactionKind::AdminAdjust => "ADMIN_ADJUST",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        use TransactionKind::{AdminAdjust, Deduct, Recharge, Refund};
        [Deduct, Refund, Recharge, AdminAdjust].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A row of `credit_transactions`.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub kind: TransactionKind,
    pub id: RecordId,
    pub user_id: UserId,
    /// Signed: a deduction is negative.
    pub amount: Credits,
    pub balance_after: Credits,
    /// None: a person moved the credits.
    pub charge_id: Option<RecordId>,
    /// The charge's model, or why a person moved them.
    pub description: Arc<str>,
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

/// What a charge, a refund or a person does to a user's books.
#[derive(Debug)]
pub struct Movement {
    pub kind: TransactionKind,
    /// Added to the balance.
    pub amount: Credits,
    /// What is owed below one credit afterwards.
    pub remainder: Remainder,
    /// What is unpaid afterwards.
    pub unpaid: Credits,
    pub charge_id: Option<RecordId>,
    pub description: Arc<str>,
}

/// The accounts that a batch touches, each as it stands after what was planned so far.
#[derive(Debug, Clone)]
pub struct OpenAccounts {
    accounts: HashMap<UserId, Account>,
    changes: BTreeMap<UserId, AccountChange>,
}

impl OpenAccounts {
    pub fn new(accounts: HashMap<UserId, Account>) -> Self {
        OpenAccounts { accounts, changes: BTreeMap::new() }
    }

    pub fn get(&mut self, user_id: &UserId) -> &Account {
        self.accounts.entry(user_id.clone()).or_default()
    }

    /// Whether this user's books were read.
    pub fn knows(&self, user_id: &UserId) -> bool {
        self.accounts.contains_key(user_id)
    }

    /// Moves the books, or leaves them as they are where the balance would not fit. No transaction tells of a movement
    /// of zero.
    pub fn book(
        &mut self,
        user_id: &UserId,
        movement: Movement,
        now: UnixMillis,
        ids: &RecordIds,
    ) -> Result<Option<Transaction>, AmountTooLarge> {
        let account = self.accounts.entry(user_id.clone()).or_default();
        let balance_after = account.balance.unwrap_or_default().checked_add(movement.amount)?;
        let creates_balance = account.balance.is_none();
        account.balance = Some(balance_after);
        if !planted::is_on("remainder_of_before_the_batch") {
            account.remainder = movement.remainder;
        }
        account.unpaid = movement.unpaid;
        let change = self.changes.entry(user_id.clone()).or_insert_with(|| AccountChange {
            user_id: user_id.clone(),
            balance_delta: Credits::ZERO,
            remainder: Remainder::ZERO,
            unpaid: Credits::ZERO,
            creates_balance,
        });
        change.balance_delta = Credits::new(change.balance_delta.get() + movement.amount.get());
        change.remainder = movement.remainder;
        change.unpaid = account.unpaid;
        if movement.amount == Credits::ZERO {
            return Ok(None);
        }
        let created_at = next_stamp(now, account.newest_transaction.as_ref());
        let newest = account.newest_transaction.as_ref().and_then(|newest| newest.id.as_ref());
        let id = ids.next_after(created_at, newest);
        account.newest_transaction = Some(NewestTransaction { created_at, id: Some(id.clone()) });
        Ok(Some(Transaction {
            kind: movement.kind,
            id,
            user_id: user_id.clone(),
            amount: movement.amount,
            balance_after,
            charge_id: movement.charge_id,
            description: movement.description,
            created_at,
        }))
    }

    /// What each account comes to.
    pub fn finish(self) -> Vec<AccountChange> {
        self.changes.into_values().collect()
    }
}

/// Credits that a person moves: what becomes of the account, and the transaction that tells of it.
#[derive(Debug)]
pub struct PlannedMove {
    pub change: AccountChange,
    /// `credit_transactions.id`
    pub id: RecordId,
    pub balance_after: Credits,
    pub created_at: UnixMillis,
}

/// Plans a grant or an adjustment; the remainder and the unpaid amount stay as they are.
pub fn plan_move(
    user_id: &UserId,
    account: &Account,
    amount: Credits,
    now: UnixMillis,
    ids: &RecordIds,
) -> Result<PlannedMove, AmountTooLarge> {
    let balance_after = account.balance.unwrap_or_default().checked_add(amount)?;
    let created_at = next_stamp(now, account.newest_transaction.as_ref());
    let previous = account.newest_transaction.as_ref().and_then(|newest| newest.id.as_ref());
    let change = AccountChange {
        user_id: user_id.clone(),
        balance_delta: amount,
        remainder: account.remainder,
        unpaid: account.unpaid,
        creates_balance: account.balance.is_none(),
    };
    Ok(PlannedMove { change, id: ids.next_after(created_at, previous), balance_after, created_at })
}

/// The stamp of a user's next transaction: later than his last, unless that runs too far ahead of the clock.
pub fn next_stamp(now: UnixMillis, newest: Option<&NewestTransaction>) -> UnixMillis {
    let Some(newest) = newest.map(|newest| newest.created_at).filter(|newest| *newest >= now) else {
        return now;
    };
    let next = UnixMillis::new(newest.as_millis() + 1);
    if next.as_millis() > now.as_millis() + MAX_STAMP_LEAD_MILLIS { newest } else { next }
}
