//! Carries out what is done to a living daemon and to what it lives with, and puts it right again.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::chaos::Chaos;
use crate::kit::database::is_sqlite;
use crate::kit::mariadb::shared_server;
use crate::kit::newapi::{Endpoint, Fault};
use crate::kit::process::send_signal;
use crate::kit::wait::pause;
use crate::plan::Disturbance;
use crate::rig::{BAD_CONFIG, GOOD_CONFIG};

const HOUR_MILLIS: i64 = 3_600_000;

impl Chaos {
    pub fn disturb(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::GatewayFails => self.fail_gateway(),
            Disturbance::GatewayCut => {
                self.tally.count("new-api's connections cut");
                self.rig.newapi.cut();
            }
            Disturbance::DatabaseLocked => {
                self.tally.count("database locked by another program");
                let hold = self.rig.daemon.books().hold_writers();
                pause(self.some(50..=1500));
                drop(hold);
            }
            Disturbance::ServerKilled => {
                self.tally.count("database server killed and started again");
                shared_server().kill();
                pause(self.some(0..=500));
                shared_server().start_again();
            }
            Disturbance::ServerPaused => self.pause_server(),
            Disturbance::ClockJumps => self.move_clock(),
            Disturbance::Reload => self.reload("SIGHUP with a good configuration", GOOD_CONFIG),
            Disturbance::BadReload => self.reload("SIGHUP with a configuration that is refused", BAD_CONFIG),
            Disturbance::Stopped => {
                self.tally.count("process stopped and continued");
                if self.rig.daemon.signal("STOP") {
                    pause(self.some(50..=2500));
                    self.rig.daemon.signal("CONT");
                }
            }
            Disturbance::Grant => {
                self.tally.count("credits granted by a command");
                let user = self.random.below(self.rig.users.len() as u64) as usize;
                self.operator.grants(&self.rig.daemon, user, &self.rig.users[user]);
            }
            Disturbance::Refund => {
                if self.operator.refunds(&self.rig.daemon) {
                    self.tally.count("credit given back by a command");
                }
            }
        }
    }

    /// Everything works again; time has not gone back.
    pub fn heal(&mut self) {
        self.rig.newapi.heal();
        self.rig.daemon.write_config(GOOD_CONFIG);
        self.rig.daemon.clock().set_offset_millis(self.latest_offset_millis);
    }

    fn fail_gateway(&mut self) {
        let slow = Duration::from_millis(self.random.below(3000));
        let faults = [
            ("429", Fault::TooManyRequests),
            ("a proxy's page", Fault::Html(502)),
            ("silence", Fault::Hang),
            ("cut connections", Fault::Cut),
            ("half a body", Fault::HalfABody),
            ("slowness", Fault::Delay(slow)),
            ("500", Fault::ServerError),
            ("a refusal", Fault::Refused("chaos".to_owned())),
            ("statistics of zero", Fault::StatisticsOfZero),
            ("times passed over", Fault::TimesIgnored),
        ];
        let (_, fault) = self.random.pick(&faults).clone();
        self.tally.count("new-api failed");
        let script = fault.after(self.random.below(4));
        let script = if self.random.chance(1, 2) { script.on(Endpoint::LogRows) } else { script };
        // Some end with the next life, some only with the round.
        let is_short = self.random.chance(1, 2);
        self.rig.newapi.fail(if is_short { script.times(1 + self.random.below(20)) } else { script });
    }

    fn pause_server(&mut self) {
        self.tally.count("database server paused");
        let file = shared_server().folder().join("mariadbd.pid");
        let text = fs::read_to_string(file).expect("the server has a file with its number");
        let process: u32 = text.trim().parse().expect("that is a number");
        send_signal("STOP", process);
        pause(self.some(50..=2000));
        send_signal("CONT", process);
    }

    /// Up to two hours back, or up to a day and an hour forward, from where the machine is.
    fn move_clock(&mut self) {
        self.tally.count("clock jumped");
        let offset = match self.random.below(4) {
            0 => -self.random.between(0..=2 * HOUR_MILLIS),
            1 => self.random.between(0..=60_000),
            2 => self.random.between(0..=2 * HOUR_MILLIS),
            _ => self.random.between(0..=25 * HOUR_MILLIS),
        };
        self.is_clock_moved.store(true, Ordering::SeqCst);
        self.latest_offset_millis = self.latest_offset_millis.max(offset);
        self.rig.daemon.clock().set_offset_millis(offset);
    }

    fn reload(&mut self, name: &str, config: &str) {
        self.tally.count(name);
        self.rig.daemon.write_config(config);
        self.rig.daemon.signal("HUP");
        pause(self.some(0..=100));
        // A start with a configuration that is refused would be refused.
        self.rig.daemon.write_config(GOOD_CONFIG);
    }

    fn some(&mut self, millis: std::ops::RangeInclusive<i64>) -> Duration {
        // A pause of the database's server is felt by all that wait for it: shorter where each of them has its lock.
        let longest = if is_sqlite() { *millis.end() } else { *millis.end() * 2 / 3 };
        Duration::from_millis(self.random.between(*millis.start()..=longest).unsigned_abs())
    }
}
