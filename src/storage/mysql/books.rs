//! What operators ask and do, on the platform's database.

use std::sync::Arc;

use async_trait::async_trait;

use super::refunds;
use super::{MysqlStore, books_read, books_write, charges, inbox, tokens};
use crate::domain::refund::{ChargeKey, RefundOutcome, RefundRequest};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::{
    Books, BooksError, Created, CreditsView, EventDetail, EventFilter, EventView, Granted, Ignored, KeyBalance,
    KeySelector, KeyView, NewAdjustment, NewGrant, NewIgnore, NewKey, NewUser, TransactionView, UnmatchedToken,
    UserView,
};
use crate::storage::charges::{ChargeDetail, ChargeFilter, ChargeSelector, ChargeView};
use crate::storage::repair::{NewRepair, Repaired};
use crate::storage::rows::parameter;

/// The platform makes users, keys and credits itself: whoever does it here has to mean it.
fn is_meant(platform_database: bool) -> Result<(), BooksError> {
    if platform_database { Ok(()) } else { Err(BooksError::PlatformsOwn) }
}

#[async_trait]
impl Books for MysqlStore {
    async fn add_user(&self, user: NewUser) -> Result<Created, BooksError> {
        is_meant(user.platform_database)?;
        if user.credits != 0 {
            self.needs_whole_books()?;
        }
        self.write(move |connection, context| Box::pin(books_write::add_user(connection, context, user.clone()))).await
    }

    async fn add_key(&self, key: NewKey) -> Result<Created, BooksError> {
        is_meant(key.platform_database)?;
        self.write(move |connection, context| Box::pin(books_write::add_key(connection, context, key.clone()))).await
    }

    async fn grant(&self, grant: NewGrant) -> Result<Granted, BooksError> {
        is_meant(grant.platform_database)?;
        self.needs_whole_books()?;
        let granted = self
            .write(move |connection, context| Box::pin(books_write::grant(connection, context, grant.clone())))
            .await?;
        crate::failpoint::hit("store.grant.committed").map_err(StoreError::from)?;
        Ok(granted)
    }

    async fn adjust(&self, adjustment: NewAdjustment) -> Result<Granted, BooksError> {
        is_meant(adjustment.platform_database)?;
        self.needs_whole_books()?;
        self.write(move |connection, context| Box::pin(books_write::adjust(connection, context, adjustment.clone())))
            .await
    }

    async fn ignore_token(&self, ignore: NewIgnore) -> Result<Ignored, BooksError> {
        is_meant(ignore.platform_database)?;
        let mut total = 0;
        loop {
            let page = ignore.clone();
            let ignored: Result<Ignored, BooksError> = self
                .write(move |connection, context| {
                    let page = page.clone();
                    Box::pin(async move { tokens::ignore(connection, context, &page).await })
                })
                .await;
            let ignored = match ignored {
                // Between two pages somebody gave the token to a user: what was closed until then stays so.
                Err(BooksError::Invalid(_)) if total > 0 => {
                    return Ok(Ignored { remote_id: ignore.remote_id, is_ignored: false, closed_events: total });
                }
                ignored => ignored?,
            };
            total += ignored.closed_events;
            if !ignored.is_full_page() {
                return Ok(Ignored { closed_events: total, ..ignored });
            }
        }
    }

    async fn ignored_tokens(&self, limit: u32) -> Result<Vec<Ignored>, BooksError> {
        Ok(tokens::ignored(&self.readers, &self.context.names, limit).await?)
    }

    async fn unmatched_tokens(&self, limit: u32) -> Result<Vec<UnmatchedToken>, BooksError> {
        Ok(tokens::unmatched(&self.readers, &self.context.names, limit).await?)
    }

    async fn charges(&self, filter: ChargeFilter, limit: u32) -> Result<Vec<ChargeView>, BooksError> {
        charges::list(&self.readers, &self.context.names, filter, limit).await
    }

    async fn charge(&self, selector: ChargeSelector) -> Result<ChargeDetail, BooksError> {
        charges::detail(&self.readers, &self.context.names, selector).await
    }

    async fn charge_key(&self, selector: ChargeSelector) -> Result<ChargeKey, BooksError> {
        charges::key(&self.readers, &self.context.names, selector).await
    }

    async fn refund(&self, requests: Vec<RefundRequest>, is_dry_run: bool) -> Result<Vec<RefundOutcome>, BooksError> {
        self.needs_whole_books()?;
        let requests = Arc::new(requests);
        let outcomes: Result<Vec<RefundOutcome>, StoreError> = self
            .write(move |connection, context| {
                let requests = requests.clone();
                Box::pin(async move { refunds::refund(connection, context, &requests, is_dry_run).await })
            })
            .await;
        let outcomes = outcomes?;
        crate::failpoint::hit("store.refund.committed").map_err(StoreError::from)?;
        Ok(outcomes)
    }

    async fn begin_reversal(
        &self,
        filter: ChargeFilter,
        reason: Arc<str>,
        idempotency_key: &str,
        is_dry_run: bool,
    ) -> Result<Option<UnixMillis>, BooksError> {
        if is_dry_run {
            return Ok(Some(UnixMillis::MAX));
        }
        self.needs_whole_books()?;
        let selection = parameter(&charges::with_user_id(&self.readers, filter).await?)?;
        let key = idempotency_key.to_owned();
        self.write(move |connection, context| {
            let (key, selection, reason) = (key.clone(), selection.clone(), reason.clone());
            Box::pin(async move { refunds::begin_reversal(connection, context, &key, &selection, &reason).await })
        })
        .await
    }

    async fn finish_reversal(&self, idempotency_key: &str) -> Result<(), BooksError> {
        let key = idempotency_key.to_owned();
        self.write(move |connection, context| {
            let key = key.clone();
            Box::pin(async move { refunds::finish_reversal(connection, context, &key).await })
        })
        .await
    }

    async fn reversible(
        &self,
        filter: ChargeFilter,
        settled_until: UnixMillis,
        after: Option<ChargeKey>,
        limit: usize,
    ) -> Result<Vec<ChargeKey>, BooksError> {
        charges::reversible(&self.readers, &self.context.names, filter, settled_until, after, limit).await
    }

    async fn users(&self, limit: u32) -> Result<Vec<UserView>, BooksError> {
        Ok(books_read::users(&self.readers, limit).await?)
    }

    async fn keys(&self, user: Option<String>, limit: u32) -> Result<Vec<KeyView>, BooksError> {
        books_read::keys(&self.readers, user, limit).await
    }

    async fn credits(&self, user: String) -> Result<CreditsView, BooksError> {
        books_read::credits(&self.readers, &self.context.names, user).await
    }

    async fn key_balance(&self, key: KeySelector) -> Result<KeyBalance, BooksError> {
        books_read::key_balance(&self.balance_readers, key).await
    }

    async fn history(&self, user: String, limit: u32) -> Result<Vec<TransactionView>, BooksError> {
        books_read::history(&self.readers, user, limit).await
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<EventView>, BooksError> {
        Ok(inbox::events(&self.readers, filter).await?)
    }

    async fn event(&self, event_id: String) -> Result<EventDetail, BooksError> {
        inbox::event(&self.readers, &self.context.names, event_id).await
    }

    async fn repair(&self, page: NewRepair) -> Result<Repaired, BooksError> {
        self.repair_page(page).await
    }
}
