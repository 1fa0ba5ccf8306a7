//! Gathers the sides near a batch, by a few looks whatever its size; which looks is decided here, for every database.
//!
//! Events look among rows that no event has told of, by their token. Rows look among the claims of their own minutes,
//! and of a wider span only where that found nothing. Everything happens under the locks of the batch.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::StoreError;
use super::chains::{self, Chain, InBucket, MOST_CHAINED, MOST_WIDENINGS, Wanted};
use super::near_claim::NearClaim;
use super::rows::parameter;
use super::stored::{self, LoggedRow, unreadable};
use crate::domain::ids::{EventId, RemoteKeyId};
use crate::domain::known::{KnownEvent, OpenEvent};
use crate::domain::log_row::{LogRow, RowDigest, RowIdentity};
use crate::domain::log_snapshot::{LogSnapshot, NumberedRow, OpenEventSide, OpenRowSide, RowState};
use crate::domain::matching::{MatchPolicy, Neighbours, Standing, TieRule, Windows, facts};
use crate::domain::planted;
use crate::domain::pricing::PriceBook;
use crate::domain::recording::WaitReason;
use crate::domain::refund::ChargeKey;
use crate::domain::settlement::Batch;
use crate::domain::side::{Channel, ConsumptionRow, Side, SideIdentity};
use crate::domain::time::UnixMillis;

/// Sides of one token that a look may bring; beyond, the rest waits for another look.
pub const MAX_OPEN_SIDES: i64 = 10_000;

/// A row of `hookledger_rows` that is open: identity, state, content.
pub struct OpenRow {
    pub identity: RowIdentity,
    pub state: String,
    pub content: String,
}

/// What each store looks up. Lists are JSON; every look is one statement.
pub trait LogLooks {
    /// Claims with an event whose second lies in the span, of these `[bucket, token, prompt, completion]`. Events of spans that
    /// agreed by their figures count as tied to rows that nobody read: they are not among them.
    async fn events_between(&mut self, from: i64, until: i64, counts: &str) -> Result<Vec<NearClaim>, StoreError>;

    /// Claims whose side in this channel has one of these request ids.
    async fn with_request_ids(&mut self, channel: Channel, ids: &str) -> Result<Vec<NearClaim>, StoreError>;

    /// Claims of a row alone, by `[bucket, token, prompt, completion, from second, until second]`; of very many, those
    /// in the middle of their span.
    async fn untied_rows(&mut self, spans: &str) -> Result<Vec<NearClaim>, StoreError>;

    /// Events that wait beside a row or are disputed, by `[token, from ms, until ms]`.
    async fn open_events(&mut self, spans: &str) -> Result<Vec<LoggedRow>, StoreError>;

    /// Rows that wait beside an event or are disputed, by `[token, from second, until second]`.
    async fn open_rows(&mut self, spans: &str) -> Result<Vec<OpenRow>, StoreError>;

    /// Of these tokens the earliest and the latest side that waits, in milliseconds.
    async fn waiting_spans(&mut self, tokens: &str) -> Result<Vec<(i64, i64, i64)>, StoreError>;

    /// States of rows by `[source, second, digest, number]`.
    async fn known_rows(&mut self, identities: &str) -> Result<Vec<(RowIdentity, String)>, StoreError>;

    /// When an event was last tied by its request id.
    async fn request_ids_tied_at(&mut self) -> Result<Option<UnixMillis>, StoreError>;

    /// When the books of another program were taken over; none where nobody wrote before.
    async fn taken_over_at(&mut self) -> Result<Option<UnixMillis>, StoreError>;
}

/// How long a tie by request id proves that this source puts the calls' own ids there.
const PROOF_LASTS: Duration = Duration::from_secs(24 * 3600);

type Counts = (i64, i32, i32);

