//! From what a person asks about disputes to what the ledger is to carry out, and to words about what came of it. The
//! same for every database; what a decision books is decided in `domain`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::books::{BooksError, bounded};
use super::disputes::{
    AlikeView, Decided, DisputeFilter, DisputeKind, DisputeView, FoundDispute, FoundRow, NewDismissal, NewOwnCharge,
    NewTie,
};
use super::stored::usage_event;
use super::{Store, StoreError, log_content};
use crate::domain::decision::{Decision, DecisionOutcome, DecisionRefusal, Subject, Verdict, parse_row_id, row_id};
use crate::domain::event::UsageEvent;
use crate::domain::ids::{RecordId, RemoteKeyId};
use crate::domain::log_row::RowIdentity;
use crate::domain::log_snapshot::{LogSnapshot, NumberedRow, RowState};
use crate::domain::matching::{Place, Standing};
use crate::domain::money::QuotaUnits;
use crate::domain::outcome::{Failure, InboxStatus};
use crate::domain::ownership::Owner;
use crate::domain::pricing::{Price, PriceBook};
use crate::domain::settlement::Batch;
use crate::domain::side::SideIdentity;

/// Keys that one user may have for a list of his disputes.
const MOST_KEYS: u32 = 100_000;

/// Disputes that lie further apart are looked up by themselves, so that nothing between them is read.
const APART: Duration = Duration::from_secs(3600);

/// Disputes whose neighbours are looked up together.
const PAGE: usize = 500;

const TIED: &str = "tied";
const CHARGED: &str = "charged";
const DISMISSED: &str = "dismissed";

/// What a person must decide, newest calls first.
pub async fn list(store: &dyn Store, filter: DisputeFilter, limit: u32) -> Result<Vec<DisputeView>, BooksError> {
    let mut tokens = filter.remote_id.map(|token| vec![token]);
    if let Some(user) = filter.user {
        let keys = store.keys(Some(user), MOST_KEYS).await?;
        let own: BTreeSet<i64> = keys
            .iter()
            .filter_map(|key| RemoteKeyId::parse(key.remote_key_id.as_deref()?))
            .map(RemoteKeyId::get)
            .collect();
        tokens = Some(match tokens {
            Some(tokens) => tokens.into_iter().filter(|token| own.contains(token)).collect(),
            None => own.into_iter().collect(),
        });
    }
    let mut found = store.open_disputes(tokens, limit).await?;
    found.sort_by_key(|dispute| std::cmp::Reverse(dispute.subject.called_at()));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let tokens: BTreeSet<RemoteKeyId> = found.iter().map(|dispute| dispute.subject.token()).collect();
    let owners = store.owners(&tokens.into_iter().collect::<Vec<_>>()).await?;
    let mut views = Vec::with_capacity(found.len());
    for page in pages(&found) {
        let decision = |dispute: &FoundDispute| Decision { subject: dispute.subject.clone(), verdict: Verdict::Charge };
        let batch = Batch { decisions: page.iter().map(decision).collect(), ..Batch::default() };
        let (log, prices) = store.near(&batch).await?;
        views.extend(page.iter().map(|dispute| view(dispute, &log, &prices, &owners)));
    }
    Ok(views)
}

/// Disputes that lie near each other, in their order.
fn pages(found: &[FoundDispute]) -> impl Iterator<Item = &[FoundDispute]> {
    let near =
        |one: &FoundDispute, other: &FoundDispute| one.subject.called_at().since(other.subject.called_at()) <= APART;
    found.chunk_by(near).flat_map(|cluster| cluster.chunks(PAGE))
}

