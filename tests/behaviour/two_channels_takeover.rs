//! Taking over from the platform while the log is read as well: what it billed is not billed again by its row.

use crate::kit::clock::now_millis;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::newapi::{Call, Called, Endpoint, Fault, NewApi, Token};
use crate::kit::platform::PlatformCall;

use super::two_channels::{PULL, Rig, UNITS_PER_CREDIT};

const TOKEN: i64 = 42;

/// A platform with one customer, and a gateway with a log; nothing has started yet.
struct Platform {
    newapi: NewApi,
    daemon: Daemon,
    taken_secs: i64,
}

impl Platform {
    fn new() -> Self {
        let newapi = NewApi::start();
        newapi.add_token(Token::new(TOKEN, "alice-key").owned_by(1));
        let mut options = DaemonOptions::new().movable_clock();
        for (name, value) in Rig::settings_for(&newapi).into_iter().chain([(PULL.0.to_owned(), PULL.1.to_owned())]) {
            options = options.set(&name, value);
        }
        let daemon = Daemon::prepare(options);
        daemon.books().platform_customer("u", "k", TOKEN, 1000);
        newapi.follow(&daemon.clock());
        Platform { newapi, daemon, taken_secs: now_millis() / 1000 }
    }

    fn start(self) -> Rig {
        self.daemon.launch();
        self.daemon.wait_ready();
        Rig { newapi: self.newapi, daemon: self.daemon, user: "u".to_owned() }
    }
}

fn call(newapi: &NewApi, at_secs: i64, prompt: i64) -> Called {
    newapi.call(&Call::new(TOKEN, "gpt-4", at_secs).tokens(prompt, 2).quota(UNITS_PER_CREDIT))
}

/// What the platform books of a call: a little later, and at a price of its own.
fn billed(called: &Called, id: &str) -> PlatformCall {
    let at_millis = called.at_secs * 1000 + 2300;
    PlatformCall::new(id, "k", at_millis).tokens(called.prompt_tokens, called.completion_tokens).credits(3)
}

fn claims_of(rig: &Rig, source: &str) -> i64 {
    rig.books().scalar_i64(&format!("SELECT COUNT(*) FROM hookledger_claims WHERE source = '{source}'"))
}

#[test]
fn rows_from_before_the_moment_only_tie() {
    only_on_a_server!();
    let platform = Platform::new();
    let (newapi, books) = (&platform.newapi, platform.daemon.books());
    // Before the moment: of eight calls the platform billed six; equal ones are among them.
    for number in 0..8 {
        let called = call(newapi, platform.taken_secs - 300 + number * 5, number / 2);
        if number < 6 {
            books.platform_bills(&billed(&called, &format!("before-{number}")));
        }
    }
    let rig = platform.start();
    rig.wait_for_a_pass();
    assert_eq!(claims_of(&rig, "log"), 0, "nothing of the history is billed");
    assert_eq!((claims_of(&rig, "adopted"), rig.rows_in_state("before_takeover")), (6, 2));
    assert_eq!(rig.books().balance("u"), 1000 - 18);
    rig.cover_everything();
    assert_eq!((rig.charges(), rig.books().balance("u")), (6, 1000 - 18));
    rig.books().assert_whole_beside_the_platform(0);
}

#[test]
fn an_adopted_record_takes_one_event_and_one_row() {
    only_on_a_server!();
    let platform = Platform::new();
    let rig = platform.start();
    rig.wait_for_a_pass();
    rig.advance_secs(120);
    let at = rig.now_secs() - 60;
    // Nobody reads a row before the platform has billed its call.
    rig.newapi.fail(Fault::ServerError.on(Endpoint::LogRows));
    // The platform still bills every other call; ten equal ones, and their events in either order.
    let called: Vec<Called> = (0..20).map(|number| call(&rig.newapi, at + number / 4, number % 2)).collect();
    for (number, called) in called.iter().enumerate().filter(|(number, _)| number % 4 < 2) {
        rig.books().platform_bills(&billed(called, &format!("both-{number}")));
    }
    rig.newapi.heal();
    for (number, called) in called.iter().enumerate().filter(|(number, _)| number % 3 == 0) {
        rig.post(&called.usage_by_cost(&format!("early-{number}")));
    }
    rig.wait_for_charges(20);
    rig.wait_for_a_pass();
    for (number, called) in called.iter().enumerate().filter(|(number, _)| number % 3 == 1) {
        rig.post(&called.usage_by_cost(&format!("late-{number}")));
    }
    rig.cover_everything();
    assert_eq!(rig.charges(), 20, "each of twenty calls once");
    assert_eq!(claims_of(&rig, "adopted"), 10);
    assert_eq!(rig.books().balance("u"), 1000 - 10 * 3 - 10);
    assert_eq!(rig.tied(), 14, "each event has a row");
    rig.books().assert_whole_beside_the_platform(0);
}
