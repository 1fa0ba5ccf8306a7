//! Unit tests and properties of the decision what rows of tasks give back.

use proptest::prelude::*;

use super::*;
use crate::domain::accounts::Account;
use crate::domain::ids::RecordId;
use crate::domain::log_row::RowDigest;
use crate::domain::money::{QuotaPerUnit, Rate, Remainder};
use crate::domain::pricing::{ExactPrice, credits_to_give_back, credits_to_move};

const NOW: i64 = 1_795_558_800_000;
const RATE: &str = "1000";

/// Books of one user, kept between plans as a store keeps them.
struct Desk {
    charges: HashMap<ChargeKey, (TaskCharge, BookedCharge)>,
    groups: HashMap<TaskKey, ChargeKey>,
    /// Further charges and open rows, by task.
    members: HashMap<TaskKey, Vec<TaskMember>>,
    open: Vec<TaskRow>,
    account: Account,
    ids: RecordIds,
}

fn user() -> UserId {
    UserId::parse("u").unwrap()
}

fn token() -> RemoteKeyId {
    RemoteKeyId::new(7).unwrap()
}

fn units(units: i64) -> QuotaUnits {
    QuotaUnits::new(units).unwrap()
}

fn task(id: &str) -> TaskKey {
    TaskKey { source: "default".into(), token: token(), task_id: id.into() }
}

fn row_at(second: i64, name: &str) -> RowIdentity {
    RowIdentity { source: "default".into(), second, digest: RowDigest::of_text(name), number: 0 }
}

impl Desk {
    fn new(remainder: i64) -> Self {
        let remainder = Remainder::new(remainder).unwrap();
        let account = Account { balance: Some(Credits::new(1000)), remainder, ..Account::default() };
        let (charges, groups, members) = Default::default();
        Desk { charges, groups, members, open: Vec::new(), account, ids: RecordIds::new() }
    }

    fn charge_at_rate(&mut self, second: i64, name: &str, price: i64, rate: &str) -> ChargeKey {
        let price = self.price(price, rate);
        let (moved, after) = credits_to_move(price.credits, self.account.remainder, Rounding::Carry).unwrap();
        let key = ChargeKey { call_second: second, id: RecordId::parse(name).unwrap() };
        let booked = BookedCharge {
            user_id: user(),
            has_user: true,
            model: "sora-2".into(),
            price,
            remainder_before: self.account.remainder,
            remainder_after: after,
            rounding: Some(Rounding::Carry),
            refunded: CreditFemtos::ZERO,
        };
        self.account.balance = Some(self.account.balance.unwrap().checked_sub(moved).unwrap());
        self.account.remainder = after;
        let charge = TaskCharge { token: token(), units: price.units, is_free: true, is_tied: false };
        self.charges.insert(key.clone(), (charge, booked));
        key
    }

    /// Quota per dollar is 3 in these books, so that hardly a price is whole.
    fn price(&self, price: i64, rate: &str) -> ExactPrice {
        let (rate, quota_per_unit) = (Rate::parse(rate).unwrap(), QuotaPerUnit::new(3).unwrap());
        let none = ExactPrice { units: Some(units(price)), credits: CreditFemtos::ZERO, rate, quota_per_unit };
        ExactPrice { credits: none.of_units(units(price)).unwrap(), ..none }
    }

    fn charge(&mut self, second: i64, name: &str, price: i64) -> ChargeKey {
        self.charge_at_rate(second, name, price, RATE)
    }

    /// A further charge of a task, by a row that says what the submission cost.
    fn costs_more(&mut self, second: i64, id: &str, more: i64, submission: i64) {
        let claim = self.charge(second, &format!("more-{id}-{second}"), more);
        self.charges.get_mut(&claim).unwrap().0.is_free = false;
        self.row(second, id, None, submission, Some(claim));
    }

    fn asks_back(&mut self, second: i64, id: &str, back: i64, submission: i64) {
        self.row(second, id, Some(back), submission, None);
    }

