//! What is sent to new-api, and what is made of its answers. Failures and retries are in `tests_retry`.

use serde_json::{Value, json};

use super::scripted::{Request, Scripted, TOKEN, refusal, success};
use super::*;

const SECOND: i64 = 1_795_558_789;

fn window() -> Window {
    Window::new(SECOND, SECOND + 59).unwrap()
}

fn row(id: i64, second: i64) -> Value {
    json!({
        "id": id, "user_id": 1, "created_at": second, "type": 2, "content": "", "username": "dora",
        "token_name": "dora-key", "model_name": "gpt-4.1", "quota": 100 + id, "prompt_tokens": 20,
        "completion_tokens": 5, "use_time": 0, "is_stream": false, "channel": 1, "token_id": 12, "group": "vip",
        "ip": "", "request_id": format!("r-{id}"), "other": "{\"group_ratio\":1}",
    })
}

fn paged(total: u64, items: &[Value]) -> Value {
    json!({"page": 1, "page_size": 100, "total": total, "items": items})
}

#[tokio::test]
async fn the_status_needs_no_token_and_gets_none() {
    let data = json!({"version": "v1.2.3", "quota_per_unit": 500_000, "start_time": 1_795_500_000, "price": 7.3});
    let server = Scripted::serve(move |_| success(&data)).await;
    let status = server.gateway().status().await.unwrap();
    let quota = StatedQuota::Stated(QuotaPerUnit::new(500_000).unwrap());
    assert_eq!((status.version.as_str(), status.quota_per_unit), ("v1.2.3", quota));
    assert_eq!(status.started_at_second, Some(1_795_500_000));
    assert_eq!(status.source_time, Some(UnixMillis::new(1_795_558_789_000)));
    let request = &server.requests()[0];
    assert_eq!(request.path, "/api/status");
    assert!(!request.headers.contains_key("authorization") && !request.headers.contains_key("new-api-user"));
    assert!(request.headers["user-agent"].starts_with("hookledger/"));
}

#[tokio::test]
async fn a_price_unit_is_whole_or_shown_as_it_was_said() {
    for (written, read) in [
        ("500000.0", StatedQuota::Stated(QuotaPerUnit::new(500_000).unwrap())),
        ("5e5", StatedQuota::Stated(QuotaPerUnit::new(500_000).unwrap())),
        ("0", StatedQuota::Unusable("0".to_owned())),
        ("0.5", StatedQuota::Unusable("0.5".to_owned())),
        ("-1", StatedQuota::Unusable("-1".to_owned())),
        ("null", StatedQuota::Absent),
    ] {
        let data: Value = serde_json::from_str(&format!("{{\"quota_per_unit\":{written}}}")).unwrap();
        let server = Scripted::serve(move |_| success(&data)).await;
        assert_eq!(server.gateway().status().await.unwrap().quota_per_unit, read, "{written}");
    }
}

#[tokio::test]
async fn options_tell_of_the_webhook_and_of_the_log() {
    let option = |key: &str, value: &str| json!({"key": key, "value": value});
    for (data, webhook_url, log_consume_enabled) in [
        (
            vec![option("webhook_url", " http://127.0.0.1:4000/x "), option("LogConsumeEnabled", "true")],
            Some("http://127.0.0.1:4000/x"),
            Some(true),
        ),
        (vec![option("webhook_url", ""), option("LogConsumeEnabled", "False")], None, Some(false)),
        (vec![option("RetryTimes", "0"), json!({"key": "LogConsumeEnabled"})], None, None),
        (vec![json!({"key": "LogConsumeEnabled", "value": true})], None, Some(true)),
    ] {
        let server = Scripted::serve(move |_| success(&json!(data))).await;
        let options = server.gateway().options().await.unwrap();
        assert_eq!(options, GatewayOptions { webhook_url: webhook_url.map(str::to_owned), log_consume_enabled });
        assert_eq!(server.requests()[0].path, "/api/option/");
    }
    let server = Scripted::serve(|_| refusal("Unauthorized, insufficient privileges")).await;
    let error = server.gateway().options().await.unwrap_err();
    assert!(matches!(error, GatewayError::NotRoot { .. }) && error.condition().is_none(), "{error}");
}

