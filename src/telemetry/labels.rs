//! Every value that a counter's label can have. Rules and dashboards in `monitoring/` rely on them.

/// Of `hookledger_webhook_requests_total`.
pub(super) const WEBHOOK_OUTCOMES: [&str; 17] = [
    "processed",
    "duplicate",
    "accepted",
    "waiting",
    "failed",
    "disputed",
    "unknown_type",
    "conflict",
    "missing_signature",
    "bad_signature",
    "malformed",
    "expired",
    "too_large",
    "rate_limited",
    "unavailable",
    "disabled",
    "forbidden_source",
];

/// Of `hookledger_ledger_settlements_total`.
pub(super) const SETTLEMENT_OUTCOMES: [&str; 9] =
    ["settled", "unpaid", "already_settled", "conflict", "unknown_key", "ambiguous_key", "error", "tied", "disputed"];

/// Of `hookledger_ledger_settlements_total`: which channel told of the call.
pub(super) const SETTLEMENT_SOURCES: [&str; 2] = ["webhook", "log"];

/// Of `hookledger_poll_rows_total`.
pub(super) const ROW_RESULTS: [&str; 9] =
    ["charged", "tied", "already_claimed", "parked", "disputed", "refunded", "refund_open", "ignored", "failed"];

/// Of `hookledger_poll_runs_total`.
pub(super) const PASS_OUTCOMES: [&str; 2] = ["done", "failed"];

/// Of `hookledger_balance_requests_total`.
pub(super) const BALANCE_OUTCOMES: [&str; 7] =
    ["found", "missing_token", "wrong_token", "unknown_key", "not_active", "ambiguous_key", "unavailable"];

/// Of `hookledger_actor_restarts_total`: the Supervisor is in nobody's care, its end ends the process.
pub(super) const SUPERVISED_ACTORS: [&str; 4] = ["receiver", "logger", "ledger", "scheduler"];

/// Of `hookledger_actor_restarts_total`.
pub(super) const CAUSES: [&str; 4] = ["panic", "error", "hang", "exit"];

/// Of `hookledger_ledger_credits_total`.
pub(super) const TRANSACTION_KINDS: [&str; 4] = ["DEDUCT", "REFUND", "RECHARGE", "ADMIN_ADJUST"];

/// Of `hookledger_config_reloads_total`.
pub(super) const RELOAD_OUTCOMES: [&str; 2] = ["applied", "refused"];

/// A value that is missing above would be a series that no alert sees in time. The tests run with this.
pub(super) fn check(value: &str, known: &[&str]) {
    debug_assert!(known.contains(&value), "{value} is missing in telemetry/labels.rs");
}
