//! Carries out the decisions of a batch, side by side: who pays, whether it was charged before, what it moves.
//!
//! What a tie does to charges that are there is in `planner_ties`; what waits for its partner in `planner_open`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::accounts::{Movement, OpenAccounts, TransactionKind};
use super::adoption::{ForeignRecord, ForeignRecords};
use super::event::UsageEvent;
use super::ids::{KeyId, RecordIds, RemoteKeyId, UserId};
use super::known::{KnownEvent, KnownEvents, OpenEvent, Standing, standing};
use super::log_snapshot::LogSnapshot;
use super::matching::TieRule;
use super::money::{AmountTooLarge, Credits};
use super::outcome::{Failure, InboxStatus, SettlementOutcome};
use super::ownership::{Call, Grace, KeyHolder, Owner, PastOwner, TokenHistory, who_pays};
use super::planted;
use super::pricing::{ExactPrice, Overdraft, Price, PriceBook, credits_to_move};
use super::recording::{InboxRow, WaitReason, Waiting};
use super::refund::ChargeKey;
use super::settlement::{Adopted, Batch, Charge, ClaimSide, LedgerPolicy, Plan, Purpose, Snapshot};
use super::side::{Channel, Side};
use super::time::UnixMillis;

/// Why a side is not charged: in words, and what it waits for.
pub(super) type NotCharged = (Failure, WaitReason);

/// What settling one side came to.
pub(super) enum Booked {
    Charged {
        credits: Credits,
        unpaid: Credits,
    },
    /// Its call was charged before.
    Tied,
}

/// Both sides of a charge, as far as they are known.
pub(super) type Sides = (Option<ClaimSide>, Option<ClaimSide>, Option<TieRule>);

pub(super) struct Planner<'a> {
    pub(super) known: KnownEvents,
    owners: HashMap<RemoteKeyId, Owner>,
    tokens: HashMap<RemoteKeyId, TokenHistory>,
    pub(super) open_accounts: OpenAccounts,
    pub(super) busy_users: HashSet<UserId>,
    pub(super) prices: PriceBook,
    memory_from_second: Option<i64>,
    pub(super) foreign: ForeignRecords,
    pub(super) log: Option<LogSnapshot>,
    /// Charges of this batch and of before, whose sides change.
    pub(super) sides: BTreeMap<ChargeKey, Sides>,
    key_uses: BTreeMap<KeyId, UnixMillis>,
    pub(super) plan: Plan,
    policy: LedgerPolicy,
    pub(super) purpose: Purpose,
    pub(super) now: UnixMillis,
    pub(super) ids: &'a RecordIds,
}

