//! `hookledger sync`: the log read by hand, by the daemon where one runs and by the command itself where none does.
//!
//! This file holds what its parts share.

#[path = "sync_beside.rs"]
mod beside;
#[path = "sync_failures.rs"]
mod failures;
#[path = "sync_history.rs"]
mod history;
#[path = "sync_keys.rs"]
mod keys;
#[path = "sync_passes.rs"]
mod passes;
#[path = "sync_restored.rs"]
mod restored;
#[path = "sync_terminal.rs"]
mod terminal;

use serde_json::Value;

use crate::commands::{Ran, ran};
use crate::kit::newapi::Call;
use crate::two_channels::{Rig, UNITS_PER_CREDIT};

/// Nobody reads the log but who asks for it.
const OFF: (&str, &str) = ("HOOKLEDGER__POLLING__MODE", "off");

/// Who carries a sync out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Daemon,
    Command,
}

const BOTH: [By; 2] = [By::Daemon, By::Command];

/// A gateway whose log nobody reads by himself. Coverage began four minutes ago, so that calls may lie there.
#[track_caller]
fn unread(by: By) -> Rig {
    let rig = Rig::start(&[OFF]);
    assert_eq!(rig.daemon.command_json(&["sync"])["read"], 0);
    rig.advance_secs(240);
    rest(&rig, by);
    rig
}

/// Ends the daemon where the command is to do it.
#[track_caller]
fn rest(rig: &Rig, by: By) {
    if by == By::Command {
        assert_eq!(rig.daemon.terminate(), 0);
    }
}

#[track_caller]
fn synced(rig: &Rig, arguments: &[&str]) -> Value {
    rig.daemon.command_json(&[&["sync"], arguments].concat())
}

/// A sync that must fail so; what it says.
#[track_caller]
fn refused(rig: &Rig, arguments: &[&str], code: i32) -> String {
    let Ran { code: found, stdout, stderr } = ran(&rig.daemon, &[&["sync"], arguments].concat(), &[]);
    assert_eq!((found, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
    stderr
}

/// The named numbers of a summary.
#[track_caller]
fn numbers<const COUNT: usize>(summary: &Value, names: [&str; COUNT]) -> [i64; COUNT] {
    names.map(|name| summary[name].as_i64().unwrap_or_else(|| panic!("no {name} in {summary}")))
}

/// A second as the command line takes it.
pub fn time(at_secs: i64) -> String {
    let days = at_secs.div_euclid(86_400);
    let (hour, minute, second) =
        (at_secs.rem_euclid(86_400) / 3600, at_secs.rem_euclid(3600) / 60, at_secs.rem_euclid(60));
    // The civil calendar, from days since 1970.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// So many calls of one credit each, of different content, a second apart from this one on.
fn calls(rig: &Rig, token: i64, from_secs: i64, count: i64) {
    for number in 0..count {
        let call = Call::new(token, "gpt-4", from_secs + number).tokens(10 + number, 5).quota(UNITS_PER_CREDIT);
        rig.newapi.call(&call);
    }
}

/// What is covered, as it is stored.
fn spans(rig: &Rig) -> Vec<String> {
    let sql = "SELECT from_second, until_second, proof FROM hookledger_spans ORDER BY from_second";
    rig.books().rows(sql).iter().map(|row| format!("{row:?}")).collect()
}
