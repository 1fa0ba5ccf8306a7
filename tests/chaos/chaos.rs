//! The run: rounds of lives under load, each followed by quiet and a look at the books, until the time is up.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::actors::ActorLog;
use crate::kit::database::is_sqlite;
use crate::kit::mariadb::shared_server;
use crate::kit::random::Random;
use crate::kit::wait::Stopwatch;
use crate::load::{Load, Misfortunes, Pace, USERS};
use crate::operator::Operator;
use crate::plan::Plan;
use crate::proof;
use crate::rig::Rig;
use crate::settings::Settings;
use crate::table;
use crate::tally::{KILL_RANDOM, Tally};

/// Rounds on the same books, so that looking at them stays quick.
const ROUNDS_PER_BOOKS: u64 = 5;

const PACE: Pace = Pace { threads: 8, between: Duration::from_millis(50), misfortunes: Misfortunes::MANY };

pub struct Chaos {
    pub settings: Settings,
    /// Of everything that is chosen for a run, a generator for each life.
    seeds: Random,
    /// Of the life at hand: what is left out of one life, since it ended early, changes no other.
    pub random: Random,
    pub tally: Tally,
    pub operator: Operator,
    pub actor_log: ActorLog,
    pub is_clock_moved: Arc<AtomicBool>,
    /// How far ahead of the machine's the daemon's clock has been on these books.
    pub latest_offset_millis: i64,
    /// When the last life was ended by a kill.
    pub down_since: Option<Stopwatch>,
    /// The number of the first call of the round.
    pub first_number: i64,
    pub rig: Rig,
}

/// Bounded by `settings.duration`, or by as many kills and failures as are enough.
pub fn run(settings: &Settings) {
    println!("chaos on {}, repeated by: {}", database(), repeat(settings));
    let started = Stopwatch::start();
    let mut random = Random::from_seed(settings.seed);
    let mut tally = Tally::default();
    loop {
        let mut chaos = Chaos::on_fresh_books(settings, random.fork(), tally);
        loop {
            chaos.round();
            let is_over = started.elapsed() >= settings.duration || chaos.is_enough();
            if is_over {
                chaos.rig.daemon.kill();
                proof::judge_finds_each(&chaos.rig, chaos.operator.added());
                table::print(&database(), settings, &chaos.tally, started.elapsed());
                return;
            }
            if chaos.tally.rounds.is_multiple_of(ROUNDS_PER_BOOKS) {
                break;
            }
        }
        tally = std::mem::take(&mut chaos.tally);
    }
}

pub fn database() -> String {
    if is_sqlite() { "SQLite".to_owned() } else { "MariaDB".to_owned() }
}

fn repeat(settings: &Settings) -> String {
    let database = if is_sqlite() { "sqlite" } else { "mariadb" };
    let minutes = settings.duration.as_secs().div_ceil(60);
    format!("make chaos MINUTES={minutes} SEED={} LIVES={} DATABASE={database}", settings.seed, settings.lives)
}

impl Chaos {
    fn on_fresh_books(settings: &Settings, mut seeds: Random, tally: Tally) -> Self {
        let rig = Rig::start(&[]);
        Chaos {
            settings: settings.clone(),
            random: seeds.fork(),
            seeds,
            tally,
            operator: Operator::new(USERS),
            actor_log: ActorLog::at(rig.daemon.folder().join("stderr")),
            is_clock_moved: Arc::default(),
            latest_offset_millis: 0,
            down_since: None,
            first_number: 1,
            rig,
        }
    }

    fn is_enough(&self) -> bool {
        let Settings { enough_kills, enough_failures, .. } = self.settings;
        let is_asked = enough_kills + enough_failures > 0;
        is_asked && self.tally.kills() >= enough_kills && self.tally.actor_failures() >= enough_failures
    }

    fn round(&mut self) {
        self.first_number = self.rig.calls.next_number();
        let (sent, calls) = (self.rig.calls.count_sent(), self.rig.calls.count());
        let load = Load::start(
            self.rig.daemon.address(),
            self.rig.newapi.handle(),
            Arc::clone(&self.rig.calls),
            PACE,
            &mut self.seeds,
            Arc::clone(&self.is_clock_moved),
        );
        self.kill(KILL_RANDOM);
        for _ in 0..self.settings.lives {
            self.random = self.seeds.fork();
            let plan = Plan::random(&mut self.random);
            self.live(&plan);
            load.assert_going();
        }
        self.heal();
        self.live_well();
        self.operator.finish(&self.rig.daemon);
        let answers = load.close();
        self.is_clock_moved.store(false, Ordering::SeqCst);
        self.judge();
        let tally = &mut self.tally;
        tally.rounds += 1;
        tally.events += self.rig.calls.count_sent() - sent;
        tally.calls += (self.rig.calls.count() - calls).unsigned_abs();
        answers.right.iter().for_each(|(status, count)| *tally.statuses.entry(*status).or_default() += count);
        answers.forged.iter().for_each(|(status, count)| *tally.forged.entry(*status).or_default() += count);
        answers.met.iter().for_each(|(name, count)| tally.add(name, *count));
        println!(
            "round {}: {} kills, {} failures of actors, {} calls charged once each",
            tally.rounds,
            tally.kills(),
            tally.actor_failures(),
            tally.calls
        );
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // The daemon's own folder is kept by the kit, which says so.
        eprintln!("in round {} of: {}", self.tally.rounds + 1, repeat(&self.settings));
        if !is_sqlite() {
            let server = shared_server();
            server.stop();
            let (from, to) = (server.folder(), self.rig.daemon.folder().join("mariadb"));
            let is_kept = Command::new("cp").arg("-a").arg(from).arg(&to).status().is_ok_and(|status| status.success());
            eprintln!("{} the server's folder as {}", if is_kept { "kept" } else { "could not keep" }, to.display());
            eprintln!("once its files name that place instead of {}: scripts/mariadb.sh start FOLDER", from.display());
        }
    }
}
