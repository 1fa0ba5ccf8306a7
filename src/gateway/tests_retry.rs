//! Failures on the wire: which are tried again and how often, what is told of them, and that no token leaves with them.

use std::time::Duration;

use serde_json::json;
use url::Url;

use super::scripted::{Reply, Scripted, TOKEN, answer, gateway_at, refusal, success};
use super::*;

const SECOND: i64 = 1_795_558_789;

fn window() -> Window {
    Window::new(SECOND, SECOND + 59).unwrap()
}

fn fine() -> Reply {
    success(&json!({"quota": 5}))
}

fn cut_off() -> Reply {
    Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{\"success\":true".to_vec())
}

fn cut_off_chunk() -> Reply {
    Reply::Bytes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n10\r\n{\"success\":true,".to_vec(),
    )
}

fn no_answer() -> Reply {
    Reply::Bytes(b"Connection: close".to_vec())
}

async fn sum_of(replies: Vec<fn() -> Reply>) -> (Result<i64, GatewayError>, usize) {
    let server = Scripted::script(replies).await;
    let outcome = server.gateway().quota_sum(window()).await;
    (outcome, server.requests().len())
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for failure in [
        || answer(429, "", ""),
        || answer(502, "", "<html>Bad Gateway</html>"),
        || answer(500, "", ""),
        || answer(200, "", "{\"success\":tr"),
        cut_off as fn() -> Reply,
        cut_off_chunk,
        no_answer,
    ] {
        assert_eq!(sum_of(vec![failure, failure, fine]).await, (Ok(5), 3));
        let (outcome, requests) = sum_of(vec![failure, failure, failure, fine]).await;
        let error = outcome.unwrap_err();
        assert!(error.may_pass() && requests == 3, "{error}: after {requests} requests");
    }
}

#[tokio::test]
async fn a_refusal_is_final() {
    for failure in [
        || refusal("Unauthorized, the access token is invalid"),
        || answer(401, "", "{\"success\":false,\"message\":\"New-Api-User does not match\"}"),
        || refusal("no such thing"),
        || answer(200, "", "<html>New API</html>"),
        (|| answer(404, "", "404 page not found")) as fn() -> Reply,
        || answer(302, "Location: /login\r\n", ""),
    ] {
        let (outcome, requests) = sum_of(vec![failure, fine]).await;
        assert!(outcome.is_err() && requests == 1, "{outcome:?}: after {requests} requests");
    }
}

#[tokio::test]
async fn a_token_never_follows_a_redirect() {
    let elsewhere = Scripted::serve(|_| fine()).await;
    let target = format!("{}login", elsewhere.url());
    let location = format!("Location: {target}\r\n");
    let server = Scripted::serve(move |_| answer(307, &location, "")).await;
    let error = server.gateway().quota_sum(window()).await.unwrap_err();
    assert_eq!(error, GatewayError::Redirected { target });
    assert_eq!((server.requests().len(), elsewhere.requests().len()), (1, 0));
}

#[tokio::test]
async fn a_long_answer_is_not_read_to_its_end() {
    let server = Scripted::serve(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\nConnection: close\r\n\r\n";
        Reply::Bytes([head.as_bytes(), &vec![b' '; 9 * 1024 * 1024]].concat())
    })
    .await;
    let error = server.gateway().quota_sum(window()).await.unwrap_err();
    assert_eq!(error, GatewayError::TooLong { limit_bytes: 8 * 1024 * 1024 });
}

#[tokio::test]
async fn a_slow_answer_is_asked_for_again_only_where_less_cannot_be_asked() {
    let server = Scripted::serve(|_| Reply::Hang).await;
    let timeout = Duration::from_secs(2);
    let gateway = server.gateway_with(|_, settings| settings.timeout = timeout);
    let error = gateway.page(window(), RowKind::Consumption, 0).await.unwrap_err();
    assert_eq!((error, server.requests().len()), (GatewayError::TimedOut { after: timeout }, 1));
    let single = Window::new(SECOND, SECOND).unwrap();
    let error = gateway.page(single, RowKind::Consumption, 0).await.unwrap_err();
    assert_eq!((error, server.requests().len()), (GatewayError::TimedOut { after: timeout }, 4));
    assert!(gateway.status().await.is_err_and(|error| error.is_too_slow()));
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_out_of_reach() {
    let url = Scripted::serve(|_| fine()).await.url().clone();
    // The port is free again by now: the task that had it is gone once a connection is refused.
    while tokio::net::TcpStream::connect(url.socket_addrs(|| None).unwrap()[0]).await.is_ok() {}
    let error = gateway_at(url, |_, _| {}).status().await.unwrap_err();
    assert_eq!(error, GatewayError::OutOfReach { reason: "connection refused".to_owned() });
    let unknown = Url::parse("http://no-such-host.invalid").unwrap();
    let error = gateway_at(unknown, |_, _| {}).status().await.unwrap_err();
    assert!(matches!(&error, GatewayError::OutOfReach { .. }), "{error}");
    assert!(error.to_string().contains("check newapi.base_url"), "{error}");
}

#[tokio::test]
async fn no_token_shows_anywhere() {
    let echo = || refusal(&format!("Unauthorized, invalid access token {TOKEN}"));
    let server = Scripted::script(vec![echo]).await;
    let gateway = server.gateway();
    let error = gateway.quota_sum(window()).await.unwrap_err();
    let shown = format!("{error} {error:?} {gateway:?}");
    assert!(shown.contains("********") && !shown.contains(TOKEN), "{shown}");
}

#[tokio::test]
async fn turns_are_kept_over_all_callers() {
    let server = Scripted::serve(|_| fine()).await;
    let gateway = server.gateway_with(|_, settings| settings.requests_per_second = Some(20.0));
    let begun = std::time::Instant::now();
    let sums = futures_util::future::join_all((0..5).map(|_| gateway.quota_sum(window()))).await;
    assert!(sums.iter().all(|sum| *sum == Ok(5)));
    // A lower bound only: a slow machine takes longer.
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn each_request_is_counted_with_its_outcome() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let busy = || answer(429, "", "");
            let server = Scripted::script(vec![busy, fine, || refusal("no")]).await;
            let gateway = server.gateway();
            assert_eq!(gateway.quota_sum(window()).await, Ok(5));
            assert!(gateway.status().await.is_err());
        });
    });
    let shown = handle.render();
    for series in [
        "{endpoint=\"log_stat\",status=\"rate_limited\"} 1",
        "{endpoint=\"log_stat\",status=\"answered\"} 1",
        "{endpoint=\"status\",status=\"refused\"} 1",
    ] {
        assert!(shown.contains(&format!("hookledger_newapi_requests_total{series}")), "{shown}");
    }
}
