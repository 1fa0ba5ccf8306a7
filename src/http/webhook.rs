//! The road of one webhook: body in, verdict of the Receiver, settlement or record, answer out.
//!
//! The request itself is the second copy of its event: when the actor that was to settle it dies, hangs or is full,
//! this is where the other road is taken, so that a sender is told 202 (durable) or 503, never nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, BytesMut};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::time::{Instant as Deadline, timeout_at};

use super::answer::{Answer, TOO_BUSY, TRY_AGAIN};
use super::connection::Progress;
use super::policy::RequestPolicy;
use super::server::HttpState;
use super::source::client_address;
use crate::actors::limits::Source;
use crate::actors::logger::Record;
use crate::actors::receiver::{Deliver, Verdict};
use crate::domain::event::{Delivery, Notice, UsageEvent};
use crate::domain::outcome::{RecordOutcome, SettlementOutcome};
use crate::failpoint;
use crate::storage::StoreError;
use crate::telemetry::metrics;

const SIGNATURE_HEADER: &str = "X-Webhook-Signature";

/// No answer takes longer than this: the sender gives up after 10 seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(9);

/// `POST …/events`
pub async fn receive(request: HttpRequest, payload: web::Payload, state: web::Data<HttpState>) -> HttpResponse {
    let started = Instant::now();
    let mut answer = take(&request, payload, &state).await;
    if failpoint::hit("webhook.answer").is_err() {
        answer = Answer::Unavailable { message: TRY_AGAIN };
    }
    metrics::webhook_answered(answer.outcome(), started.elapsed());
    answer.log();
    answer.into_response()
}

async fn take(request: &HttpRequest, payload: web::Payload, state: &HttpState) -> Answer {
    let policy = state.policy_of(request);
    let body = match read_body(request, payload, &policy).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if let Some(progress) = request.conn_data::<Progress>() {
        progress.has_body();
    }
    // Not before: whoever sends slowly would take the place of those who do not.
    let Ok(_permit) = state.in_flight.try_acquire() else {
        return Answer::Unavailable { message: TOO_BUSY };
    };
    let Some(address) = client_address(request, &policy.trusted_proxies) else {
        return Answer::ForbiddenSource;
    };
    let signature = request.headers().get(SIGNATURE_HEADER).map(|value| value.as_bytes().to_vec());
    let (reply, verdict) = oneshot::channel();
    let (source, intake) = (Source::of(address), policy.intake.clone());
    let deliver = Deliver { source, signature, body, policy: intake, reply };
    if state.directory.receiver.try_send(deliver).is_err() {
        return Answer::Unavailable { message: TRY_AGAIN };
    }
    let begun = Deadline::now();
    let Ok(Ok(verdict)) = timeout_at(begun + LONGEST_WAIT, verdict).await else {
        return Answer::Unavailable { message: TRY_AGAIN };
    };
    match verdict {
        Verdict::Refused(refusal) => Answer::of_refusal(refusal),
        Verdict::Usage { event, settlement } => settle(state, event, settlement, begun, policy.ack_timeout).await,
        Verdict::Notice { notice, record } => log_notice(notice, record, begun).await,
    }
}

/// The whole body, if it is no longer than allowed and comes in time.
async fn read_body(request: &HttpRequest, mut payload: web::Payload, policy: &RequestPolicy) -> Result<Bytes, Answer> {
    let limit_bytes = policy.max_body_bytes;
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit_bytes as u64) {
        return Err(Answer::TooLarge { limit_bytes });
    }
    let deadline = Deadline::now() + policy.body_timeout;
    let mut body = BytesMut::new();
    loop {
        match timeout_at(deadline, payload.next()).await {
            Err(_) => return Err(Answer::BodyTooSlow),
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(Err(_))) => return Err(Answer::BodyBroken),
            Ok(Some(Ok(chunk))) if body.len() + chunk.len() > limit_bytes => {
                return Err(Answer::TooLarge { limit_bytes });
            }
            Ok(Some(Ok(chunk))) => body.extend_from_slice(&chunk),
        }
    }
}

type Settlement = oneshot::Receiver<Result<SettlementOutcome, StoreError>>;
type Recording = oneshot::Receiver<Result<RecordOutcome, StoreError>>;

/// Waits for the settlement; if that does not come in time, has the event recorded and answers by what comes first.
async fn settle(
    state: &HttpState,
    event: Arc<UsageEvent>,
    settlement: Option<Settlement>,
    begun: Deadline,
    ack_timeout: Duration,
) -> Answer {
    let event_id = event.event_id.as_str();
    let mut late = None;
    if let Some(mut settlement) = settlement {
        match timeout_at(begun + ack_timeout, &mut settlement).await {
            Ok(Ok(Ok(outcome))) => return Answer::of_settlement(outcome, event_id),
            // The Ledger failed or died: whether it committed will show when the event is recorded.
            Ok(Ok(Err(_)) | Err(_)) => {}
            Err(_) => late = Some(settlement),
        }
    }
    let (reply, recording) = oneshot::channel();
    let record = Record { delivery: Delivery::Usage((*event).clone()), reply };
    let recording = state.directory.logger.try_send(record).is_ok().then_some(recording);
    let longest = begun + LONGEST_WAIT;
    match (late, recording) {
        (None, None) => Answer::Unavailable { message: TRY_AGAIN },
        (None, Some(recording)) => recorded(timeout_at(longest, recording).await.ok(), event_id),
        (Some(settlement), None) => settled(timeout_at(longest, settlement).await.ok(), event_id),
        (Some(settlement), Some(recording)) => {
            let first = async {
                tokio::select! {
                    biased;
                    Ok(Ok(outcome)) = settlement => Answer::of_settlement(outcome, event_id),
                    Ok(Ok(outcome)) = recording => Answer::of_record(outcome, event_id),
                    else => Answer::Unavailable { message: TRY_AGAIN },
                }
            };
            timeout_at(longest, first).await.unwrap_or(Answer::Unavailable { message: TRY_AGAIN })
        }
    }
}

type Received<T> = Option<Result<Result<T, StoreError>, oneshot::error::RecvError>>;

fn settled(outcome: Received<SettlementOutcome>, event_id: &str) -> Answer {
    match outcome {
        Some(Ok(Ok(outcome))) => Answer::of_settlement(outcome, event_id),
        _ => Answer::Unavailable { message: TRY_AGAIN },
    }
}

fn recorded(outcome: Received<RecordOutcome>, event_id: &str) -> Answer {
    match outcome {
        Some(Ok(Ok(outcome))) => Answer::of_record(outcome, event_id),
        _ => Answer::Unavailable { message: TRY_AGAIN },
    }
}

async fn log_notice(notice: Notice, recording: Option<Recording>, begun: Deadline) -> Answer {
    let Some(recording) = recording else {
        return Answer::Unavailable { message: TRY_AGAIN };
    };
    match timeout_at(begun + LONGEST_WAIT, recording).await {
        Ok(Ok(Ok(_))) => Answer::of_notice(&notice.kind, notice.event_id.as_str()),
        _ => Answer::Unavailable { message: TRY_AGAIN },
    }
}

/// Any other method on `…/events`.
pub async fn wrong_method() -> HttpResponse {
    let answer = Answer::WrongMethod { allowed: "POST" };
    metrics::webhook_answered(answer.outcome(), Duration::ZERO);
    answer.into_response()
}