/// Everything of the log that planning `batch` depends on.
pub async fn read(
    looks: &mut impl LogLooks,
    batch: &Batch,
    windows: Windows,
    prices: &PriceBook,
    now: UnixMillis,
) -> Result<LogSnapshot, StoreError> {
    let tied_at = looks.request_ids_tied_at().await?;
    let policy = MatchPolicy {
        match_window: windows.match_window,
        dispute_window: windows.dispute_window,
        request_ids_prove: tied_at.is_some_and(|at| now.since(at) <= PROOF_LASTS),
    };
    let (open_events, open_rows) = open_sides(looks, batch, windows).await?;
    let mut wanted = wanted_of_batch(batch, prices);
    let wanted_of = |side: &Side| facts(side, prices).ok().map(|facts| Wanted::of(side, facts, true));
    wanted.extend(open_events.iter().filter_map(|(side, ..)| wanted_of(side)));
    wanted.extend(open_rows.iter().filter_map(|(side, ..)| wanted_of(side)));
    let mut claims = Claims::default();
    near_requests(looks, batch, &open_events, &open_rows, &mut claims).await?;
    // Whoever has to give its partner up looks for another.
    wanted.extend(claims.displaced());
    near_events(looks, &wanted, windows, &mut claims).await?;
    near_rows(looks, &wanted, windows, &mut claims).await?;
    along_chains(looks, &wanted, windows, &mut claims).await?;
    let mut snapshot = LogSnapshot {
        policy,
        neighbours: Neighbours::default(),
        charges: HashMap::new(),
        known_rows: known_rows(looks, batch).await?,
        open_events: HashMap::new(),
        open_rows: HashMap::new(),
        taken_over_at: if batch.all_rows().next().is_none() { None } else { looks.taken_over_at().await? },
    };
    claims.put_into(&mut snapshot);
    for (side, event_id, open, is_disputed) in open_events {
        let Ok(facts) = facts(&side, prices) else { continue };
        let place = snapshot.neighbours.add(side.identity(), facts, Standing::Open(side), false);
        snapshot.open_events.insert(event_id, OpenEventSide { place, open, is_disputed });
    }
    for (side, identity, row, is_disputed) in open_rows {
        let Ok(facts) = facts(&side, prices) else { continue };
        let place = snapshot.neighbours.add(side.identity(), facts, Standing::Open(side), false);
        snapshot.open_rows.insert(identity, OpenRowSide { place, row, is_disputed });
    }
    Ok(snapshot)
}

fn wanted_of_batch(batch: &Batch, prices: &PriceBook) -> Vec<Wanted> {
    let events = batch.all_events().map(|event| Side::Event(event.clone()));
    let rows = batch.all_rows().filter_map(|row| {
        let side = ConsumptionRow::parse(row.identity.clone(), &row.row).ok()?;
        Some(Side::Row(Arc::new(side)))
    });
    events.chain(rows).filter_map(|side| Some(Wanted::of(&side, facts(&side, prices).ok()?, false))).collect()
}

/// Claims near the batch, each once.
#[derive(Default)]
struct Claims {
    by_key: HashMap<ChargeKey, NearClaim>,
}

impl Claims {
    fn add(&mut self, found: Vec<NearClaim>) {
        self.by_key.extend(found.into_iter().map(|claim| (claim.key.clone(), claim)));
    }

    fn put_into(self, snapshot: &mut LogSnapshot) {
        // In the order of the calls, so that a plan does not depend on how they were found.
        let ordered: BTreeMap<(i64, String), NearClaim> =
            self.by_key.into_values().map(|claim| ((claim.key.call_second, claim.key.id.to_string()), claim)).collect();
        for claim in ordered.into_values() {
            let standing = Standing::Charged(claim.key.clone());
            let mut put = |side: &Option<(_, UnixMillis)>| {
                let (identity, at) = side.clone()?;
                let place = snapshot.neighbours.add(identity, claim.facts(at), standing.clone(), claim.is_adopted);
                Some(place)
            };
            if let (Some(event), Some(row)) = (put(&claim.event), put(&claim.row)) {
                // What does not say why stays as it is.
                let rule = claim.rule.unwrap_or(TieRule::Person);
                snapshot.neighbours.join(event, row, rule);
            }
            if !claim.is_adopted {
                snapshot.charges.insert(claim.key, claim.charge);
            }
        }
    }

