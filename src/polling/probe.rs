//! A look at the gateway itself: its version and price unit, and what its options say of webhook and log.

use super::source::Source;
use crate::domain::time::UnixMillis;
use crate::gateway::{Gateway, GatewayError, StatedQuota};

/// A clock further off than this is told: seconds are covered by the slower of both.
const MOST_SKEW_SECS: i64 = 60;

/// What a look found, a sentence for each that someone should look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// Why it did not answer, and under which condition that is known, if it has one.
    pub failure: Option<(Option<&'static str>, String)>,
    pub logging_off: Option<String>,
    pub clock_skew: Option<String>,
}

/// Looks once; what was learned is remembered in `source`.
pub async fn probe(source: &Source, gateway: &dyn Gateway, now: impl Fn() -> UnixMillis) -> Probe {
    let mut found = Probe::default();
    match gateway.status().await {
        Ok(status) => {
            let now = now();
            source.answered(true, now);
            let ahead = status.source_time.map(|time| time.as_secs() - now.as_secs());
            source.remember(|memory| {
                memory.clock_ahead_secs = ahead;
                if let StatedQuota::Stated(quota) = status.quota_per_unit {
                    memory.quota_per_unit = Some(quota);
                }
            });
            found.clock_skew = ahead.filter(|ahead| ahead.abs() > MOST_SKEW_SECS).map(|ahead| {
                let side = if ahead > 0 { "ahead of" } else { "behind" };
                let secs = ahead.abs();
                format!("new-api's clock is {secs} s {side} ours: its log is read up to the earlier of both; set both by NTP")
            });
        }
        Err(error) => return failed(source, &error, now()),
    }
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
        Err(error) => return failed(source, &error, now()),
    }
    found
}

fn failed(source: &Source, error: &GatewayError, now: UnixMillis) -> Probe {
    source.answered(false, now);
    Probe { failure: Some((error.condition(), error.to_string())), ..Probe::default() }
}
