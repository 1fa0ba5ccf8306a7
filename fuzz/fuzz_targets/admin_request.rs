//! Bytes on the operators' socket: paths, queries and bodies of `/admin/v1/…`, through to the books. `{length}` becomes
//! that of the body.

#![no_main]

use hookledger_fuzz::answers::{body_of, filled, find, shown, split};
use hookledger_fuzz::daemon::daemon;
use libfuzzer_sys::fuzz_target;

/// What the OpenAPI document promises but 503 (here, nothing is wrong with the database), and what the server itself
/// refuses.
const STATUSES: [u16; 13] = [100, 200, 400, 404, 405, 408, 409, 413, 417, 422, 429, 431, 501];

fuzz_target!(|data: &[u8]| {
    let length = body_of(data).len().to_string();
    let request = filled(data, b"{length}", &length);
    let answer = daemon().ask_admin(&request).expect("it is answered or closed, in time");
    let has_head = find(&request, b"HEAD").is_some();
    for answer in split(&answer, has_head) {
        assert!(STATUSES.contains(&answer.status), "{} {}", answer.status, shown(&answer.body));
        if answer.status == 200 && !has_head {
            assert!(answer.json().is_some(), "no JSON: {}", shown(&answer.body));
        } else if !answer.body.is_empty() {
            let told = answer.json().expect("a refusal is JSON");
            assert_eq!(told["success"], false, "{told}");
            assert!(told["message"].as_str().is_some_and(|message| !message.is_empty()), "{told}");
        }
    }
});
