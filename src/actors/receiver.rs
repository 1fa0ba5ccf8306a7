//! The Receiver: proves a request's signature, holds it to its limits, parses it, and forwards it.
//!
//! The order of its checks is the protocol's: nothing is parsed before the signature holds. It waits for nobody.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use actix_web::web::Bytes;
use secrecy::ExposeSecret;
use tokio::sync::oneshot;

use super::Directory;
use super::guard::{Guard, Look};
use super::ledger::Settle;
use super::limits::{Limits, Source};
use super::logger::Record;
use super::observed::Observed;
use crate::clock::SharedClock;
use crate::config::WebhookSettings;
use crate::domain::event::{Delivery, Notice, UsageEvent};
use crate::domain::ids::EventId;
use crate::domain::outcome::{RecordOutcome, SettlementOutcome};
use crate::domain::parse::{Malformed, parse_body};
use crate::domain::signature::Verifier;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::StoreError;

/// One request as it came, and a place for the verdict.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deliver {
    pub source: Source,
    /// The signature header's bytes; none if there was no such header.
    pub signature: Option<Vec<u8>>,
    pub body: Bytes,
    /// In force when the request began.
    pub policy: Arc<IntakePolicy>,
    pub reply: oneshot::Sender<Verdict>,
}

/// What the Receiver made of a request.
#[derive(Debug)]
pub enum Verdict {
    Refused(Refusal),
    /// Forwarded to the Ledger, or `None` where the Ledger cannot take it: then it is to be recorded.
    Usage {
        event: Arc<UsageEvent>,
        settlement: Option<oneshot::Receiver<Result<SettlementOutcome, StoreError>>>,
    },
    /// Forwarded to the Logger, or `None` where the Logger cannot take it.
    Notice {
        notice: Notice,
        record: Option<oneshot::Receiver<Result<RecordOutcome, StoreError>>>,
    },
}

/// Why a request is refused, in the order in which it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    MissingSignature,
    BadSignature,
    TooManyBadSignatures { retry_after: Duration },
    RateLimited { retry_after: Duration },
    Malformed(Malformed),
    Expired { event_id: EventId, event_time: UnixMillis, our_time: UnixMillis },
    Disabled { event_id: EventId },
}

/// What a request is held against. Made once a reload, since the secrets are prepared in it.
#[derive(Debug, Clone)]
pub struct IntakePolicy {
    pub verifier: Verifier,
    pub is_enabled: bool,
    pub max_age: Duration,
    pub max_future: Duration,
}

impl IntakePolicy {
    pub fn new(settings: &WebhookSettings) -> Self {
        IntakePolicy {
            verifier: Verifier::new(settings.secrets.iter().map(ExposeSecret::expose_secret)),
            is_enabled: settings.enabled,
            max_age: settings.max_age,
            max_future: settings.max_future,
        }
    }
}

/// What the Receiver is made of.
#[derive(Clone)]
pub struct ReceiverParts {
    pub directory: Arc<Directory>,
    pub clock: SharedClock,
    pub limits: Arc<Limits>,
    pub observed: Arc<Observed>,
}

pub struct Receiver {
    parts: ReceiverParts,
    guard: Guard,
}

impl Receiver {
    pub fn new(parts: ReceiverParts, guard: Guard) -> Self {
        Receiver { parts, guard }
    }

    fn judge(&self, message: &Deliver) -> Result<Delivery, Refusal> {
        let policy = &message.policy;
        let signature = message.signature.as_deref().ok_or(Refusal::MissingSignature)?;
        if !policy.verifier.verify(&message.body, signature) {
            let refusal = match self.parts.limits.check_bad(message.source) {
                Ok(()) => Refusal::BadSignature,
                Err(retry_after) => Refusal::TooManyBadSignatures { retry_after },
            };
            return Err(refusal);
        }
        self.parts.limits.check_good(message.source).map_err(|retry_after| Refusal::RateLimited { retry_after })?;
        let delivery = parse_body(&message.body).map_err(Refusal::Malformed)?;
        if let Delivery::Usage(event) = &delivery {
            judge_time(event, policy, self.parts.clock.now())?;
            if !policy.is_enabled {
                return Err(Refusal::Disabled { event_id: event.event_id.clone() });
            }
        }
        Ok(delivery)
    }

    fn forward(&self, delivery: Delivery) -> Verdict {
        match delivery {
            Delivery::Usage(event) => {
                self.parts.observed.channel.event_arrived(self.parts.clock.now());
                let event = Arc::new(event);
                let (reply, settlement) = oneshot::channel();
                let message = Settle { event: event.clone(), reply };
                let is_sent =
                    failpoint::hit("receiver.forward").is_ok() && self.parts.directory.ledger.try_send(message).is_ok();
                Verdict::Usage { event, settlement: is_sent.then_some(settlement) }
            }
            Delivery::Notice(notice) => {
                let (reply, record) = oneshot::channel();
                let message = Record { delivery: Delivery::Notice(notice.clone()), reply };
                let is_sent = self.parts.directory.logger.try_send(message).is_ok();
                Verdict::Notice { notice, record: is_sent.then_some(record) }
            }
        }
    }
}

fn judge_time(event: &UsageEvent, policy: &IntakePolicy, now: UnixMillis) -> Result<(), Refusal> {
    let event_time = event.content.called_at;
    if event_time < now.minus(policy.max_age) || event_time > now.plus(policy.max_future) {
        return Err(Refusal::Expired { event_id: event.event_id.clone(), event_time, our_time: now });
    }
    Ok(())
}

impl Actor for Receiver {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.parts.directory.receiver.capacity());
    }
}

impl Handler<Deliver> for Receiver {
    type Result = ();

    fn handle(&mut self, message: Deliver, context: &mut Self::Context) {
        self.parts.directory.receiver.taken();
        if !self.guard.goes_on(context) {
            return;
        }
        // The reply is dropped with the message, and its request is answered 503.
        if let Err(fault) = failpoint::hit("receiver.handle") {
            return self.guard.end(fault.into(), context);
        }
        let verdict = match self.judge(&message) {
            Ok(delivery) => self.forward(delivery),
            Err(refusal) => Verdict::Refused(refusal),
        };
        message.reply.send(verdict).ok();
    }
}

impl Handler<Look> for Receiver {
    type Result = ();

    fn handle(&mut self, _: Look, context: &mut Self::Context) {
        self.parts.directory.receiver.taken();
        // It has no queue but its mailbox, and this came out of that.
        self.guard.goes_on(context);
    }
}
