//! A look at the gateway itself: its version and price unit, and what its options say of webhook and log.

use std::sync::Arc;

use super::pass::PassError;
use super::recognition::{GatewayIdentity, recognise};
use super::source::Source;
use crate::domain::time::UnixMillis;
use crate::gateway::{Gateway, GatewayError, GatewayStatus, StatedQuota};
use crate::storage::LogStore;

/// A clock further off than this is told: seconds are covered by the slower of both.
const MOST_SKEW_SECS: i64 = 60;

/// What a look found, a sentence for each that someone should look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// Why it did not answer, and under which condition that is known, if it has one.
    pub failure: Option<(Option<&'static str>, String)>,
    /// The gateway is not the one that the books know.
    pub source_changed: Option<String>,
    pub logging_off: Option<String>,
    pub clock_skew: Option<String>,
    /// What it says of its price unit is no number to compute with.
    pub unusable_quota: Option<String>,
}

/// Looks once; what was learned is remembered in `source`.
pub async fn probe(
    source: &Source,
    gateway: &Arc<dyn Gateway>,
    store: &dyn LogStore,
    now: impl Fn() -> UnixMillis,
) -> Probe {
    let mut found = Probe::default();
    let status = match gateway.status().await {
        Ok(status) => status,
        Err(error) => return failed(found, source, &error, now()),
    };
    found.clock_skew = learn(source, &status, now());
    match recognise(source, gateway, store, &GatewayIdentity::of(&status)).await {
        Ok(None) => {}
        // Nothing of another gateway counts, its prices least of all.
        Ok(another) => return Probe { source_changed: another, ..found },
        Err(PassError::Store(error)) => {
            tracing::warn!(%error, "whether new-api is the one that is known could not be looked at");
            return found;
        }
        Err(error) => match error.gateway() {
            Some(error) => return failed(found, source, error, now()),
            None => return Probe { failure: Some((None, error.to_string())), ..found },
        },
    }
    if let StatedQuota::Unusable(said) = &status.quota_per_unit {
        found.unusable_quota = Some(format!(
            "new-api says that its quota per unit is {said}, with which no price can be computed: the last one holds"
        ));
    }
    source.heard_quota(status.quota_per_unit, now());
    match gateway.options().await {
        Ok(options) => {
            source.remember(|memory| memory.has_webhook_url = Some(options.webhook_url.is_some()));
            if options.log_consume_enabled == Some(false) {
                let sentence = "new-api writes no consumption log (its option LogConsumeEnabled is off): calls whose \
                                webhook is lost are lost";
                found.logging_off = Some(sentence.to_owned());
            }
        }
        // Only root may see them; then the channel is judged by what comes in.
        Err(GatewayError::NotRoot { .. }) => source.remember(|memory| memory.has_webhook_url = None),
        Err(error) => return failed(found, source, &error, now()),
    }
    found
}

/// What its status tells without proof. A sentence if its clock is far off.
pub(super) fn learn(source: &Source, status: &GatewayStatus, now: UnixMillis) -> Option<String> {
    source.answered(true, now);
    let ahead = status.source_time.map(|time| time.as_secs() - now.as_secs());
    source.remember(|memory| {
        memory.clock_ahead_secs = ahead;
        memory.gateway = Some(GatewayIdentity::of(status));
    });
    ahead.filter(|ahead| ahead.abs() > MOST_SKEW_SECS).map(|ahead| {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let secs = ahead.abs();
        format!("new-api's clock is {secs} s {side} ours: its log is read up to the earlier of both; set both by NTP")
    })
}

fn failed(found: Probe, source: &Source, error: &GatewayError, now: UnixMillis) -> Probe {
    source.answered(false, now);
    Probe { failure: Some((error.condition(), error.to_string())), ..found }
}
