//! A page of new-api's log, in both shapes. The first byte says what was asked for, the rest is the answer.

#![no_main]

use hookledger::domain::ids::MAX_ID_CHARS;
use hookledger::domain::log_row::{LogRow, RowDigest, RowKind};
use hookledger::gateway::fuzzing::{AskedPage, page_of};
use hookledger::gateway::{Dialect, Window};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use url::Url;

/// In the seeds; no error may repeat it.
const TOKEN: &str = "aTokenThatNobodyMaySee";
const SECOND: i64 = 1_800_000_000;
const STATUSES: [u16; 4] = [200, 401, 429, 500];

fuzz_target!(|data: &[u8]| {
    let Some((flags, body)) = data.split_first() else { return };
    let url = Url::parse("http://new-api:3000/api/log/").expect("a URL");
    let last_second = if flags & 1 == 0 { SECOND + 59 } else { SECOND };
    let asked = AskedPage {
        url: &url,
        token: TOKEN,
        window: Window::new(SECOND, last_second).expect("a window"),
        kind: if flags & 2 == 0 { RowKind::Consumption } else { RowKind::Refund },
        group: (flags & 4 != 0).then_some("vip"),
        number: u32::from(flags & 8 != 0),
    };
    let status = STATUSES[usize::from(flags >> 4) & 3];
    let page = match page_of(asked, status, body.to_vec()) {
        Ok(page) => page,
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty() && !told.contains(TOKEN), "{told}");
            assert!(told.len() < 2_000 && !told.contains('\n'), "another's words are short and tame: {told:?}");
            return;
        }
    };
    assert_eq!(status, 200);
    assert_eq!(page.total.is_some(), page.dialect == Dialect::Paged);
    assert_eq!(page_of(asked, status, body.to_vec()).as_ref(), Ok(&page), "the same answer is the same page");
    for row in &page.unreadable {
        assert!(row.second.is_none_or(|second| asked.window.contains(second)) && !row.reason.is_empty());
    }
    for row in &page.rows {
        check(row, asked);
    }
});

fn check(row: &LogRow, asked: AskedPage<'_>) {
    assert!(asked.window.contains(row.second) && row.kind == asked.kind);
    assert!(row.token.get() >= 0 && row.log_id.is_none_or(|id| id > 0));
    let request_id = row.request_id.as_ref().map(|id| id.as_str());
    assert!(request_id.is_none_or(|id| !id.is_empty() && id.chars().count() <= MAX_ID_CHARS && !id.contains('\0')));
    assert!(row.task_id().is_none_or(|id| !id.is_empty()));
    assert_eq!(row.digest().as_str().len(), RowDigest::LENGTH);
    assert!(row.refunded_units().is_none_or(|units| units >= 0) && row.stated_units().is_none_or(|units| units >= 0));

    // Written as new-api would write it, it is read as the same row.
    let other = row.task.as_ref().map(|task| {
        let other = json!({ "task_id": task.task_id.as_deref(), "is_task": task.is_submission,
            "pre_consumed_quota": task.pre_consumed_units, "reason": task.reason.as_deref() });
        other.to_string()
    });
    let written = json!({
        "id": row.log_id, "created_at": row.second, "type": row.kind.number(), "token_id": row.token.get(),
        "token_name": &*row.token_name, "model_name": &*row.model, "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens, "quota": row.quota_units, "request_id": request_id,
        "group": "vip", "other": other,
    });
    let answer = json!({ "success": true, "data": [written] }).to_string();
    let page = page_of(asked, 200, answer.clone().into_bytes()).expect("a row that was read is read again");
    assert_eq!(page.rows, [row.clone()], "{answer}");
}