    /// Both sides of claims that rest on agreement, where one of them has a request id that was looked for.
    fn displaced(&self) -> Vec<Wanted> {
        let by_agreement = self.by_key.values().filter(|claim| claim.rule == Some(TieRule::Agreement));
        let sides = by_agreement.flat_map(|claim| {
            let side = |side: &Option<(SideIdentity, UnixMillis)>| {
                let (identity, at) = side.as_ref()?;
                Some(Wanted { facts: claim.facts(*at), channel: identity.channel(), is_open: false })
            };
            [side(&claim.event), side(&claim.row)]
        });
        sides.flatten().collect()
    }

    /// How many claims without the other side may be its partner, within the window or at any distance.
    fn free(&self, wanted: &Wanted, window: Option<Duration>) -> usize {
        let apart = |at: UnixMillis| u128::from(at.as_millis().abs_diff(wanted.at().as_millis()));
        let is_within = |at: UnixMillis| window.is_none_or(|window| apart(at) <= window.as_millis());
        let equal = self.by_key.values().filter(|claim| wanted.equals(claim));
        equal.filter(|claim| wanted.free_side_of(claim).is_some_and(is_within)).count()
    }

    /// Whether each of the equal sides that are put in together may have a partner of its own near it.
    fn has_enough(&self, wanted: &Wanted, all: &[Wanted], window: Duration) -> bool {
        let rivals = all.iter().filter(|other| wanted.is_rival(other)).count();
        self.free(wanted, Some(window)) >= rivals.max(1)
    }
}

/// Events near the rows.
async fn near_events(
    looks: &mut impl LogLooks,
    wanted: &[Wanted],
    windows: Windows,
    claims: &mut Claims,
) -> Result<(), StoreError> {
    let rows: Vec<&Wanted> = wanted.iter().filter(|side| side.channel == Channel::Log).collect();
    // One step of rearranging reaches this far.
    between(looks, &rows, windows.match_window, windows, claims).await?;
    let lonely: Vec<&Wanted> =
        rows.into_iter().filter(|side| !claims.has_enough(side, wanted, windows.match_window)).collect();
    between(looks, &lonely, windows.dispute_window, windows, claims).await
}

async fn between(
    looks: &mut impl LogLooks,
    sides: &[&Wanted],
    reach: Duration,
    windows: Windows,
    claims: &mut Claims,
) -> Result<(), StoreError> {
    let (Some(first), Some(last)) =
        (sides.iter().map(|side| side.at()).min(), sides.iter().map(|side| side.at()).max())
    else {
        return Ok(());
    };
    // Claims lie where their event does, and the row within reach may be that of an event beyond it.
    let reach = reach + windows.match_window;
    let (from, until) = (first.minus(reach).as_secs(), last.plus(reach).as_secs());
    let list: BTreeSet<InBucket> = sides.iter().flat_map(|side| side.in_buckets(reach)).collect();
    claims.add(looks.events_between(from, until, &parameter(&list)?).await?);
    Ok(())
}

