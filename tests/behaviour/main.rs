//! The behaviour suite: one binary that drives the real daemon through HTTP, the command line and the database.
//!
//! One file a concern. What breaks things and looks at the books lies in `tests/kit`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which the lint does not recognise as tests

#[macro_use]
#[path = "../kit/mod.rs"]
mod kit;

mod admin_api;
mod admin_document;
mod apart;
mod audit;
mod audit_kinds;
mod audit_source;
mod audit_source_spans;
mod audit_whole;
mod backup;
mod balance;
mod charges;
mod clock_jumps;
mod commands;
mod crashes;
mod descriptors;
mod disk_full;
mod disk_slow;
mod disk_starts;
mod disk_writes;
mod disputes;
mod documentation;
mod faults;
mod file_modes;
mod gateway;
mod hostile;
mod intake;
mod kills;
mod limits;
mod lock;
mod log_figures;
mod lost;
mod lost_meanwhile;
mod money;
mod monitoring;
mod newapi_contract;
mod operation;
mod platform_commands;
mod quota_holds;
mod reload;
mod replay;
mod restore;
mod retention;
mod server_check;
mod server_crashes;
mod server_faults;
mod server_locks;
mod server_tls;
mod service_manager;
mod sockets;
mod source_changes;
mod source_conditions;
mod status;
mod style;
mod supervision;
mod supervision_database;
mod supervision_gives_up;
mod supervision_hangs;
mod sync;
mod takeover;
mod takeover_looks;
mod task_refunds;
mod tokens;
mod two_channels;
mod two_channels_counts;
mod two_channels_crashes;
mod two_channels_disputes;
mod two_channels_faults;
mod two_channels_log;
mod two_channels_outages;
mod two_channels_proof;
mod two_channels_takeover;
mod two_channels_tokens;
mod upgrade;
mod waiting;
