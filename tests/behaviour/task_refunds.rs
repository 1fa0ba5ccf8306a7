//! Refunds and price differences of asynchronous tasks, as new-api's log tells of them: each finds the charge that it
//! gives back, gives it back once, and never creates credits.

use std::time::Duration;

use crate::kit::newapi::{Call, Task};
use crate::kit::wait::wait_until;
use crate::two_channels::{PATIENCE, Rig};

/// 3.66 credits.
const PRICE: i64 = 1830;

/// A daemon that reads the log, and the second from which on it does. Its clock stands a minute later.
struct Tasks {
    rig: Rig,
    start: i64,
}

impl Tasks {
    #[track_caller]
    fn start(settings: &[(&str, &str)]) -> Self {
        let pull = [("HOOKLEDGER__POLLING__MODE", "pull")];
        let rig = Rig::start(&[&pull, settings].concat());
        rig.wait_for_a_pass();
        let start = rig.daemon.clock().now_secs() + 1;
        rig.daemon.clock().advance(Duration::from_secs(60));
        Tasks { rig, start }
    }

    fn submission(&self, second: i64) -> Call {
        Call::new(42, "sora-2", self.start + second).quota(PRICE)
    }

    fn submit(&self, task_id: &str, second: i64) -> Task {
        self.rig.newapi.submit_task(task_id, &self.submission(second))
    }

    fn fail(&self, task: &Task, second: i64) {
        self.rig.newapi.fail_task(task, self.start + second);
    }

    fn rows(&self, state: &str) -> i64 {
        self.rig.books().scalar_i64(&format!("SELECT COUNT(*) FROM hookledger_rows WHERE state = '{state}'"))
    }

    #[track_caller]
    fn wait_for(&self, state: &str, count: i64) {
        wait_until(&format!("{count} rows are {state}"), PATIENCE, || (self.rows(state) == count).then_some(()));
    }

    /// The user's balance and what he owes below one credit, in thousandths.
    fn account(&self) -> (i64, i64) {
        let (books, user) = (self.rig.books(), &self.rig.user);
        let sql = format!("SELECT remainder_femtos FROM hookledger_accounts WHERE user_id = '{user}'");
        (books.balance(user), books.scalar_i64(&sql) / 1_000_000_000_000)
    }

    fn reason(&self) -> String {
        self.rig.books().scalar_text("SELECT reason FROM hookledger_rows WHERE state = 'refund_open'")
    }

    /// Two more passes change nothing.
    #[track_caller]
    fn assert_stays(&self, account: (i64, i64)) {
        self.rig.wait_for_a_pass();
        assert_eq!(self.account(), account);
        self.rig.books().assert_whole();
        self.rig.books().assert_carried_exactly();
    }
}

#[test]
fn a_failed_task_is_given_back_and_its_charge_shows_it() {
    let tasks = Tasks::start(&[]);
    let task = tasks.submit("task-1", 1);
    tasks.rig.wait_for_charges(1);
    assert_eq!(tasks.account(), (997, 660));
    tasks.fail(&task, 1);
    tasks.wait_for("refunded", 1);
    tasks.assert_stays((1000, 0));
    let charge = tasks.rig.books().scalar_text("SELECT claim_id FROM hookledger_claims");
    let shown = tasks.rig.daemon.command_json(&["charges", "show", &charge]);
    let refund = &shown["refunds"][0];
    assert_eq!(refund["origin"], "log", "{shown}");
    assert_eq!(refund["reason"], "task task-1: upstream failed", "{shown}");
    assert_eq!((&refund["amount"], &refund["credits"]), (&"3.66".into(), &3.into()), "{shown}");
    assert_eq!(refund["transaction"]["type"], "REFUND", "{shown}");
    let refunded = tasks.rig.daemon.metric("hookledger_poll_rows_total{result=\"refunded\"}");
    let open = tasks.rig.daemon.metric("hookledger_poll_rows_total{result=\"refund_open\"}");
    assert_eq!((refunded, open), (Some(1.0), Some(1.0)));
}

#[test]
fn submission_and_failure_that_are_read_together_cost_nothing() {
    let tasks = Tasks::start(&[]);
    let task = tasks.submit("task-1", 1);
    tasks.fail(&task, 1);
    let older = tasks.submit("task-2", 2);
    tasks.rig.newapi.refund_as_negative(&older, tasks.start + 3);
    tasks.wait_for("refunded", 2);
    tasks.assert_stays((1000, 0));
}