/// Rows near the events: those without one of their own, and where that is not enough, those that might be rearranged.
async fn near_rows(
    looks: &mut impl LogLooks,
    wanted: &[Wanted],
    windows: Windows,
    claims: &mut Claims,
) -> Result<(), StoreError> {
    let events: Vec<&Wanted> = wanted.iter().filter(|side| side.channel == Channel::Webhook).collect();
    // What is free at the end of a chain is known from afar.
    let reach = windows.dispute_window * 2_u32.pow(MOST_WIDENINGS);
    let mut spans: BTreeMap<Counts, (i64, i64)> = BTreeMap::new();
    for event in &events {
        let (from, until) = (event.at().minus(reach).as_secs(), event.at().plus(reach).as_secs());
        let span = spans.entry(event.counts()).or_insert((from, until));
        *span = (span.0.min(from), span.1.max(until));
    }
    if spans.is_empty() {
        return Ok(());
    }
    let in_span = |(bucket, token, prompt, completion): InBucket| {
        let (from, until) = spans[&(token, prompt, completion)];
        (bucket, token, prompt, completion, from, until)
    };
    let list: BTreeSet<_> = events.iter().flat_map(|event| event.in_buckets(reach)).map(in_span).collect();
    claims.add(looks.untied_rows(&parameter(&list)?).await?);
    let is_stretched = |side: &&Wanted| {
        let is_anywhere = claims.free(side, None) > 0 || wanted.iter().any(|other| side.may_have(other));
        is_anywhere && !claims.has_enough(side, wanted, windows.match_window)
    };
    let stretched: Vec<&Wanted> = events.into_iter().filter(is_stretched).collect();
    between(looks, &stretched, windows.dispute_window, windows, claims).await
}

/// Looks further where a chain of equal calls goes on, until it leads to a partner or ends.
async fn along_chains(
    looks: &mut impl LogLooks,
    wanted: &[Wanted],
    windows: Windows,
    claims: &mut Claims,
) -> Result<(), StoreError> {
    let mut looked = windows.dispute_window;
    for _ in 0..MOST_WIDENINGS {
        let is_cut_off = |side: &&Wanted| {
            chains::follow(side, claims.by_key.values(), wanted, windows.match_window, looked) == Chain::IsCutOff
        };
        let cut_off: Vec<&Wanted> = wanted.iter().filter(is_cut_off).collect();
        if cut_off.is_empty() || claims.by_key.len() > MOST_CHAINED {
            break;
        }
        looked *= 2;
        between(looks, &cut_off, looked, windows, claims).await?;
    }
    Ok(())
}

type OpenEventParts = (Side, EventId, OpenEvent, bool);
type OpenRowParts = (Side, RowIdentity, Arc<LogRow>, bool);

async fn near_requests(
    looks: &mut impl LogLooks,
    batch: &Batch,
    open_events: &[OpenEventParts],
    open_rows: &[OpenRowParts],
    claims: &mut Claims,
) -> Result<(), StoreError> {
    let events = batch.all_events().filter_map(|event| event.request_id.clone());
    let open = open_events.iter().filter_map(|(side, ..)| side.identity().request_id().cloned());
    let of_events: BTreeSet<String> = events.chain(open).map(|id| id.to_string()).collect();
    if !of_events.is_empty() {
        claims.add(looks.with_request_ids(Channel::Log, &parameter(&of_events)?).await?);
    }
    let rows = batch.all_rows().filter_map(|row| row.row.request_id.clone());
    let open = open_rows.iter().filter_map(|(side, ..)| side.identity().request_id().cloned());
    let of_rows: BTreeSet<String> = rows.chain(open).map(|id| id.to_string()).collect();
    if !of_rows.is_empty() {
        claims.add(looks.with_request_ids(Channel::Webhook, &parameter(&of_rows)?).await?);
    }
    Ok(())
}