    fn row(&mut self, second: i64, id: &str, back: Option<i64>, stated: i64, claim: Option<ChargeKey>) {
        let identity = row_at(second, &format!("{id}-{}", back.is_some()));
        let refund = back.map(|back| AskedBack { units: Some(units(back)), reason: None });
        let is_refund = refund.is_some();
        let member = TaskMember { identity: identity.clone(), is_refund, is_submission: false, claim, units: None };
        self.members.entry(task(id)).or_default().push(member);
        let (token, model, task_id) = (token(), "sora-2".into(), Some(id.into()));
        let stated_units = Some(units(stated));
        self.open.push(TaskRow { identity, token, model, task_id, stated_units, refund, open_reason: None });
    }

    /// The row of the submission is read, and names the task.
    fn names_task(&mut self, charge: &ChargeKey, id: &str) {
        let identity = row_at(charge.call_second, charge.id.as_str());
        let (claim, units) = (Some(charge.clone()), self.charges[charge].0.units);
        let member = TaskMember { identity, is_refund: false, is_submission: true, claim, units };
        self.members.entry(task(id)).or_default().push(member);
        self.charges.get_mut(charge).unwrap().0.is_free = self.groups.contains_key(&task(id));
    }

    /// Plans every open row and keeps what came of it. How many were given back.
    fn settle(&mut self) -> u64 {
        self.open.sort_by(|one, other| one.order().cmp(&other.order()));
        let mut snapshot = TaskSnapshot {
            rows: self.open.clone(),
            groups: self.groups.clone(),
            members: self.members.clone(),
            ..TaskSnapshot::default()
        };
        for (key, (charge, booked)) in &self.charges {
            let is_tied = self.groups.values().any(|tied| tied == key);
            let is_free = charge.is_free && !is_tied;
            snapshot.charges.insert(key.clone(), TaskCharge { is_free, is_tied, ..charge.clone() });
            snapshot.books.charges.insert(key.clone(), booked.clone());
        }
        snapshot.books.accounts.insert(user(), self.account.clone());
        let plan = plan_task_refunds(snapshot, Rounding::Carry, UnixMillis::new(NOW), &self.ids);
        for (request, refund) in &plan.books.refunds {
            let (_, booked) = self.charges.get_mut(&request.charge).unwrap();
            booked.refunded = booked.refunded.checked_add(refund.amount).unwrap();
        }
        for change in &plan.books.accounts {
            self.account.balance = Some(self.account.balance.unwrap().checked_add(change.balance_delta).unwrap());
            self.account.remainder = change.remainder;
        }
        self.groups.extend(plan.groups);
        for (identity, state) in plan.rows {
            let row = self.open.iter_mut().find(|row| row.identity == identity).unwrap();
            match state {
                TaskRowState::Open { reason, is_tried: true } => row.open_reason = Some(reason),
                _ => self.open.retain(|row| row.identity != identity),
            }
        }
        plan.refunded
    }

    fn account(&self) -> (i64, i64) {
        (self.account.balance.unwrap().get(), self.account.remainder.get())
    }

    fn left(&self) -> CreditFemtos {
        let sum = |sum: CreditFemtos, (_, booked): &(TaskCharge, BookedCharge)| sum.checked_add(booked.left()).unwrap();
        self.charges.values().fold(CreditFemtos::ZERO, sum)
    }

    fn reason(&self) -> &str {
        self.open[0].open_reason.as_deref().unwrap_or_default()
    }
}

#[test]
fn the_newest_charge_of_a_partly_given_back_task_is_not_another_tasks() {
    let mut desk = Desk::new(0);
    desk.charge(1, "c1", 10);
    desk.charge(2, "c2", 10);
    desk.asks_back(3, "a", 4, 10);
    desk.asks_back(4, "b", 10, 10);
    desk.asks_back(5, "a", 6, 6);
    assert_eq!(desk.settle(), 3);
    assert_eq!((desk.account(), desk.left()), ((1000, 0), CreditFemtos::ZERO));
}

#[test]
fn each_task_is_given_back_once_and_what_comes_twice_stays_open() {
    let mut desk = Desk::new(0);
    desk.charge(1, "c1", 10);
    desk.asks_back(2, "a", 10, 10);
    desk.asks_back(3, "a", 10, 10);
    desk.asks_back(4, "b", 10, 10);
    assert_eq!(desk.settle(), 1);
    assert_eq!(desk.settle(), 0);
    assert_eq!(desk.account(), (1000, 0));
    assert_eq!(desk.reason(), StaysOpen::NotEnough.to_string());
    assert_eq!(desk.open[1].open_reason.as_deref(), Some(&*StaysOpen::NoCharge.to_string()));
}

