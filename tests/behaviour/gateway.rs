//! The client of new-api against the new-api for tests: in each generation, on each log store, in each fault.

use std::sync::Arc;
use std::time::Duration;

use hookledger::config::{NewApiAccess, NewApiSettings};
use hookledger::domain::log_row::RowKind;
use hookledger::gateway::{Gateway, GatewayError, HttpGateway, Ids, Piece, Reading, StatedQuota, Window};

use crate::kit::newapi::{Dialect, Endpoint, Fault, LogStore, NewApi, Role, Row, User};

const START: i64 = 1_800_000_000;
const SECONDS: i64 = 60;

fn window() -> Window {
    Window::new(START, START + SECONDS - 1).unwrap()
}

/// Waits for nothing, and tries once more.
fn gateway_of(new_api: &NewApi, token: &str, user_id: i64, change: impl FnOnce(&mut NewApiSettings)) -> HttpGateway {
    let base_url = new_api.url().parse().unwrap();
    let access = NewApiAccess { base_url, access_token: token.to_owned().into(), user_id };
    let mut settings = NewApiSettings {
        access: None,
        timeout: Duration::from_secs(30),
        page_size: 100,
        requests_per_second: None,
        max_retries: 1,
        base_backoff: Duration::from_millis(1),
        group: None,
        username: None,
        source: "default".to_owned(),
    };
    change(&mut settings);
    HttpGateway::new(&access, &settings).unwrap()
}