fn view(
    dispute: &FoundDispute,
    log: &LogSnapshot,
    prices: &PriceBook,
    owners: &HashMap<RemoteKeyId, Owner>,
) -> DisputeView {
    let subject = &dispute.subject;
    let called_at = subject.called_at();
    let (model, prompt_tokens, completion_tokens, price) = match subject {
        Subject::Event(event) => {
            let tokens = event.content.tokens;
            (event.content.model.to_string(), tokens.prompt.into(), tokens.completion.into(), Some(event.content.price))
        }
        Subject::Row(row) => {
            let price = QuotaUnits::new(row.row.quota_units).map(Price::Quota);
            (row.row.model.to_string(), row.row.prompt_tokens, row.row.completion_tokens, price)
        }
    };
    let quota = match subject {
        Subject::Event(_) => price.and_then(Price::units).map(QuotaUnits::get),
        Subject::Row(row) => Some(row.row.quota_units),
    };
    let (user_id, key_id) = match owners.get(&subject.token()) {
        Some(Owner::One(holder)) => (Some(holder.user_id.to_string()), Some(holder.key_id.to_string())),
        _ => (None, None),
    };
    DisputeView {
        id: id_of(subject),
        kind: dispute.kind,
        remote_key_id: subject.token().get(),
        user_id,
        key_id,
        called_at: called_at.to_column(),
        model,
        prompt_tokens,
        completion_tokens,
        quota,
        price: price.and_then(|price| prices.price(price, called_at).ok()).map(|price| price.credits.to_string()),
        reason: dispute.reason.clone(),
        since: dispute.since.to_column(),
        alike: place_of(subject, log).and_then(|place| alike(place, log)),
    }
}

fn id_of(subject: &Subject) -> String {
    match subject {
        Subject::Event(event) => event.event_id.to_string(),
        Subject::Row(row) => row_id(&row.identity),
    }
}

fn place_of(subject: &Subject, log: &LogSnapshot) -> Option<Place> {
    match subject {
        Subject::Event(event) => log.open_events.get(&event.event_id).map(|side| side.place),
        Subject::Row(row) => log.open_rows.get(&row.identity).map(|side| side.place),
    }
}

fn alike(place: Place, log: &LogSnapshot) -> Option<AlikeView> {
    let node = log.neighbours.node(log.neighbours.alike(place, &log.policy)?);
    let Standing::Charged(charge) = &node.standing else { return None };
    Some(AlikeView {
        charge_id: charge.id.to_string(),
        id: match &node.identity {
            SideIdentity::Event { event_id, .. } => event_id.to_string(),
            SideIdentity::Row { row, .. } => row_id(row),
        },
        called_at: node.facts.at.to_column(),
        model: node.facts.model.to_string(),
        quota: node.facts.units.map(QuotaUnits::get),
        price: node.facts.credits.to_string(),
    })
}

/// Joins a dispute and the charge beside it.
pub async fn tie(store: &dyn Store, new: NewTie) -> Result<Decided, BooksError> {
    let with = match new.with {
        Some(id) => Some(RecordId::parse(&id).map_err(|error| BooksError::Invalid(format!("the charge {error}")))?),
        None => None,
    };
    decide(store, new.id, Verdict::Tie { with }).await
}

/// Charges a dispute as a call of its own.
pub async fn charge(store: &dyn Store, new: NewOwnCharge) -> Result<Decided, BooksError> {
    decide(store, new.id, Verdict::Charge).await
}

/// Closes a dispute without a charge.
pub async fn dismiss(store: &dyn Store, new: NewDismissal) -> Result<Decided, BooksError> {
    let reason = match &new.reason {
        Some(reason) => Some(Arc::from(bounded("reason", reason)?)),
        None => None,
    };
    decide(store, new.id, Verdict::Dismiss { reason }).await
}

/// What an id names.
enum Named {
    Event(Arc<UsageEvent>),
    Row(RowIdentity),
}

/// What something is now.
struct State {
    name: &'static str,
    charge_id: Option<String>,
}