#[test]
fn a_charge_that_another_task_was_given_before_its_row_was_read_is_stood_in_for_by_that_tasks_own() {
    let mut desk = Desk::new(0);
    let (first, second) = (desk.charge(1, "first", 10), desk.charge(2, "second", 10));
    desk.asks_back(3, "a", 10, 10);
    assert_eq!(desk.settle(), 1, "of the second charge, which is newer");
    desk.names_task(&first, "a");
    desk.names_task(&second, "b");
    desk.asks_back(4, "a", 10, 10);
    assert_eq!(desk.settle(), 0, "it is given back already");
    desk.asks_back(5, "b", 6, 6);
    desk.asks_back(6, "b", 4, 10);
    assert_eq!(desk.settle(), 2);
    assert_eq!((desk.account(), desk.left()), ((1000, 0), CreditFemtos::ZERO));
}

#[test]
fn a_charge_after_the_refund_is_not_its_own_and_one_of_the_same_second_is() {
    let mut desk = Desk::new(0);
    desk.charge(3, "late", 10);
    desk.asks_back(2, "a", 10, 10);
    assert_eq!(desk.settle(), 0);
    desk.charge(2, "same", 10);
    assert_eq!(desk.settle(), 1);
    assert_eq!(desk.left(), desk.price(10, RATE).credits);
}

#[test]
fn later_rows_wait_for_the_first_one_of_their_task() {
    let mut desk = Desk::new(0);
    desk.charge(1, "other", 6);
    desk.asks_back(3, "a", 4, 10);
    desk.asks_back(4, "a", 6, 6);
    assert_eq!(desk.settle(), 0, "6 is the price of another task");
    assert_eq!(desk.open[1].open_reason.as_deref(), Some(&*StaysOpen::FirstRowOpen.to_string()));
    desk.charge(2, "c", 10);
    assert_eq!(desk.settle(), 2);
    assert_eq!(desk.left(), desk.price(6, RATE).credits);
}

#[test]
fn a_further_charge_makes_room_for_a_full_refund() {
    let mut desk = Desk::new(0);
    desk.charge(1, "c", 10);
    desk.asks_back(4, "a", 14, 14);
    desk.costs_more(3, "a", 4, 10);
    assert_eq!(desk.settle(), 1);
    assert_eq!((desk.account(), desk.left(), desk.open.len()), ((1000, 0), CreditFemtos::ZERO, 0));
}

#[test]
fn charges_that_differ_are_for_a_person_even_when_one_of_them_goes() {
    let mut desk = Desk::new(0);
    let first = desk.charge(1, "c1", 10);
    desk.charge_at_rate(2, "c2", 10, "2000");
    desk.asks_back(3, "a", 10, 10);
    assert_eq!((desk.settle(), desk.open.len()), (0, 0));
    let booked = &mut desk.charges.get_mut(&first).unwrap().1;
    booked.refunded = booked.price.credits;
    desk.asks_back(4, "a", 10, 10);
    assert_eq!(desk.settle(), 0, "the group of a row that is for a person is not tied by a later one");
    let mut old = Desk::new(0);
    old.charge_at_rate(1, "c1", 10, "2000");
    old.charge(COMPARED_SECS + 2, "c2", 10);
    old.asks_back(COMPARED_SECS + 3, "a", 10, 10);
    assert_eq!(old.settle(), 1, "what lies days back is another task");
}

#[test]
fn a_user_whose_row_is_held_is_left_for_later() {
    let mut desk = Desk::new(0);
    let charge = desk.charge(1, "c", 10);
    desk.asks_back(2, "a", 10, 10);
    let (task_charge, booked) = desk.charges[&charge].clone();
    let books = RefundSnapshot { charges: HashMap::from([(charge.clone(), booked)]), ..RefundSnapshot::default() };
    let snapshot = TaskSnapshot {
        rows: desk.open.clone(),
        members: desk.members.clone(),
        charges: HashMap::from([(charge, task_charge)]),
        books,
        busy_users: HashSet::from([user()]),
        ..TaskSnapshot::default()
    };
    let plan = plan_task_refunds(snapshot, Rounding::Carry, UnixMillis::new(NOW), &desk.ids);
    assert_eq!((plan.refunded, plan.still_open, plan.rows.len(), plan.books.refunds.len()), (0, 1, 0, 0));
}