#[test]
fn a_submission_that_an_event_told_of_is_given_back() {
    let tasks = Tasks::start(&[]);
    let task = tasks.rig.newapi.submit_task("task-1", &tasks.submission(1).late());
    assert_eq!(tasks.rig.daemon.post(task.submission.usage("e").json()).status, 200);
    tasks.fail(&task, 2);
    tasks.wait_for("refunded", 1);
    tasks.assert_stays((1000, 0));
    tasks.rig.newapi.log(|log| log.reveal_all());
    tasks.wait_for("tied", 1);
    tasks.assert_stays((1000, 0));
}

#[test]
fn a_task_that_cost_less_gives_back_the_difference_and_then_only_the_rest() {
    let tasks = Tasks::start(&[]);
    let first = tasks.submit("task-1", 1);
    let second = tasks.submit("task-2", 2);
    // The newest charge is tied to the first task: the second one must find the other, although that is older.
    tasks.rig.newapi.settle_task(&first, 830, tasks.start + 3).unwrap();
    tasks.fail(&second, 4);
    tasks.wait_for("refunded", 2);
    tasks.assert_stays((999, 660));
    // More than is left of its task is never given back.
    tasks.fail(&first, 5);
    tasks.wait_for("refund_open", 1);
    tasks.assert_stays((999, 660));
    assert_eq!(tasks.reason(), "it asks for more than is left of its task's charges");
}

#[test]
fn a_task_that_cost_more_and_then_failed_is_given_back_whole() {
    let tasks = Tasks::start(&[]);
    let mut task = tasks.submit("task-1", 1);
    tasks.rig.newapi.settle_task(&task, 3000, tasks.start + 2).unwrap();
    tasks.rig.wait_for_charges(2);
    assert_eq!(tasks.account(), (994, 0));
    task.submission.quota = 3000;
    tasks.fail(&task, 3);
    tasks.wait_for("refunded", 1);
    tasks.assert_stays((1000, 0));
    assert_eq!(tasks.rig.books().scalar_i64("SELECT COUNT(*) FROM hookledger_refunds WHERE origin = 'log'"), 2);
}

#[test]
fn a_task_that_cost_more_keeps_its_charge_from_other_tasks() {
    let tasks = Tasks::start(&[]);
    let dearer = tasks.submit("task-1", 1);
    tasks.rig.newapi.settle_task(&dearer, 2330, tasks.start + 2).unwrap();
    tasks.rig.wait_for_charges(2);
    tasks.rig.newapi.log_consumption(false);
    let unbooked = tasks.submit("task-2", 3);
    tasks.fail(&unbooked, 4);
    tasks.wait_for("refund_open", 1);
    tasks.assert_stays((996, 660));
}

#[test]
fn a_refund_without_a_charge_creates_no_credits_and_waits_for_one() {
    let tasks = Tasks::start(&[]);
    tasks.rig.newapi.log_consumption(false);
    let task = tasks.submit("task-1", 1);
    tasks.fail(&task, 2);
    tasks.wait_for("refund_open", 1);
    tasks.rig.wait_for_a_pass();
    assert_eq!(tasks.rig.books().balance(&tasks.rig.user), 1000);
    assert_eq!(tasks.reason(), "no charge of its token and model has this price and was not given back");
    // A later charge, another model and another price are not what it gives back.
    for (second, model, quota) in [(3, "sora-2", PRICE), (1, "sora-3", PRICE), (1, "sora-2", PRICE + 1)] {
        let call = Call::new(42, model, tasks.start + second).quota(quota).tokens(0, 0);
        let called = tasks.rig.newapi.call(&call);
        assert_eq!(tasks.rig.daemon.post(called.usage(&format!("other-{second}-{model}-{quota}")).json()).status, 200);
    }
    tasks.rig.wait_for_a_pass();
    assert_eq!(tasks.rows("refund_open"), 1);
    assert_eq!(tasks.rig.daemon.post(task.submission.usage("e").json()).status, 200);
    tasks.wait_for("refunded", 1);
    tasks.assert_stays((990, 982));
}

#[test]
fn a_submission_that_names_its_task_decides() {
    let tasks = Tasks::start(&[]);
    let named = tasks.rig.newapi.submit_task_with_id("task-1", &tasks.submission(1));
    let other = tasks.submit("task-2", 2);
    tasks.fail(&named, 3);
    tasks.wait_for("refunded", 1);
    let given_back =
        "SELECT c.call_second FROM hookledger_refunds AS r JOIN hookledger_claims AS c ON c.claim_id = r.claim_id";
    assert_eq!(tasks.rig.books().scalar_i64(given_back), tasks.start + 1, "not the newest");
    tasks.fail(&other, 4);
    tasks.wait_for("refunded", 2);
    tasks.assert_stays((1000, 0));
}