fn gateway(new_api: &NewApi) -> HttpGateway {
    gateway_of(new_api, &new_api.root_access_token(), 1, |_| {})
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn call(number: i64, second: i64) -> Row {
    let row = Row::relayed(2, second, "gpt-4o").token(1, "alice-key").tokens(10, 5);
    row.quota(number).request_id(&format!("r-{number}"))
}

/// Some seconds have one row, some many, and nodes of the gateway disagree by a second.
fn log_of(new_api: &NewApi, count: i64) {
    for number in 1..=count {
        let second = START + number * (SECONDS - 2) / count + number % 2;
        new_api.insert(call(number, second));
        if number % 25 == 0 {
            new_api.insert(Row { kind: 6, ..call(number, second) });
        }
    }
}

fn read(new_api: &NewApi, kind: RowKind) -> Vec<Piece> {
    let mut reading = Reading::new(Arc::new(gateway(new_api)), window(), kind, Ids::Unknown);
    let mut pieces = Vec::new();
    run(async {
        while let Some(piece) = reading.next_piece().await.unwrap() {
            pieces.push(piece);
        }
    });
    pieces
}

#[track_caller]
fn assert_whole(new_api: &NewApi, pieces: &[Piece], kind: RowKind, what: &str) {
    let read = pieces.iter().flat_map(|piece| &piece.rows);
    let mut found: Vec<_> = read.map(|row| (row.second, row.quota_units)).collect();
    assert!(found.is_sorted_by_key(|(second, _)| *second), "{what}: oldest first");
    let there = new_api.log(|log| log.rows());
    let asked = there.iter().filter(|row| row.kind == kind.number());
    let mut expected: Vec<_> = asked.map(|row| (row.created_at, row.quota)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{what}");
    let spans: Vec<_> = pieces.iter().map(|piece| (piece.window.from_second(), piece.window.to_second())).collect();
    assert!(spans[0].0 == START && spans[spans.len() - 1].1 == START + SECONDS - 1, "{what}: {spans:?}");
    assert!(spans.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{what}: no gap in {spans:?}");
}

#[test]
fn every_generation_and_log_store_is_read_completely() {
    for dialect in [Dialect::Current, Dialect::Of2025, Dialect::BareList] {
        for store in [LogStore::Sql, LogStore::ClickHouse] {
            let what = format!("{dialect:?} on {store:?}");
            let new_api = NewApi::start();
            new_api.speak(dialect);
            new_api.keep_log_in(store);
            log_of(&new_api, 300);
            for kind in [RowKind::Consumption, RowKind::Refund] {
                let pieces = read(&new_api, kind);
                assert_whole(&new_api, &pieces, kind, &what);
                let expected = if store == LogStore::Sql { Ids::Stable } else { Ids::MadeUp };
                assert_eq!(pieces.last().unwrap().ids, expected, "{what}");
                let has_ids = pieces.iter().flat_map(|piece| &piece.rows).all(|row| row.log_id.is_some());
                assert_eq!(has_ids, store == LogStore::Sql, "{what}");
            }
        }
    }
}

#[test]
fn rows_that_come_or_go_between_pages_are_read_all_the_same() {
    for dialect in [Dialect::Current, Dialect::Of2025, Dialect::BareList] {
        for (what, is_added) in [("a row came", true), ("a row went", false)] {
            let what = format!("{dialect:?}: {what}");
            let new_api = NewApi::start();
            new_api.speak(dialect);
            log_of(&new_api, 150);
            let page = if dialect == Dialect::BareList { 1 } else { 2 };
            new_api.before_page(page, move |log| match is_added {
                true => drop(log.insert(call(9999, START + SECONDS - 1))),
                false => log.delete(log.rows()[0].id),
            });
            assert_whole(&new_api, &read(&new_api, RowKind::Consumption), RowKind::Consumption, &what);
        }
    }
}

#[test]
fn figures_status_and_options_are_told() {
    let new_api = NewApi::start();
    log_of(&new_api, 50);
    new_api.set_option("webhook_url", "http://127.0.0.1:4000/api/webhooks/events");
    new_api.log_consumption(false);
    new_api.set_now_secs(START);
    run(async {
        let gateway = gateway(&new_api);
        assert_eq!(gateway.quota_sum(window()).await, Ok((1..=50).sum()));
        assert_eq!(gateway.count(window(), RowKind::Consumption).await, Ok(Some(50)));
        assert_eq!(gateway.count(window(), RowKind::Refund).await, Ok(Some(2)));
        let status = gateway.status().await.unwrap();
        assert!(matches!(status.quota_per_unit, StatedQuota::Stated(quota) if quota.get() == 500_000));
        assert_eq!(status.source_time.unwrap().as_secs(), START);
        let options = gateway.options().await.unwrap();
        assert_eq!(options.webhook_url.as_deref(), Some("http://127.0.0.1:4000/api/webhooks/events"));
        assert_eq!(options.log_consume_enabled, Some(false));
        new_api.remove_option("webhook_url");
        assert_eq!(gateway.options().await.unwrap().webhook_url, None);
    });
}

#[test]
fn each_fault_has_its_reason_and_its_number_of_tries() {
    type Check = fn(&GatewayError) -> bool;
    let new_api = NewApi::start();
    log_of(&new_api, 5);
    // Ends far from everything that was asked for.
    new_api.insert(call(6, START - 100));
    let gateway = |timeout_secs| {
        gateway_of(&new_api, &new_api.root_access_token(), 1, |settings| {
            settings.timeout = Duration::from_secs(timeout_secs);
        })
    };
    // Only silence is to be found out by time.
    let (patient, hasty) = (gateway(30), gateway(2));
    let elsewhere = NewApi::start();
    for (fault, requests, is_right) in [
        (Fault::TooManyRequests, 2, (|error| matches!(error, GatewayError::RateLimited { .. })) as Check),
        (Fault::Html(502), 2, |error| matches!(error, GatewayError::ServerFailed { status: 502 })),
        (Fault::Html(504), 1, GatewayError::is_too_slow),
        (Fault::Html(200), 1, |error| error.condition() == Some("not_new_api")),
        (Fault::Html(403), 1, |error| error.condition() == Some("not_new_api")),
        (Fault::ServerError, 2, |error| matches!(error, GatewayError::ServerFailed { status: 500 })),
        (Fault::Hang, 1, |error| matches!(error, GatewayError::TimedOut { .. })),
        (Fault::Cut, 2, |error| matches!(error, GatewayError::BrokenAnswer { .. })),
        (Fault::HalfABody, 2, |error| matches!(error, GatewayError::BrokenAnswer { .. })),
        (Fault::Oversized(9 << 20), 1, |error| matches!(error, GatewayError::TooLong { .. })),
        (Fault::Refused("no".to_owned()), 1, |error| matches!(error, GatewayError::Refused { said } if said == "no")),
        (Fault::Redirect(elsewhere.url()), 1, |error| matches!(error, GatewayError::Redirected { .. })),
        (Fault::TimesIgnored, 1, |error| error.condition() == Some("filter_ignored")),
    ] {
        let what = format!("{fault:?}");
        new_api.forget_requests();
        let gateway = if matches!(fault, Fault::Hang) { &hasty } else { &patient };
        new_api.fail(fault);
        let error = run(gateway.page(window(), RowKind::Consumption, 0)).unwrap_err();
        new_api.heal();
        assert!(is_right(&error), "{what}: {error}");
        assert_eq!(new_api.count(Endpoint::LogRows), requests, "{what}");
        assert!(!error.to_string().contains(&new_api.root_access_token()), "{error}");
    }
    assert_eq!(elsewhere.count_of_all(), 0, "no token went elsewhere");
    new_api.fail_next(1, Fault::HalfABody);
    assert_eq!(run(patient.page(window(), RowKind::Consumption, 0)).unwrap().rows.len(), 5);
}

#[test]
fn who_may_not_ask_is_told_why() {
    let new_api = NewApi::start();
    for (id, name, role) in [(2, "admin", Role::Admin), (3, "common", Role::Common), (4, "banned", Role::Root)] {
        new_api.add_user(User { is_banned: name == "banned", ..User::new(id, name, role) });
    }
    let ask = |token: &str, user_id| {
        let gateway = gateway_of(&new_api, token, user_id, |_| {});
        run(async { (gateway.page(window(), RowKind::Consumption, 0).await, gateway.options().await) })
    };
    let root = new_api.root_access_token();
    assert!(matches!(ask("wrong", 1).0, Err(GatewayError::TokenRefused { .. })));
    assert!(matches!(ask(&root, 2).0, Err(GatewayError::WrongUser { .. })));
    let (log, options) = ask("access-token-of-admin", 2);
    assert!(log.is_ok() && matches!(options, Err(GatewayError::NotRoot { .. })), "{options:?}");
    assert!(matches!(ask("access-token-of-common", 3).0, Err(GatewayError::NotAdmin { .. })));
    assert!(matches!(ask("access-token-of-banned", 4).0, Err(GatewayError::UserBanned { .. })));
    assert!(ask(&format!("Bearer {root}"), 1).0.is_ok());
    assert!(new_api.requests().iter().all(|entry| entry.status.is_some()));
}