#[tokio::test]
async fn a_page_is_asked_for_with_every_filter_and_the_token() {
    let items = json!({"page": 3, "page_size": 40, "total": 82, "items": [row(9, SECOND + 2), row(8, SECOND)]});
    let server = Scripted::serve(move |_| success(&items)).await;
    let gateway = server.gateway_with(|access, settings| {
        access.base_url.set_path("/behind/a/path");
        settings.page_size = 40;
        settings.group = Some("vip".to_owned());
        settings.username = Some("dora".to_owned());
    });
    let page = gateway.page(window(), RowKind::Consumption, 2).await.unwrap();
    assert_eq!((page.total, page.dialect, page.ids), (Some(82), Dialect::Paged, IdEvidence::Real));
    assert_eq!(page.source_time, Some(UnixMillis::new(1_795_558_789_000)));
    let read: Vec<_> = page.rows.iter().map(|row| (row.log_id, row.second, row.quota_units)).collect();
    assert_eq!(read, [(Some(9), SECOND + 2, 109), (Some(8), SECOND, 108)]);
    let request = &server.requests()[0];
    assert_eq!(request.path, "/behind/a/path/api/log/");
    let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected = [
        "end_timestamp=1795558848",
        "group=vip",
        "p=3",
        "page_size=40",
        "start_timestamp=1795558789",
        "type=2",
        "username=dora",
    ];
    assert_eq!(query, expected);
    assert_eq!((request.headers["authorization"].as_str(), request.headers["new-api-user"].as_str()), (TOKEN, "7"));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_leaves_the_page_whole() {
    let mut odd = row(8, SECOND);
    odd["quota"] = json!("a lot");
    let data = paged(3, &[row(9, SECOND), odd, json!(5)]);
    let server = Scripted::serve(move |_| success(&data)).await;
    let page = server.gateway().page(window(), RowKind::Consumption, 0).await.unwrap();
    assert_eq!((page.rows.len(), page.unreadable.len(), page.len()), (1, 2, 3));
    assert_eq!((page.unreadable[0].second, page.unreadable[0].stated_id), (Some(SECOND), Some(8)));
}

#[tokio::test]
async fn a_filter_that_is_ignored_is_told_and_nothing_is_read() {
    let mut foreign = row(7, SECOND);
    foreign["group"] = json!("default");
    for (spoiler, filter) in [(row(7, SECOND + 60), "start_timestamp and end_timestamp"), (foreign, "group")] {
        let data = paged(2, &[row(8, SECOND), spoiler]);
        let server = Scripted::serve(move |_| success(&data)).await;
        let gateway = server.gateway_with(|_, settings| settings.group = Some("vip".to_owned()));
        let error = gateway.page(window(), RowKind::Consumption, 0).await.unwrap_err();
        assert_eq!(error.condition(), Some("filter_ignored"));
        assert!(
            error.to_string().contains(&format!("ignores the filter {filter}: asked for rows of type 2")),
            "{error}"
        );
        assert_eq!(server.requests().len(), 1, "not asked again");
        let counted = gateway.count(window(), RowKind::Consumption).await.unwrap_err();
        assert_eq!(counted.condition(), Some("filter_ignored"));
    }
}

#[tokio::test]
async fn figures_are_a_sum_and_a_total() {
    let server = Scripted::serve(|request: &Request| match request.path.as_str() {
        "/api/log/stat" => success(&json!({"quota": 79_401, "rpm": 1, "tpm": 2})),
        _ => {
            let mut refund = row(5, SECOND);
            refund["type"] = json!(6);
            success(&json!({"page": 1, "page_size": 1, "total": 28, "items": [refund]}))
        }
    })
    .await;
    let gateway = server.gateway();
    assert_eq!(gateway.quota_sum(window()).await, Ok(79_401));
    assert_eq!(gateway.count(window(), RowKind::Refund).await, Ok(Some(28)));
    let requests = server.requests();
    assert_eq!((requests[0].number("start_timestamp"), requests[0].number("end_timestamp")), (SECOND, SECOND + 59));
    assert_eq!((requests[1].number("page_size"), requests[1].number("p"), requests[1].number("type")), (1, 1, 6));
}

#[tokio::test]
async fn old_versions_are_told_by_the_shape_and_remembered() {
    let server = Scripted::serve(|request: &Request| match request.number("p") {
        0 => success(&json!([row(9, SECOND), row(8, SECOND)])),
        _ => success(&Value::Null),
    })
    .await;
    let gateway = server.gateway();
    let page = gateway.page(window(), RowKind::Consumption, 0).await.unwrap();
    assert_eq!((page.total, page.dialect, page.rows.len()), (None, Dialect::Bare, 2));
    assert!(gateway.page(window(), RowKind::Consumption, 1).await.unwrap().is_empty());
    assert_eq!(gateway.count(window(), RowKind::Consumption).await, Ok(None));
    let pages: Vec<i64> = server.requests().iter().map(|request| request.number("p")).collect();
    assert_eq!(pages, [1, 0, 1, 0], "asked once in the other dialect");
}

#[tokio::test]
async fn an_upgrade_of_the_gateway_is_noticed() {
    let mut is_old = true;
    let server = Scripted::serve(move |request: &Request| match (is_old, request.number("p")) {
        (true, 0) => {
            is_old = false;
            success(&json!([row(9, SECOND)]))
        }
        (true, _) => success(&json!([])),
        (false, 0) => refusal("page and page_size must be positive integers"),
        (false, _) => success(&paged(1, &[row(9, SECOND)])),
    })
    .await;
    let gateway = server.gateway();
    for dialect in [Dialect::Bare, Dialect::Paged, Dialect::Paged] {
        assert_eq!(gateway.page(window(), RowKind::Consumption, 0).await.unwrap().dialect, dialect);
    }
    let pages: Vec<i64> = server.requests().iter().map(|request| request.number("p")).collect();
    assert_eq!(pages, [1, 0, 0, 1, 1]);
}

#[tokio::test]
async fn data_of_another_shape_is_not_new_api() {
    for data in [json!(5), json!("x"), json!({"items": []}), json!({"total": -1, "items": []}), json!({"total": "1"})] {
        let shown = data.to_string();
        let server = Scripted::serve(move |_| success(&data)).await;
        let gateway = server.gateway();
        let errors = [
            gateway.page(window(), RowKind::Consumption, 0).await.unwrap_err(),
            gateway.quota_sum(window()).await.unwrap_err(),
            gateway.options().await.unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.condition() == Some("not_new_api")), "{shown}: {errors:?}");
    }
}
