//! What a repair is asked and tells, in the shapes that people and programs see; their JSON names stay.
//!
//! It is done in pages, each a transaction of its own, so that it holds up nobody for long and can be cut off anywhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is put right, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RepairPart {
    /// A state that was made anew takes over the id under which the usage records were written.
    #[default]
    Installation,
    /// Claims without a usage record are booked again on the platform's side.
    Charges,
    /// Refunds without their transaction, likewise.
    Refunds,
    /// Credits that a person moved here and that have lost their transaction, likewise.
    Grants,
    /// Usage records without a claim get one.
    Claims,
    /// `REFUND` transactions without a refund of ours get one.
    GivenBack,
    /// Inbox rows are held against `webhook_logs`.
    Inbox,
    /// Waiting rows of `webhook_logs` that our inbox does not know are taken into it.
    Events,
}

impl RepairPart {
    /// What comes after it; none: it was the last.
    pub fn next(self) -> Option<RepairPart> {
        match self {
            RepairPart::Installation => Some(RepairPart::Charges),
            RepairPart::Charges => Some(RepairPart::Refunds),
            RepairPart::Refunds => Some(RepairPart::Grants),
            RepairPart::Grants => Some(RepairPart::Claims),
            RepairPart::Claims => Some(RepairPart::GivenBack),
            RepairPart::GivenBack => Some(RepairPart::Inbox),
            RepairPart::Inbox => Some(RepairPart::Events),
            RepairPart::Events => None,
        }
    }
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepairPlace {
    /// Which part of the repair.
    pub part: RepairPart,
    /// The second of the call of the last claim that was looked at; 0 elsewhere.
    #[serde(default)]
    pub second: i64,
    /// The id of the last row that was looked at.
    #[serde(default)]
    pub id: String,
}

/// One page of a repair.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRepair {
    /// Tell what would be done, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Where the last page ended.
    #[serde(default)]
    pub after: Option<RepairPlace>,
}

/// How many, and the whole credits that they moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mended {
    /// Rows.
    pub count: u64,
    /// Whole credits.
    pub credits: i64,
}

impl Mended {
    pub fn add(&mut self, other: Mended) {
        self.count += other.count;
        self.credits += other.credits;
    }
}

/// What a page came to, or a whole repair.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repaired {
    /// The books are one file, which cannot come apart: there is nothing to do.
    pub one_file: bool,
    /// The id that a state made anew took over.
    #[schema(required)]
    pub installation: Option<String>,
    /// Charges that were missing on the platform's side: usage record, transaction and balance.
    pub booked_charges: Mended,
    /// Refunds that were missing there.
    pub booked_refunds: Mended,
    /// Credits that a person had given, or corrected, with `credits grant` and `credits adjust`, and that were missing
    /// there.
    pub booked_grants: Mended,
    /// Charges that were missing in our state.
    pub rebuilt_charges: Mended,
    /// Refunds that were missing there.
    pub rebuilt_refunds: Mended,
    /// Waiting events whose body is lost with their row of `webhook_logs`: only their sender still has them.
    pub lost_events: u64,
    /// Events that waited although they were charged.
    pub closed_events: u64,
    /// Events that wait again.
    pub waiting_events: u64,
    /// What no repair brings back, where the state was made anew or is of an earlier time.
    pub not_rebuilt: Vec<String>,
    /// After the last page: what still does not belong together.
    #[schema(required)]
    pub still_apart: Option<String>,
    /// Where the next page begins; absent after the last.
    #[schema(required)]
    pub next: Option<RepairPlace>,
}

impl Repaired {
    /// Adds what a later page came to.
    pub fn add(&mut self, page: Repaired) {
        self.one_file |= page.one_file;
        self.installation = self.installation.take().or(page.installation);
        self.booked_charges.add(page.booked_charges);
        self.booked_refunds.add(page.booked_refunds);
        self.booked_grants.add(page.booked_grants);
        self.rebuilt_charges.add(page.rebuilt_charges);
        self.rebuilt_refunds.add(page.rebuilt_refunds);
        self.lost_events += page.lost_events;
        self.closed_events += page.closed_events;
        self.waiting_events += page.waiting_events;
        let fresh = page.not_rebuilt.into_iter().filter(|told| !self.not_rebuilt.contains(told));
        self.not_rebuilt.extend(fresh.collect::<Vec<_>>());
        self.still_apart = page.still_apart;
        self.next = page.next;
    }

    /// Whether nothing had to be put right.
    pub fn is_nothing(&self) -> bool {
        let booked = [self.booked_charges, self.booked_refunds, self.booked_grants];
        let mended = booked.into_iter().chain([self.rebuilt_charges, self.rebuilt_refunds]);
        self.installation.is_none()
            && mended.into_iter().all(|mended| mended.count == 0)
            && [self.lost_events, self.closed_events, self.waiting_events] == [0; 3]
    }
}
