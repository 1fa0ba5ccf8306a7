//! Puts our state and the platform's tables together again, a page at a time: which part is at work and how a page ends.
//!
//! What is missing on the platform's side is `rebooking`, on ours `rebuilding`, and what waits is `reinbox`.

use sqlx::MySqlConnection;

use super::context::Context;
use super::rebuilding::Rebuilt;
use super::shard::End;
use super::{MysqlStore, belonging, rebooking, rebuilding, reinbox};
use crate::domain::repair::{Apart, judge, own_installation};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::books::BooksError;
use crate::storage::repair::{NewRepair, RepairPart, RepairPlace, Repaired};

/// Rows that one page looks at.
pub const PAGE: usize = 500;

/// What was in the lost state and nowhere else.
const NOT_REBUILT: [&str; 6] = [
    "idempotency keys of refunds, reversals, grants and adjustments: repeated with the same key, they move credits again",
    "reasons of refunds, and their fractions of a credit: each counts with the whole credits that it moved",
    "who owned a token before: a call of before is its present owner's, as far as its key's age allows",
    "earlier rates and values of quota_per_unit: calls that are still to be charged take those of now",
    "tokens that were ignored: say so again with `hookledger key ignore`",
    "the moment of taking over: usage records of other programs count from webhook.max_age before the latest start",
];

/// What a part found on its page, and the last row that it looked at.
pub type Looked = (Repaired, Option<RepairPlace>);

impl MysqlStore {
    /// One page, in one transaction. After the last, settling goes on if all belongs together again.
    pub(super) async fn repair_page(&self, page: NewRepair) -> Result<Repaired, BooksError> {
        let (place, is_dry_run) = (page.after.unwrap_or_default(), page.dry_run);
        let ends = belonging::look(&self.readers, &self.context.names).await?;
        let present = self.context.installation.load_full();
        if let Some(apart @ Apart::Foreign { .. }) = judge(&ends, &present) {
            return Err(BooksError::Invalid(format!(
                "{apart}: it cannot be repaired from here; name that schema in database.state_schema"
            )));
        }
        let own = own_installation(&ends, &present).to_owned();
        let (part, installation) = (place.part, own.clone());
        let done: Result<Looked, StoreError> = self
            .write(move |connection, context| {
                let (place, installation) = (place.clone(), installation.clone());
                Box::pin(async move { carry_out(connection, context, &place, &installation, is_dry_run).await })
            })
            .await;
        let (mut repaired, last) = done?;
        if part == RepairPart::Installation && own != *present {
            repaired.installation = Some(own.clone());
            if !is_dry_run {
                self.context.take_installation(own);
            }
        }
        if repaired.installation.is_some() || repaired.rebuilt_charges.count + repaired.rebuilt_refunds.count > 0 {
            repaired.not_rebuilt = NOT_REBUILT.map(str::to_owned).to_vec();
        }
        repaired.next = last.or_else(|| part.next().map(|part| RepairPlace { part, ..RepairPlace::default() }));
        if repaired.next.is_none() && !is_dry_run {
            repaired.still_apart = self.look_apart().await?.map(|apart| apart.to_string());
        }
        Ok(repaired)
    }
}

async fn carry_out(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
    installation: &str,
    is_dry_run: bool,
) -> Result<End<Looked>, StoreError> {
    // What a dry run has not rebuilt counts for it as if it had.
    let rebuilt = if is_dry_run { Rebuilt::WouldBe(installation) } else { Rebuilt::Is };
    let looked = match place.part {
        RepairPart::Installation => take_over(connection, context, installation).await?,
        RepairPart::Charges => rebooking::charges(connection, context, place, installation).await?,
        RepairPart::Refunds => rebooking::refunds(connection, context, place).await?,
        RepairPart::Grants => rebooking::grants(connection, context, place).await?,
        RepairPart::Claims => rebuilding::claims(connection, context, place, installation).await?,
        RepairPart::GivenBack => rebuilding::given_back(connection, context, place, installation).await?,
        RepairPart::Inbox => reinbox::held_against_logs(connection, context, place, rebuilt).await?,
        RepairPart::Events => reinbox::taken_in(connection, context, place, rebuilt).await?,
    };
    failpoint::hit("store.repair.page")?;
    Ok(if is_dry_run { End::RollBack(looked) } else { End::Commit(looked) })
}

/// A full page is followed by another of the same part.
pub fn place_after(part: RepairPart, rows: usize, second: i64, id: &str) -> Option<RepairPlace> {
    (rows == PAGE).then(|| RepairPlace { part, second, id: id.to_owned() })
}

/// How many rows a page has, as a statement takes it.
pub fn page_rows() -> i64 {
    i64::try_from(PAGE).unwrap_or(i64::MAX)
}

async fn take_over(
    connection: &mut MySqlConnection,
    context: &Context,
    installation: &str,
) -> Result<Looked, StoreError> {
    sqlx::query(context.sql("UPDATE hookledger_meta SET value = ? WHERE name = 'installation_id'"))
        .bind(installation.to_owned())
        .execute(connection)
        .await?;
    Ok(Looked::default())
}
