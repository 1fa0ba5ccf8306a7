//! What is done to one life of the daemon: chosen at random from a seed, so that the choices can be repeated.

use crate::kit::database::is_sqlite;
use crate::kit::random::Random;

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Kill,
    /// Before it was ready.
    KillStarting,
    /// By itself, at a fail point; killed if it does not get there.
    AtPoint(&'static str),
    Terminate,
}

/// What is done while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    GatewayFails,
    GatewayCut,
    /// Another program holds the lock of all writers.
    DatabaseLocked,
    ServerKilled,
    ServerPaused,
    ClockJumps,
    Reload,
    BadReload,
    /// The whole process is stopped, as when a machine sleeps.
    Stopped,
    Grant,
    Refund,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub ending: Ending,
    pub fail_points: String,
    /// From being ready to the end, without what disturbances take.
    pub millis: u64,
    pub disturbances: Vec<Disturbance>,
    /// Another program holds the lock of all writers when it starts.
    pub starts_locked: bool,
    /// A clock that jumped before goes right from here on.
    pub is_clock_put_right: bool,
}

/// Where an actor passes with each message.
const ACTORS: [&str; 4] = ["receiver.handle", "logger.handle", "ledger.handle", "scheduler.wake"];

/// How often each of them ends in a storm, and how often each hangs.
const STORM: usize = 14;
const HANGS: usize = 2;
/// Longer than `supervisor.hang_timeout`, by enough that a busy machine notices.
const HANG_MILLIS: u64 = 3500;

/// Places that traffic, passes over the log and an operator's commands reach.
const REACHED: &[&str] = &[
    "receiver.",
    "ledger.",
    "logger.",
    "store.settle.",
    "store.record.",
    "webhook.",
    "scheduler.wake",
    "supervisor.look",
    "polling.",
    "store.grant.",
    "store.refund.",
];

/// Every fail point at which a chaos run kills.
pub fn points() -> Vec<&'static str> {
    let is_reached = |point: &&str| REACHED.iter().any(|part| point.starts_with(part));
    hookledger::failpoint::ALL.iter().copied().filter(is_reached).collect()
}

/// Of these, the steps that may fail or panic without an end of the life: not where an actor takes a message or looks, and
/// not in a command's own books.
fn steps() -> Vec<&'static str> {
    let ends_an_actor =
        |point: &str| point.ends_with(".handle") || point == "scheduler.wake" || point == "supervisor.look";
    let is_commands = |point: &str| point.starts_with("store.grant.") || point.starts_with("store.refund.");
    points().into_iter().filter(|point| !ends_an_actor(point) && !is_commands(point)).collect()
}

impl Plan {
    pub fn random(random: &mut Random) -> Self {
        let roll = random.below(100);
        let mut plan = Plan {
            ending: Ending::Kill,
            fail_points: String::new(),
            millis: random.below(500),
            disturbances: Vec::new(),
            starts_locked: random.chance(2, 100),
            is_clock_put_right: random.chance(1, 2),
        };
        let mut disturbed = 40;
        match roll {
            0..42 => {}
            42..48 => (plan.ending, plan.millis) = (Ending::KillStarting, random.below(100)),
            48..78 => plan.kill_at_a_point(random),
            78..84 => plan.ending = Ending::Terminate,
            84..96 => {
                plan.fail_points = storm(random);
                plan.millis = 2500 + random.below(1500);
                disturbed = 60;
            }
            _ => {
                plan.fail_points = hangs(random);
                plan.millis = 4500 + random.below(1000);
                if random.chance(1, 2) {
                    plan.ending = Ending::Terminate;
                }
            }
        }
        if plan.ending != Ending::KillStarting && random.chance(disturbed, 100) {
            plan.disturbances.push(disturbance(random));
        }
        plan
    }

    fn kill_at_a_point(&mut self, random: &mut Random) {
        let place = *random.pick(&points());
        let is_of_a_command = place.starts_with("store.grant") || place.starts_with("store.refund");
        let passes = random.below(if is_of_a_command { 1 } else { 4 });
        self.ending = Ending::AtPoint(place);
        self.fail_points = format!("{place}={passes}*off->1*return(kill)");
        // Long enough for a pass over the log, a wake-up or a command.
        self.millis = 3000;
        match place {
            place if place.starts_with("store.grant") => self.disturbances.push(Disturbance::Grant),
            place if place.starts_with("store.refund") => self.disturbances.push(Disturbance::Refund),
            _ => {}
        }
    }
}

fn disturbance(random: &mut Random) -> Disturbance {
    use Disturbance::*;
    let common = [GatewayFails, GatewayFails, GatewayCut, DatabaseLocked, ClockJumps, Reload, BadReload, Stopped];
    let of_commands = [Grant, Grant, Refund, Refund];
    let of_servers = [ServerKilled, ServerPaused];
    let mut choices = [&common[..], &of_commands].concat();
    if !is_sqlite() {
        choices.extend(of_servers);
    }
    *random.pick(&choices)
}

/// Every actor ends again and again, by panics, errors and exits; and a step of somebody's fails or panics now and then.
fn storm(random: &mut Random) -> String {
    let mut programs: Vec<String> = Vec::new();
    for place in ACTORS {
        let ends: Vec<String> = (0..STORM)
            .map(|_| {
                let action = random.pick(&["panic(chaos)", "return(error)", "return(exit)"]);
                match place {
                    // It wakes once a second.
                    "scheduler.wake" => format!("1*{action}"),
                    _ => format!("{}*off->1*{action}", 1 + random.below(15)),
                }
            })
            .collect();
        programs.push(format!("{place}={}", ends.join("->")));
    }
    let steps = steps();
    let step = random.pick(&steps);
    let action = random.pick(&["panic(chaos)", "return(error)"]);
    programs.push(format!("{step}=5*off->1*{action}->9*off->2*{action}->20*off->1*{action}"));
    programs.join(";")
}

/// Threads of actors hang for longer than the supervisor waits, and wake later.
fn hangs(random: &mut Random) -> String {
    let programs = ACTORS.map(|place| {
        let passes = if place == "scheduler.wake" { 1 } else { 5 + random.below(20) };
        let one = format!("{passes}*off->1*sleep({HANG_MILLIS})");
        format!("{place}={}", vec![one; HANGS].join("->"))
    });
    programs.join(";")
}
