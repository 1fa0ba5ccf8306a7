//! One look through the books, page by page: what it saw, and whom sums make suspect.
//!
//! Each page is one statement, so that what it compares is of one instant. What is compared across pages counts charges up
//! to the newest one of the look's beginning, and may still be wrong while a daemon works: so it is looked at again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use super::AuditOptions;
use super::chain::{self, Chain};
use super::charges::{self, Standing};
use super::naming::{Naming, Suspects};
use super::report::{Difference, DifferenceKind};
use super::seen::{Seen, settle_balances};
use super::sums::{HourSums, UserSums, made_at_millis, weight};
use crate::domain::ids::RecordId;
use crate::domain::money::FEMTOS_PER_CREDIT;
use crate::storage::audit::{
    AuditFrame, AuditedAccount, AuditedClaim, AuditedRefund, AuditedTransaction, ClaimPlace, ClaimSource,
    UnclaimedRecord,
};
use crate::storage::{Store, StoreError};

/// How much later than its call a charge may be settled, for its id to tell on which side of the mark it is.
const LATEST_SETTLEMENT_SECS: i64 = 72 * 3600;

/// Events of one charge each that are remembered, to notice one that is charged twice: those of this many seconds.
const EVENTS_REMEMBERED_SECS: i64 = 120;

/// Users whose accounts are read by one statement.
const USERS_PAGE: usize = 500;

/// Users without a transaction that are told.
const MOST_UNTOLD: u32 = 1000;

/// A look at work.
pub struct Look<'a> {
    store: &'a dyn Store,
    options: AuditOptions,
    frame: AuditFrame,
    users: HashMap<String, UserSums>,
    hours: HourSums,
    naming: Naming,
    /// Event and its milliseconds, of charges of the last seconds, with the charge.
    events: HashMap<(i64, String), (i64, String)>,
    events_since: i64,
    seen: Seen,
}

impl<'a> Look<'a> {
    /// Looks at everything; names what disagrees of `suspects`.
    pub async fn run(store: &'a dyn Store, options: AuditOptions, suspects: Suspects) -> Result<Seen, StoreError> {
        let frame = store.audit_frame().await?;
        let naming = Naming::of(suspects);
        let (users, hours, events, events_since, seen) = Default::default();
        let mut look = Look { store, options, frame, users, hours, naming, events, events_since, seen };
        look.claims().await?;
        look.records().await?;
        look.refunds().await?;
        look.transactions().await?;
        look.accounts().await?;
        Ok(look.finish())
    }

    fn tell(&mut self, difference: Difference) {
        self.seen.tell(difference);
    }

    async fn claims(&mut self) -> Result<(), StoreError> {
        let mut after = ClaimPlace { call_second: i64::MIN, id: String::new() };
        loop {
            let started = Instant::now();
            let page = self.store.audited_claims(&after, self.options.page_rows).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = ClaimPlace { call_second: last.call_second, id: last.id.clone() };
            page.iter().for_each(|claim| self.claim(claim));
            self.options.rest(started.elapsed()).await;
        }
    }

    fn claim(&mut self, claim: &AuditedClaim) {
        self.seen.looked_at.charges += 1;
        match charges::standing(claim) {
            Standing::NoUser | Standing::Erased => {
                self.seen.looked_at.erased_charges += 1;
                self.seen.looked_at.erased_credits += claim.moved;
            }
            Standing::Adopted => self.seen.looked_at.adopted_charges += 1,
            Standing::Whole => charges::differences(claim).into_iter().for_each(|one| self.tell(one)),
        }
        if matches!(charges::standing(claim), Standing::NoUser | Standing::Adopted) {
            return;
        }
        self.event(claim);
        if claim.id > self.frame.newest_charge {
            return;
        }
        let sums = self.users.entry(claim.user_id.clone()).or_default();
        sums.owed_femtos += charges::owed_femtos(claim);
        sums.unpaid += claim.unpaid;
        let is_told = match &claim.record {
            // Its transactions find it by the time of its record.
            Some(record) => record.second == claim.call_second,
            None => !may_be_cleared(&self.frame, &claim.id),
        };
        if is_told {
            let weight = weight(&claim.id, claim.moved);
            sums.told = sums.told.wrapping_add(weight);
            self.hours.add(&claim.id, weight);
            self.naming.charge(&claim.id, &claim.user_id, claim.moved, claim.call_second);
        }
    }