/// Open sides that the batch may bear on: of its tokens, near its calls; of revisited tokens, those that wait, and what
/// is disputed near them.
async fn open_sides(
    looks: &mut impl LogLooks,
    batch: &Batch,
    windows: Windows,
) -> Result<(Vec<OpenEventParts>, Vec<OpenRowParts>), StoreError> {
    let mut spans: BTreeMap<RemoteKeyId, (UnixMillis, UnixMillis)> = BTreeMap::new();
    // What a tie of the batch leaves over may be disputed on the far side of a partner.
    let reach = windows.dispute_window * 2;
    for (token, at) in batch.calls() {
        let (from, until) = (at.minus(reach), at.plus(reach));
        let span = spans.entry(token).or_insert((from, until));
        *span = (span.0.min(from), span.1.max(until));
    }
    if !batch.revisited.is_empty() {
        let tokens: Vec<i64> = batch.revisited.iter().map(|token| token.get()).collect();
        // What is disputed beside a waiting side has its partner already.
        for (token, from, until) in looks.waiting_spans(&parameter(&tokens)?).await? {
            let token = RemoteKeyId::new(token).ok_or_else(|| unreadable("remote_key_id", token))?;
            let (from, until) = (UnixMillis::new(from).minus(reach), UnixMillis::new(until).plus(reach));
            let span = spans.entry(token).or_insert((from, until));
            *span = (span.0.min(from), span.1.max(until));
        }
    }
    let in_millis: Vec<(i64, i64, i64)> =
        spans.iter().map(|(token, (from, until))| (token.get(), from.as_millis(), until.as_millis())).collect();
    let in_seconds: Vec<(i64, i64, i64)> =
        in_millis.iter().map(|(token, from, until)| (*token, from / 1000, until / 1000)).collect();
    let events = looks.open_events(&parameter(&in_millis)?).await?;
    let rows = looks.open_rows(&parameter(&in_seconds)?).await?;
    Ok((events.into_iter().filter_map(open_event).collect(), rows.into_iter().filter_map(open_row).collect()))
}

fn open_event(row: LoggedRow) -> Option<OpenEventParts> {
    let event = Arc::new(stored::usage_event(&row.payload)?);
    let is_disputed = row.open_reason.as_deref() == Some(WaitReason::Disputed.as_str());
    if is_disputed && planted::is_on("dispute_never_ends") {
        return None;
    }
    let event_id = row.event_id.clone();
    let known = stored::LoggedRows::new(vec![row]).into_known(&HashSet::new()).remove(&event_id)?;
    match known {
        KnownEvent::Open(open) => Some((Side::Event(event), event_id, open, is_disputed)),
        _ => None,
    }
}

fn open_row(row: OpenRow) -> Option<OpenRowParts> {
    let is_disputed = row.state == RowState::Disputed.as_str();
    if is_disputed && planted::is_on("dispute_never_ends") {
        return None;
    }
    let content = Arc::new(super::log_content::read(&row.content)?);
    let side = Side::Row(Arc::new(ConsumptionRow::parse(row.identity.clone(), &content).ok()?));
    Some((side, row.identity, content, is_disputed))
}

async fn known_rows(looks: &mut impl LogLooks, batch: &Batch) -> Result<HashMap<RowIdentity, RowState>, StoreError> {
    let list = |row: &NumberedRow| {
        let RowIdentity { source, second, digest, number } = row.identity.clone();
        (source.to_string(), second, digest.as_str().to_owned(), number)
    };
    let identities: Vec<(String, i64, String, u32)> = batch.all_rows().map(list).collect();
    if identities.is_empty() {
        return Ok(HashMap::new());
    }
    let found = looks.known_rows(&parameter(&identities)?).await?;
    let state = |(identity, state): (RowIdentity, String)| {
        let state = RowState::parse(&state).ok_or_else(|| unreadable("hookledger_rows.state", state))?;
        Ok((identity, state))
    };
    found.into_iter().map(state).collect()
}

/// A row that is kept whole, from its columns: source, second, digest, number, content.
pub fn stored_row(row: (String, i64, String, i64, Option<String>)) -> Result<NumberedRow, StoreError> {
    let (source, second, digest, number, content) = row;
    let identity = row_identity(&source, second, &digest, number)?;
    let row = content.as_deref().and_then(super::log_content::read);
    Ok(NumberedRow { identity, row: row.ok_or_else(|| unreadable("hookledger_rows.content", content))? })
}

/// A row's identity from its columns.
pub fn row_identity(source: &str, second: i64, digest: &str, number: i64) -> Result<RowIdentity, StoreError> {
    let number = u32::try_from(number).map_err(|_| unreadable("hookledger_rows.row_nth", number))?;
    Ok(RowIdentity { source: Arc::from(source), second, digest: RowDigest::of_text(digest), number })
}