async fn decide(store: &dyn Store, id: String, verdict: Verdict) -> Result<Decided, BooksError> {
    let refused = |refusal| BooksError::Undecided { id: id.clone(), refusal };
    let (named, subject) = find(store, &id).await?;
    let outcome = match subject {
        Some(subject) => match store.decide(Decision { subject, verdict: verdict.clone() }).await {
            Err(BooksError::Store(StoreError::Refused(reason))) => {
                return Err(refused(DecisionRefusal::NotChargeable(reason)));
            }
            outcome => outcome?,
        },
        None => DecisionOutcome::Settled,
    };
    let (credits, repeated) = match outcome {
        DecisionOutcome::Done { credits } => (credits.get(), false),
        DecisionOutcome::Settled => (0, true),
        DecisionOutcome::Refused(DecisionRefusal::Busy) => {
            return Err(StoreError::Unavailable(format!("{id} {}", DecisionRefusal::Busy)).into());
        }
        DecisionOutcome::Refused(refusal) => return Err(refused(refusal)),
    };
    let State { name, charge_id } = state(store, &named).await?;
    let is_so = match verdict {
        Verdict::Tie { with } => name == TIED && with.is_none_or(|with| charge_id.as_deref() == Some(with.as_str())),
        Verdict::Charge => name == CHARGED,
        Verdict::Dismiss { .. } => name == DISMISSED,
    };
    if repeated && !is_so {
        return Err(refused(DecisionRefusal::Settled(name)));
    }
    Ok(Decided { id, state: name.to_owned(), charge_id, credits, repeated })
}

/// What an id names, whole while it is open.
async fn find(store: &dyn Store, id: &str) -> Result<(Named, Option<Subject>), BooksError> {
    let nothing = || BooksError::NoSuchDispute(id.to_owned());
    if let Some(identity) = parse_row_id(id) {
        let FoundRow { content, .. } = store.row(&identity).await?.ok_or_else(nothing)?;
        let row = content.as_deref().and_then(log_content::read);
        let subject = row.map(|row| Subject::Row(Arc::new(NumberedRow { identity: identity.clone(), row })));
        return Ok((Named::Row(identity), subject));
    }
    let detail = store.event(id.to_owned()).await.map_err(|error| match error {
        BooksError::NoSuchEvent(_) => nothing(),
        other => other,
    })?;
    let event = Arc::new(usage_event(&detail.payload).ok_or_else(nothing)?);
    Ok((Named::Event(event.clone()), Some(Subject::Event(event))))
}

async fn state(store: &dyn Store, named: &Named) -> Result<State, BooksError> {
    match named {
        Named::Row(identity) => {
            let row = store.row(identity).await?;
            let name = row.as_ref().and_then(|row| RowState::parse(&row.state)).map_or("gone", RowState::as_str);
            Ok(State { name, charge_id: row.and_then(|row| row.claim_id) })
        }
        Named::Event(event) => {
            if let Some(claim) = store.claim_of_event(&event.event_id, event.content.called_at).await? {
                let name = if claim.has_row { TIED } else { CHARGED };
                return Ok(State { name, charge_id: Some(claim.claim_id) });
            }
            let event = store.event(event.event_id.to_string()).await?.event;
            let is_dismissed = event.error_message.as_deref().is_some_and(Failure::is_dismissed);
            let name = match InboxStatus::parse(&event.status) {
                Some(InboxStatus::Processed) if is_dismissed => DISMISSED,
                Some(status) => status.as_str(),
                None => "gone",
            };
            Ok(State { name, charge_id: None })
        }
    }
}

/// A row that could not be booked, by the id that a person gives it.
pub async fn failed_row(store: &dyn Store, identity: RowIdentity) -> Result<Option<NumberedRow>, StoreError> {
    let found = store.row(&identity).await?.filter(|row| row.state == RowState::Failed.as_str());
    let row = found.and_then(|row| log_content::read(row.content.as_deref()?));
    Ok(row.map(|row| NumberedRow { identity, row }))
}

/// The kind of an open row; none where no person is asked.
pub fn kind_of_row(state: &str) -> Option<DisputeKind> {
    match RowState::parse(state)? {
        RowState::Disputed => Some(DisputeKind::Row),
        RowState::Failed => Some(DisputeKind::Failed),
        RowState::RefundOpen => Some(DisputeKind::Refund),
        _ => None,
    }
}