#[test]
fn what_only_a_person_can_tell_stays_open_for_him() {
    let tasks = Tasks::start(&[]);
    tasks.rig.newapi.refund_midjourney(PRICE, tasks.start + 1);
    tasks.wait_for("refund_open", 1);
    assert_eq!(tasks.reason(), "it names no token: nobody can know whose it is");
    assert_eq!(tasks.rig.books().balance(&tasks.rig.user), 1000);
}

#[test]
fn charges_at_different_rates_are_left_to_a_person_for_good() {
    let tasks = Tasks::start(&[]);
    let early = tasks.submit("task-1", 1);
    tasks.rig.wait_for_charges(1);
    tasks.rig.books().set_option("UsdToCreditsRate", "2000");
    tasks.rig.daemon.clock().advance(Duration::from_secs(6));
    wait_until("the rate is noticed", PATIENCE, || {
        let sql = "SELECT COUNT(*) FROM hookledger_prices WHERE kind = 'usd_to_credits_micros' AND value = 2000000000";
        (tasks.rig.books().scalar_i64(sql) == 1).then_some(())
    });
    tasks.rig.daemon.clock().advance(Duration::from_secs(120));
    let late = tasks.submit("task-2", 180);
    tasks.rig.wait_for_charges(2);
    tasks.fail(&early, 181);
    tasks.wait_for("refund_open", 1);
    tasks.rig.wait_for_a_pass();
    assert!(tasks.reason().contains("differ in owner or rate"), "{}", tasks.reason());
    // He gives one of them back: the other one must not be taken for it.
    let charge = tasks.rig.books().scalar_text("SELECT claim_id FROM hookledger_claims ORDER BY call_second LIMIT 1");
    let refund = ["charges", "refund", &charge, "--reason", "task-1 failed"];
    assert!(tasks.rig.daemon.command(&refund).status.success());
    tasks.rig.wait_for_a_pass();
    assert_eq!((tasks.rows("refund_open"), tasks.account()), (1, (993, 320)));
    // What comes later is not in doubt.
    tasks.fail(&late, 182);
    tasks.wait_for("refunded", 1);
    tasks.assert_stays((1000, 0));
}

#[test]
fn under_nearest_a_refund_gives_back_what_was_rounded() {
    let tasks = Tasks::start(&[("HOOKLEDGER__LEDGER__ROUNDING", "nearest")]);
    let task = tasks.submit("task-1", 1);
    tasks.rig.wait_for_charges(1);
    assert_eq!(tasks.account(), (996, 0));
    // 1.66 is left of 3.66: 4 less 2.
    tasks.rig.newapi.settle_task(&task, 830, tasks.start + 2).unwrap();
    tasks.wait_for("refunded", 1);
    assert_eq!(tasks.account(), (998, 0));
}

#[test]
fn a_charge_in_credits_gives_back_the_share_of_its_row() {
    let tasks = Tasks::start(&[]);
    let task = tasks.submit("task-1", 1);
    tasks.rig.wait_for_charges(1);
    // The sender's price is final: 4 credits instead of 3.66.
    let event = task.submission.usage("e").without_data_field("quota").credit_cost(4);
    assert_eq!(tasks.rig.daemon.post(event.json()).status, 200);
    assert_eq!(tasks.account(), (996, 0));
    tasks.rig.newapi.settle_task(&task, PRICE / 2, tasks.start + 2).unwrap();
    tasks.wait_for("refunded", 1);
    tasks.rig.wait_for_a_pass();
    assert_eq!(tasks.account(), (998, 0));
    tasks.rig.books().assert_carried_exactly();
}

#[test]
fn a_refund_cut_off_by_a_kill_gives_back_once() {
    for point in ["store.task_refunds.written", "store.task_refunds.committed"] {
        let mut tasks = Tasks::start(&[("FAILPOINTS", &format!("{point}=1*return(kill)"))]);
        let task = tasks.submit("task-1", 1);
        tasks.fail(&task, 2);
        tasks.rig.daemon.wait_exit(PATIENCE).unwrap();
        tasks.rig.daemon.unset_environment("FAILPOINTS");
        tasks.rig.daemon.restart();
        tasks.wait_for("refunded", 1);
        tasks.assert_stays((1000, 0));
    }
}