#[test]
fn a_charge_in_credits_gives_back_the_share_of_its_row_and_at_the_end_all() {
    let mut desk = Desk::new(0);
    let charge = desk.charge(1, "c", 3);
    desk.charges.get_mut(&charge).unwrap().1.price.units = None;
    for second in [2, 3, 4] {
        desk.asks_back(second, "a", 1, 3);
    }
    assert_eq!(desk.settle(), 3);
    assert_eq!((desk.account(), desk.left()), ((1000, 0), CreditFemtos::ZERO));
}

/// What happens to a task of the property: its price, what is charged beside it, the parts that come back.
#[derive(Debug, Clone)]
struct Story {
    price: i64,
    more: Option<i64>,
    parts: Vec<i64>,
}

fn story() -> impl Strategy<Value = Story> {
    let parts = prop::collection::vec(1..40_i64, 0..4);
    (prop::sample::select(vec![7_i64, 10, 1000]), prop::option::of(1..50_i64), parts)
        .prop_map(|(price, more, parts)| Story { price, more, parts })
}

proptest! {
    #[test]
    fn charges_and_full_refunds_leave_the_books_as_they_were(
        stories in prop::collection::vec(story(), 1..8),
        remainder in 0..1_000_000_000_000_000_i64,
        late in 0..8_usize,
        settled_between in any::<bool>(),
    ) {
        let mut desk = Desk::new(remainder);
        let before = desk.account();
        for (place, story) in stories.iter().enumerate().filter(|(place, _)| *place != late) {
            desk.charge(1 + i64::try_from(place).unwrap(), &format!("c{place}"), story.price);
        }
        let mut second = 100;
        let mut asked = 0;
        for (place, story) in stories.iter().enumerate() {
            let id = format!("t{place}");
            let mut left = story.price;
            second += 1;
            if let Some(more) = story.more {
                desk.costs_more(second, &id, more, story.price);
                left += more;
            }
            let fits = |part: &i64| {
                left -= part;
                left > 0
            };
            let mut parts: Vec<i64> = story.parts.iter().copied().take_while(fits).collect();
            let given: i64 = parts.iter().sum();
            parts.push(story.price + story.more.unwrap_or(0) - given);
            for part in parts {
                second += 1;
                desk.asks_back(second, &id, part, story.price);
                asked += 1;
                if settled_between {
                    desk.settle();
                }
            }
        }
        // A charge that is booked after its refund was read.
        if let Some(story) = stories.get(late) {
            desk.settle();
            desk.charge(1 + i64::try_from(late).unwrap(), "late", story.price);
        }
        while desk.settle() > 0 {}
        prop_assert_eq!(desk.open.len(), 0, "{} asked, open: {:?}", asked, desk.open);
        prop_assert_eq!(desk.left(), CreditFemtos::ZERO);
        prop_assert_eq!(desk.account(), before);
    }

    #[test]
    fn never_is_more_given_back_than_was_taken(
        prices in prop::collection::vec(1..5_i64, 0..6),
        refunds in prop::collection::vec((1..10_i64, 0..4_u8, 1..5_i64, 1..5_i64), 0..12),
    ) {
        let mut desk = Desk::new(0);
        for (place, price) in prices.iter().enumerate() {
            desk.charge(1 + i64::try_from(place).unwrap(), &format!("c{place}"), *price);
        }
        let charged = desk.account();
        let taken = desk.left();
        for (place, (second, id, back, stated)) in refunds.iter().enumerate() {
            let second = second * 20 + i64::try_from(place).unwrap();
            desk.asks_back(second, &format!("t{id}"), *back, *stated);
            desk.settle();
        }
        let given = taken.checked_sub(desk.left()).unwrap();
        let (moved, rest) = credits_to_give_back(given, Remainder::new(charged.1).unwrap()).unwrap();
        prop_assert_eq!(desk.account(), (charged.0 + moved.get(), rest.get()));
        prop_assert!(desk.account().0 <= 1000);
    }
}
