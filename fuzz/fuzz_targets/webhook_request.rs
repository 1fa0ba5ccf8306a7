//! Bytes on the senders' listener: through the real parser of heads, the real Receiver and the real ledger.
//!
//! `{signature}`, `{length}` and `{now}` in an input become what a sender would put there.

#![no_main]

use std::time::{SystemTime, UNIX_EPOCH};

use hookledger::domain::signature::sign;
use hookledger_fuzz::answers::{body_of, filled, find, shown, split};
use hookledger_fuzz::daemon::{SECRET, daemon};
use libfuzzer_sys::fuzz_target;

/// What docs/OPERATIONS.md promises, what the server itself refuses, and leave to send a body.
const STATUSES: [u16; 16] = [100, 200, 202, 400, 401, 403, 404, 405, 408, 409, 413, 417, 429, 431, 501, 503];

fuzz_target!(|data: &[u8]| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let request = filled(data, b"{now}", &now.to_string());
    let body = body_of(&request).to_vec();
    let request = filled(&request, b"{length}", &body.len().to_string());
    let is_signed = find(&request, b"{signature}").is_some();
    let request = filled(&request, b"{signature}", &sign(SECRET, &body));

    let answer = daemon().ask_server(&request).expect("it is answered or closed, in time");
    for answer in split(&answer, find(&request, b"HEAD").is_some()) {
        assert!(STATUSES.contains(&answer.status), "{} {}", answer.status, shown(&answer.body));
        let Some(told) = answer.json() else { continue };
        // Only who is proved learns anything of an event, its acceptance first of all.
        let is_accepted = told["success"] == true && told.get("eventId").is_some();
        assert!(is_signed || told.get("eventId").is_none(), "unsigned, and {told}");
        assert!(!is_accepted || answer.status < 300, "{} {told}", answer.status);
        assert!(answer.status < 400 || told["success"] != true, "{} {told}", answer.status);
        let is_sent = find(&request, SECRET.as_bytes()).is_some();
        assert!(is_sent || find(&answer.body, SECRET.as_bytes()).is_none(), "the secret shows in {told}");
    }
});
