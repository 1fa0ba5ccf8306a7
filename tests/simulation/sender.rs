//! The bodies that the sender of webhooks makes of calls.

use hookledger::domain::event::Delivery;
use hookledger::domain::parse::parse_body;

use super::log::{model_name, request_id};
use super::scenario::{Call, Naming, Rules, Telling};

/// What a deliverer of this call would post; `log_id` where it knows it.
pub fn body(rules: &Rules, call: &Call, second: i64, log_id: Option<i64>) -> String {
    let mut data = format!(
        r#""remoteKeyId":{},"model":"{}","promptTokens":{},"completionTokens":{}"#,
        call.token + 1,
        model_name(call.model),
        call.prompt,
        call.completion
    );
    data += &price(rules, call);
    if let Some(id) = event_request_id(rules.naming, call) {
        data += &format!(r#","requestId":"{id}""#);
    }
    if let (Naming::LogIds, Some(id)) = (rules.naming, log_id) {
        data += &format!(r#","logId":{id}"#);
    }
    let at_ms = event_ms(call, second);
    // Both of what senders stamp: whole seconds, and milliseconds.
    let stamp = if at_ms % 1000 == 0 && call.id.is_multiple_of(2) { at_ms / 1000 } else { at_ms };
    format!(r#"{{"eventId":"{}","eventType":"usage","timestamp":{stamp},"data":{{{data}}}}}"#, event_id(call.id))
}

/// The event's own time.
pub fn event_ms(call: &Call, second: i64) -> i64 {
    second * 1000 - call.event_before_ms
}

/// Some differ only in what a collation takes for equal.
pub fn event_id(call: usize) -> String {
    let number = call / 3;
    match call % 3 {
        0 => format!("evt-{number}"),
        1 => format!("EVT-{number}"),
        _ => format!("evt-{number} "),
    }
}

fn event_request_id(naming: Naming, call: &Call) -> Option<String> {
    match naming {
        Naming::ForeignIds => Some(format!("mine-{}", call.id)),
        Naming::RequestIds(_) if call.has_event_id => request_id(naming, call.id),
        _ => None,
    }
}

fn price(rules: &Rules, call: &Call) -> String {
    match rules.telling {
        Telling::Credits => format!(r#","creditCost":{}"#, call.event_units),
        // Half a million units to the dollar: six decimal places hold every price.
        _ if rules.quota_per_unit == 500_000 && !call.id.is_multiple_of(2) => {
            let micros = call.event_units * 2;
            format!(r#","cost":{}.{:06}"#, micros / 1_000_000, micros % 1_000_000)
        }
        _ => format!(r#","quota":{}"#, call.event_units),
    }
}

pub fn parsed(body: &str) -> Delivery {
    parse_body(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}
