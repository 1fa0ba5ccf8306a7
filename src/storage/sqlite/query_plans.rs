//! How the database goes about statements over tables that grow for months: what they cost must not grow with them.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::migrate::MIGRATIONS;
use super::{audit, coverage, log};

async fn plan(sql: &str) -> Vec<String> {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    for (.., sql) in MIGRATIONS {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    let explained = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(explained).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

/// Panics unless some step is this one.
fn assert_step(plan: &[String], step: &str) {
    assert!(plan.iter().any(|told| told.contains(step)), "no step is {step:?}: {plan:#?}");
}

#[tokio::test]
async fn what_is_near_is_found_however_much_the_same_hours_hold() {
    let bounds = "prompt_tokens=? AND completion_tokens=? AND call_second>? AND call_second<?";
    assert_step(
        &plan(log::EVENTS_BETWEEN).await,
        &format!("SEARCH c USING INDEX hookledger_claims_near_event (call_bucket=? AND remote_key_id=? AND {bounds})"),
    );
    assert_step(
        &plan(log::UNTIED_ROWS).await,
        &format!(
            "SEARCH c USING INDEX hookledger_claims_untied_row (call_bucket=? AND untied_row_token=? AND {bounds})"
        ),
    );
}

/// Panics if some step goes through all of a table.
fn assert_no_scan(plan: &[String]) {
    // `t` is what the statement itself has made.
    let is_scan =
        |step: &&String| step.starts_with("SCAN ") && *step != "SCAN t" && !step.starts_with("SCAN jsonb_each");
    assert_eq!(plan.iter().find(is_scan), None, "{plan:#?}");
}

#[tokio::test]
async fn open_rows_are_found_among_all_that_were_ever_read() {
    assert_no_scan(&plan(coverage::WOKEN_ROWS).await);
}

#[tokio::test]
async fn tokens_that_nobody_had_are_found_among_all_their_calls() {
    assert_no_scan(&plan(coverage::OWNED_MEANWHILE).await);
}

#[tokio::test]
async fn charges_since_a_proof_are_looked_for_in_its_seconds() {
    let plan = plan(coverage::CHARGED_SINCE).await;
    assert_no_scan(&plan);
    assert_step(&plan, "USING PRIMARY KEY (call_second>? AND call_second<?)");
}

#[tokio::test]
async fn a_page_of_usage_records_ends_where_the_next_one_begins() {
    let plan = plan(audit::UNCLAIMED).await;
    assert!(plan[0].starts_with("SEARCH r ") && plan[0].contains("(id>? AND id<?)"), "{plan:#?}");
}