impl<'a> Planner<'a> {
    pub fn new(
        snapshot: Snapshot,
        policy: LedgerPolicy,
        purpose: Purpose,
        now: UnixMillis,
        ids: &'a RecordIds,
    ) -> Planner<'a> {
        Planner {
            known: snapshot.known,
            owners: snapshot.owners,
            tokens: snapshot.tokens,
            open_accounts: OpenAccounts::new(snapshot.accounts),
            busy_users: snapshot.busy_users,
            prices: snapshot.prices,
            memory_from_second: snapshot.memory_from_second,
            foreign: snapshot.foreign,
            log: snapshot.log,
            sides: BTreeMap::new(),
            key_uses: BTreeMap::new(),
            plan: Plan::default(),
            policy,
            purpose,
            now,
            ids,
        }
    }

    pub fn plan(mut self, batch: &Batch) -> Plan {
        for event in &batch.events {
            let outcome = self.settle(event);
            self.plan.outcomes.push(outcome);
        }
        for row in &batch.rows {
            let outcome = self.settle_row(row);
            self.plan.row_outcomes.push(outcome);
        }
        for decision in &batch.decisions {
            let outcome = self.decide(decision);
            self.plan.decisions.push(outcome);
        }
        self.revisit(batch);
        self.finish()
    }

    fn settle(&mut self, event: &Arc<UsageEvent>) -> SettlementOutcome {
        let open = match standing(self.known.get(&event.event_id), event) {
            Standing::Conflicting => return SettlementOutcome::Conflict,
            Standing::Charged => return SettlementOutcome::AlreadySettled,
            Standing::Closed(message) => return SettlementOutcome::Failed(Failure::Stored(message)),
            Standing::Open(open) if !self.purpose.tries(open.status) => {
                return SettlementOutcome::Failed(Failure::Stored(open.message.unwrap_or_default()));
            }
            // It is among the sides that are looked at again in the end.
            Standing::Open(open) if self.is_open_side(event) => {
                return match open.status {
                    InboxStatus::Pending => SettlementOutcome::Waits,
                    _ => SettlementOutcome::Failed(Failure::Stored(open.message.unwrap_or_default())),
                };
            }
            Standing::Open(open) => Some(open),
            Standing::New => None,
        };
        let was_ambiguous = open.as_ref().is_some_and(|open| open.is_ambiguous);
        match self.charge(&Side::Event(event.clone()), was_ambiguous) {
            Ok(booked) => {
                self.keep(event, open.as_ref(), None);
                match booked {
                    Booked::Charged { credits, unpaid: Credits::ZERO } => SettlementOutcome::Settled { credits },
                    Booked::Charged { unpaid: credits, .. } => SettlementOutcome::Unpaid { credits },
                    Booked::Tied => SettlementOutcome::Tied,
                }
            }
            Err((failure, reason)) => {
                self.keep(event, open.as_ref(), Some((failure.message(), reason)));
                match reason {
                    WaitReason::Busy => SettlementOutcome::Deferred,
                    WaitReason::Alike => SettlementOutcome::Waits,
                    _ => SettlementOutcome::Failed(failure),
                }
            }
        }
    }

    /// Books the side's call, or finds it booked; changes nothing otherwise.
    pub(super) fn charge(&mut self, side: &Side, was_ambiguous: bool) -> Result<Booked, NotCharged> {
        let holder = match self.payer(side, was_ambiguous) {
            // What is charged already needs nobody who pays.
            Err((_, WaitReason::BeyondGrace)) if self.tie_to_charge(side).map_err(unbookable)? => {
                return Ok(Booked::Tied);
            }
            payer => payer?,
        };
        if let Some(record) = self.foreign.take(side.content()) {
            let claim = self.adopt(side, record, None).map_err(unbookable)?;
            self.join_neighbours(side, claim, true);
            return Ok(Booked::Tied);
        }
        if self.log.is_none() {
            return self.charge_alone(side, holder, None);
        }
        self.charge_among_neighbours(side, holder)
    }

    /// Whose call it is, where its price is known and his books can be moved now.
    pub(super) fn payer(&mut self, side: &Side, was_ambiguous: bool) -> Result<KeyHolder, NotCharged> {
        let holder = self.who_pays(side, was_ambiguous)?;
        let content = side.content();
        if self.prices.is_held(content.price, content.called_at) {
            return Err((Failure::QuotaUnknown, WaitReason::QuotaUnknown));
        }
        match self.busy_users.contains(&holder.user_id) {
            true => Err((Failure::Busy, WaitReason::Busy)),
            false => Ok(holder),
        }
    }

    /// Charges a call of which nothing else tells, or which `partner` tells of as well and is not charged for.
    pub(super) fn charge_alone(
        &mut self,
        side: &Side,
        holder: KeyHolder,
        sides: Option<Sides>,
    ) -> Result<Booked, NotCharged> {
        let KeyHolder { user_id, key_id, .. } = holder;
        let content = side.content();
        let priced_at = if planted::is_on("rate_of_now") { self.now } else { content.called_at };
        let price = self.prices.price(content.price, priced_at).map_err(unbookable)?;
        let charge = self.book(side, user_id, key_id.clone(), price, sides).map_err(unbookable)?;
        let used_at = self.key_uses.entry(key_id).or_insert(content.called_at);
        *used_at = content.called_at.max(*used_at);
        let booked = Booked::Charged { credits: charge.credits, unpaid: charge.unpaid };
        self.plan.charges.push(charge);
        Ok(booked)
    }

    /// Another program has billed this call: that is kept, and nothing moves.
    pub(super) fn adopt(
        &mut self,
        side: &Side,
        record: ForeignRecord,
        sides: Option<Sides>,
    ) -> Result<ChargeKey, AmountTooLarge> {
        let ForeignRecord { id, key_id, user_id, recorded_at, credits, .. } = record;
        let content = side.content();
        // Rate and quota are those of the call's second; what it cost is what the other program took.
        let price = self.prices.price(Price::CreditCost(credits.max(Credits::ZERO)), content.called_at)?;
        let remainder = self.open_accounts.get(&user_id).remainder;
        let (event, row, tie) = sides.unwrap_or_else(|| alone(side));
        let charge = Charge {
            id,
            content: content.clone(),
            channel: side.channel(),
            event,
            row,
            tie,
            user_id,
            key_id,
            price,
            rounding: self.policy.rounding,
            credits,
            unpaid: Credits::ZERO,
            remainder_before: remainder,
            remainder_after: remainder,
        };
        let claim = ChargeKey { call_second: recorded_at.as_secs(), id: charge.id.clone() };
        self.plan.adopted.push(Adopted { charge, recorded_at });
        Ok(claim)
    }

    /// Looks whose call it is, and keeps what this look saw of the token.
    fn who_pays(&mut self, side: &Side, was_ambiguous: bool) -> Result<KeyHolder, NotCharged> {
        let (token, called_at) = (side.content().remote_key_id, side.content().called_at);
        let call = Call { token, called_at, now: self.now, was_ambiguous };
        let owner = self.owners.get(&call.token);
        let history = self.tokens.entry(call.token).or_default();
        let grace = match self.purpose.reaches_beyond_grace() {
            true => Grace::Unlimited,
            false => Grace::Within(self.policy.key_grace),
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
        side: &Side,
        user_id: UserId,
        key_id: KeyId,
        price: ExactPrice,
        sides: Option<Sides>,
    ) -> Result<Charge, AmountTooLarge> {
        let content = side.content().clone();
        let refused = self.refuses(&user_id);
        let account = self.open_accounts.get(&user_id);
        let remainder_before = account.remainder;
        let (due, remainder_after) = credits_to_move(price.credits, remainder_before, self.policy.rounding)?;
        let (credits, unpaid) = if refused { (Credits::ZERO, due) } else { (due, Credits::ZERO) };
        let unpaid_after = account.unpaid.checked_add(unpaid)?;
        let unpaid_after = if planted::is_on("unpaid_is_forgotten") { unpaid } else { unpaid_after };
        let id = self.ids.next(self.now);
        let movement = Movement {
            kind: TransactionKind::Deduct,
            amount: Credits::ZERO.checked_sub(credits)?,
            remainder: remainder_after,
            unpaid: unpaid_after,
            charge_id: Some(id.clone()),
            description: content.model.clone(),
        };
        let transaction = self.open_accounts.book(&user_id, movement, self.now, self.ids)?;
        self.plan.transactions.extend(transaction);
        let (event, row, tie) = sides.unwrap_or_else(|| alone(side));
        let (channel, rounding) = (side.channel(), self.policy.rounding);
        Ok(Charge {
            id,
            content,
            channel,
            event,
            row,
            tie,
            user_id,
            key_id,
            price,
            rounding,
            credits,
            unpaid,
            remainder_before,
            remainder_after,
        })
    }

    pub(super) fn has_key(&self, token: RemoteKeyId) -> bool {
        self.owners.contains_key(&token) && !token.is_nobody()
    }

    /// `ledger.overdraft = "refuse"`, and the account is empty.
    pub(super) fn refuses(&mut self, user_id: &UserId) -> bool {
        let balance = self.open_accounts.get(user_id).balance.unwrap_or_default();
        self.policy.overdraft == Overdraft::Refuse && balance <= Credits::ZERO
    }

    /// Writes down what became of the event, in the inbox and for the rest of this batch.
    pub(super) fn keep(&mut self, event: &UsageEvent, open: Option<&OpenEvent>, failure: Option<(String, WaitReason)>) {
        let id = open.map_or_else(|| self.ids.next(self.now), |open| open.inbox_id.clone());
        let (message, reason) = failure.unzip();
        let waiting = reason.filter(|reason| !reason.is_closed()).map(|reason| self.waiting(event, open, reason));
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
        let row = InboxRow {
            id,
            exists: open.is_some(),
            event_id: event.event_id.clone(),
            payload: event.payload.clone(),
            status,
            message,
            waiting: waiting.map(|(_, waiting)| waiting),
        };
        // An event may find its partner in the batch that brought it: its row is written once.
        let earlier = open.and_then(|_| self.plan.inbox.iter_mut().rev().find(|earlier| earlier.id == row.id));
        match earlier {
            Some(earlier) => *earlier = InboxRow { exists: earlier.exists, ..row },
            None => self.plan.inbox.push(row),
        }
    }

    /// Only errors use up attempts and come back by the clock; the rest waits for a change.
    fn waiting(&self, event: &UsageEvent, open: Option<&OpenEvent>, reason: WaitReason) -> (InboxStatus, Waiting) {
        let attempts = open.map_or(0, |open| open.attempts);
        let (status, attempts, due_at) = match reason {
            WaitReason::Unbookable => {
                let after = self.policy.retry.after_error(attempts, &event.event_id, self.now);
                (after.status, after.attempts, after.due_at)
            }
            WaitReason::Busy | WaitReason::Alike => (InboxStatus::Pending, attempts, None),
            // Nothing will ever change that.
            WaitReason::BeyondMemory => (InboxStatus::Dead, attempts, None),
            _ => (InboxStatus::Failed, attempts, None),
        };
        let (remote_key_id, called_at) = (event.content.remote_key_id, event.content.called_at);
        (status, Waiting { reason, remote_key_id, called_at, attempts, due_at })
    }

    fn finish(mut self) -> Plan {
        self.write_sides();
        let mut plan = self.plan;
        plan.key_uses = self.key_uses.into_iter().collect();
        plan.accounts = self.open_accounts.finish();
        plan
    }
}

pub(super) fn unbookable(error: AmountTooLarge) -> NotCharged {
    (Failure::Unbookable(error.to_string()), WaitReason::Unbookable)
}

/// The sides of a charge of which one channel tells.
pub(super) fn alone(side: &Side) -> Sides {
    let claim_side = ClaimSide { identity: side.identity(), at: side.content().called_at };
    match side.channel() {
        Channel::Webhook => (Some(claim_side), None, None),
        Channel::Log => (None, Some(claim_side), None),
    }
}
