//! Killed at every fail point there is: which test kills where, and the places that only one database has.

use std::fs;
use std::path::Path;

use crate::crashes::{assert_charged_once, patient, usage_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::sender::deliver;

const ON_THE_ROAD: &str = "crashes::killed_at_every_fail_point_in_turn";
const FIRST_START: &str = "lost::a_first_start_that_was_cut_off_is_no_lost_ledger";

/// Places, or what they begin with, and the test that kills the process there. It runs on every database that has them.
const KILLED: &[(&str, &str)] = &[
    ("receiver.", ON_THE_ROAD),
    ("ledger.", ON_THE_ROAD),
    ("logger.", ON_THE_ROAD),
    ("store.settle.", ON_THE_ROAD),
    ("store.record.", ON_THE_ROAD),
    ("webhook.", ON_THE_ROAD),
    ("scheduler.wake", ON_THE_ROAD),
    ("supervisor.look", ON_THE_ROAD),
    ("store.rates.written", "crashes::a_first_start_that_is_killed_leaves_a_whole_price_list"),
    ("store.grant.", "crashes::a_grant_cut_off_by_a_kill_adds_once"),
    ("store.refund.", "crashes::a_refund_cut_off_by_a_kill_gives_back_once"),
    ("store.task_refunds.", "task_refunds::a_refund_cut_off_by_a_kill_gives_back_once"),
    ("polling.", "two_channels_crashes::killed_at_any_point_of_a_run_it_goes_on_without_loss_or_double"),
    ("store.retention.written", "retention::a_kill_between_the_steps_forgets_nothing_that_can_be_charged"),
    ("store.repair.page", "apart::a_repair_killed_in_the_middle_goes_on"),
    ("store.migrate.tables", FIRST_START),
    ("store.migrate.tables", "kills::a_servers_first_start_is_killed_after_each_statement"),
    ("store.marker.", FIRST_START),
    ("store.backup.", "backup::a_backup_that_was_killed_leaves_at_most_a_partial_file_which_the_next_one_replaces"),
    ("store.restore.", "restore::a_restore_that_was_killed_can_be_repeated"),
];

#[test]
fn every_fail_point_has_a_test_that_kills_there() {
    for point in hookledger::failpoint::ALL {
        assert!(KILLED.iter().any(|(place, _)| point.starts_with(place)), "nobody kills at {point}");
    }
    for (place, test) in KILLED {
        assert!(hookledger::failpoint::ALL.iter().any(|point| point.starts_with(place)), "{place} is gone");
        let (file, name) = test.rsplit_once("::").unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/behaviour/{file}.rs"));
        let text = fs::read_to_string(path).unwrap();
        let body = text.split_once(&format!("fn {name}()")).unwrap_or_else(|| panic!("{test} is gone")).1;
        let body = body.split("\n#[test]").next().unwrap();
        assert!(body.contains("kill"), "{test} kills nobody");
        assert!(text.contains(place), "{file} does not know {place}");
    }
}

#[test]
fn a_servers_first_start_is_killed_after_each_statement() {
    only_on_a_server!();
    let daemon = Daemon::prepare(DaemonOptions::new());
    let mut kills = 0;
    // Each start makes what is missing, and dies after a few statements more than the one before.
    for passes in (0..).step_by(3) {
        let place = format!("store.migrate.tables={passes}*off->1*return(kill)");
        let output = daemon.command_with(&["migrate"], &[("FAILPOINTS", &place)]);
        if output.status.success() {
            break;
        }
        kills += 1;
        assert!(kills < 100, "it gets to its end");
    }
    assert!(kills > 3, "there are statements to be killed after: {kills}");
    daemon.restart();
    with_users(&daemon);
    deliver(daemon.address(), SECRET, usage_bodies(20, "e"), 4, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon.books(), 20);
}