    /// No event is charged twice: the database holds that, and an audit sees that it did.
    fn event(&mut self, claim: &AuditedClaim) {
        let Some(event) = &claim.event else { return };
        let charged = (claim.call_second, claim.id.clone());
        if let Some((_, other)) = self.events.insert(event.clone(), charged) {
            let femtos = i128::from(-claim.moved) * FEMTOS_PER_CREDIT;
            let kind = DifferenceKind::EventChargedTwice;
            let says =
                format!("{} names the event {}, as the charge {other} does.", charges::charge_text(claim), event.1);
            let since = Some(charges::second_text(claim.call_second));
            let difference = Difference::new(kind, Some(&claim.user_id), Some(&claim.id), femtos).since(since);
            self.tell(difference.saying(says));
        }
        if claim.call_second - self.events_since >= 2 * EVENTS_REMEMBERED_SECS {
            self.events_since = claim.call_second - EVENTS_REMEMBERED_SECS;
            self.events.retain(|_, (second, _)| *second >= self.events_since);
        }
    }

    async fn records(&mut self) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let started = Instant::now();
            let (unclaimed, next) = self.store.unclaimed_records(&after, self.options.page_rows).await?;
            unclaimed.iter().for_each(|record| self.unclaimed(record));
            match next {
                None => return Ok(()),
                Some(next) => after = next,
            }
            self.options.rest(started.elapsed()).await;
        }
    }

    fn unclaimed(&mut self, record: &UnclaimedRecord) {
        if self.frame.remembered_from_second.is_some_and(|from| record.second < from) || !self.wrote(record) {
            return;
        }
        // Its charge is told to lie at another second.
        let is_told = |one: &Difference| {
            one.kind == DifferenceKind::RecordDiffers && one.subject.as_deref() == Some(record.id.as_str())
        };
        if self.seen.differences.iter().any(is_told) {
            return;
        }
        let (id, credits, at) = (&record.id, record.credits, charges::second_text(record.second));
        let says = format!("The usage record {id} of {credits} credits for the call of {at} has no charge behind it.");
        let femtos = i128::from(-credits) * FEMTOS_PER_CREDIT;
        let difference = Difference::new(DifferenceKind::ClaimMissing, record.user_id.as_deref(), Some(id), femtos);
        self.tell(difference.since(Some(at)).saying(says));
    }

    /// Whether a usage record is ours: where others write as well, it says so itself.
    fn wrote(&self, record: &UnclaimedRecord) -> bool {
        self.frame.id_mark.is_none()
            || record.raw_meta.as_deref().and_then(installation_of).as_deref() == Some(self.frame.installation.as_str())
    }

    async fn refunds(&mut self) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let started = Instant::now();
            let page = self.store.audited_refunds(&after, self.options.page_rows).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id.clone();
            page.iter().for_each(|refund| self.refund(refund));
            self.options.rest(started.elapsed()).await;
        }
    }

    fn refund(&mut self, refund: &AuditedRefund) {
        self.seen.looked_at.refunds += 1;
        if !refund.has_user {
            return;
        }
        for one in charges::refund_differences(refund, self.frame.remembered_from_second) {
            self.tell(one);
        }
        if refund.id <= self.frame.newest_refund {
            let sums = self.users.entry(refund.user_id.clone()).or_default();
            sums.owed_femtos += i128::from(refund.remainder_after - refund.remainder_before);
            sums.unpaid -= refund.unpaid_lowered;
            sums.rebuilt_refunds += u64::from(charges::is_rebuilt(refund));
        }
    }

    async fn transactions(&mut self) -> Result<(), StoreError> {
        let (mut after, mut chain): (_, Option<Chain>) = (None, None);
        loop {
            let started = Instant::now();
            let page = self.store.audited_transactions(after.as_ref(), self.options.page_rows).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.place.clone());
            for transaction in &page {
                if chain.as_ref().is_none_or(|chain| chain.user_id != transaction.place.user_id) {
                    let next = Chain::new(&transaction.place.user_id, self.frame.id_mark.is_none());
                    self.end_chain(chain.replace(next));
                }
                if let Some(chain) = &mut chain {
                    chain.follow(transaction, is_ours(&self.frame, transaction));
                }
                self.transaction(transaction);
            }
            self.options.rest(started.elapsed()).await;
        }
        self.end_chain(chain);
        for (user, credits) in self.store.untold_balances(MOST_UNTOLD).await? {
            self.tell(chain::untold(&user, credits));
        }
        Ok(())
    }

    fn end_chain(&mut self, chain: Option<Chain>) {
        let Some(chain) = chain else { return };
        self.seen.looked_at.users += 1;
        let (breaks, more) = chain.finish();
        breaks.into_iter().for_each(|one| self.tell(one));
        self.seen.unlisted_of_others += more;
    }

    fn transaction(&mut self, transaction: &AuditedTransaction) {
        self.seen.looked_at.transactions += 1;
        let Some(charge) = transaction.reference.as_deref() else { return };
        if transaction.is_known_refund {
            return self.naming.transaction(charge, transaction);
        }
        if !["DEDUCT", "REFUND"].contains(&transaction.kind.as_str()) {
            return;
        }
        let is_told = match (transaction.has_record, transaction.claim) {
            (true, claim) => claim == Some(ClaimSource::Ours),
            (false, _) => has_our_mark(&self.frame, charge) && !may_be_cleared(&self.frame, charge),
        };
        if !is_told || charge > self.frame.newest_charge.as_str() {
            return;
        }
        let weight = weight(charge, transaction.amount);
        let user = &transaction.place.user_id;
        let sums = self.users.entry(user.clone()).or_default();
        sums.told = sums.told.wrapping_add(weight);
        self.hours.add(charge, weight);
        self.naming.transaction(charge, transaction);
    }

    async fn accounts(&mut self) -> Result<(), StoreError> {
        let users = self.users_with_accounts().await?;
        for page in users.chunks(USERS_PAGE) {
            let started = Instant::now();
            for account in self.store.audited_accounts(&self.frame, page).await? {
                self.account(&account);
            }
            self.options.rest(started.elapsed()).await;
        }
        if self.frame.has_unsummed {
            self.seen.notes.push(
                "An earlier version cleared charges without summing them: what users owe below one credit, and what is \
                 unpaid, cannot be added up from the beginning, and was not judged."
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Those with charges or refunds, and those of whom an account is kept without any: in their order.
    async fn users_with_accounts(&self) -> Result<Vec<String>, StoreError> {
        let mut users: BTreeSet<String> = self.users.keys().cloned().collect();
        let mut after = String::new();
        loop {
            let page = self.store.account_users(&after, self.options.page_rows).await?;
            let Some((last, _)) = page.last() else { return Ok(users.into_iter().collect()) };
            after.clone_from(last);
            users.extend(page.into_iter().filter_map(|(user, is_there)| is_there.then_some(user)));
        }
    }

    fn account(&mut self, account: &AuditedAccount) {
        self.seen.looked_at.unpaid_credits += account.unpaid;
        if self.frame.has_unsummed {
            return;
        }
        let sums = self.users.get(&account.user_id).copied().unwrap_or_default();
        let user = &account.user_id;
        let owed = sums.owed_femtos + account.cleared_femtos + account.since_femtos;
        let missing = owed - i128::from(account.remainder);
        let is_rebuilt = missing.abs() < i128::from(sums.rebuilt_refunds) * FEMTOS_PER_CREDIT;
        if missing != 0 && !is_rebuilt {
            let [owed, kept] = [owed, i128::from(account.remainder)].map(super::report::credits_text);
            let says =
                format!("By his charges and refunds the user owes {owed} credits beside his balance; kept is {kept}.");
            let difference = Difference::new(DifferenceKind::RemainderDiffers, Some(user), None, missing);
            self.tell(difference.saying(says));
        }
        let unpaid = sums.unpaid + account.cleared_unpaid + account.since_unpaid;
        if unpaid != account.unpaid {
            let says = format!("By his charges and refunds {unpaid} credits are unpaid; kept is {}.", account.unpaid);
            let femtos = i128::from(unpaid - account.unpaid) * FEMTOS_PER_CREDIT;
            let difference = Difference::new(DifferenceKind::UnpaidDiffers, Some(user), None, femtos);
            self.tell(difference.saying(says));
        }
    }

    fn finish(self) -> Seen {
        let Look { users, hours, naming, mut seen, .. } = self;
        let disagreeing: HashSet<String> =
            users.into_iter().filter(|(_, sums)| sums.told != 0).map(|(user, _)| user).collect();
        naming.finish(&disagreeing).into_iter().for_each(|one| seen.tell(one));
        seen.suspects = Suspects { users: disagreeing, hours: hours.disagreeing().collect() };
        settle_balances(&mut seen.differences);
        seen
    }
}

fn installation_of(raw_meta: &str) -> Option<String> {
    serde_json::from_str::<serde_json::Value>(raw_meta).ok()?.get("installation")?.as_str().map(str::to_owned)
}

fn is_ours(frame: &AuditFrame, transaction: &AuditedTransaction) -> bool {
    has_our_mark(frame, &transaction.place.id) && RecordId::is_form_of_ours(&transaction.place.id)
}

fn has_our_mark(frame: &AuditFrame, id: &str) -> bool {
    frame.id_mark.as_ref().is_none_or(|mark| id.ends_with(mark.as_str()))
}

/// Whether the memory of a charge may have been cleared, as far as its id tells.
fn may_be_cleared(frame: &AuditFrame, id: &str) -> bool {
    let Some(from) = frame.remembered_from_second else { return false };
    made_at_millis(id).is_none_or(|millis| millis / 1000 < from + LATEST_SETTLEMENT_SECS)
}
