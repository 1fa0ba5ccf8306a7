//! A real disk that is full, and one that may only be read: the embedded database on a small file system of its own.
//!
//! Mounting one takes privileges; without them each test says that it is not run.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::crashes::{assert_charged_once, assert_documented, usage_bodies, with_users};
use crate::disk_writes::FILES;
use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::tell_not_run;
use crate::kit::events::Usage;
use crate::kit::folder::TestFolder;
use crate::kit::mounts::SmallDisk;
use crate::kit::process::{exit_code, run};
use crate::kit::sender::{Retry, start_delivery};
use crate::kit::strace::Fault;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon whose database lies on a small disk.
struct Rig {
    daemon: Daemon,
    disk: SmallDisk,
    database: PathBuf,
    /// Where it is mounted.
    _folder: TestFolder,
}

impl Rig {
    fn prepare(kib: u32) -> Option<Rig> {
        Rig::prepare_with(kib, DaemonOptions::new())
    }

    /// Nothing where that is not permitted, which is said.
    fn prepare_with(kib: u32, options: DaemonOptions) -> Option<Rig> {
        let folder = TestFolder::new();
        let Some(disk) = SmallDisk::mount(folder.path(), kib) else {
            tell_not_run("only where file systems may be mounted");
            return None;
        };
        let database = folder.path().join("hookledger.db");
        let options = options
            .set("HOOKLEDGER__DATABASE__URL", format!("sqlite://{}", database.display()))
            .set("HOOKLEDGER__ADMIN__SOCKET", "{folder}/admin.sock")
            .set("HOOKLEDGER__DATABASE__START_TIMEOUT", "30s")
            .wrapper(&disk.wrapper("{folder}").iter().map(String::as_str).collect::<Vec<_>>());
        Some(Rig { daemon: Daemon::prepare(options), disk, database, _folder: folder })
    }

    fn start(kib: u32) -> Option<Rig> {
        let rig = Rig::prepare(kib)?;
        rig.daemon.launch();
        rig.daemon.wait_ready();
        with_users(&rig.daemon);
        Some(rig)
    }

    fn books(&self) -> Books {
        Books::behind(&self.database, self.disk.wrapper("/"))
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.disk.seen_from_outside(&self.database.with_file_name("ballast"));
        let mut ballast = File::create(&path).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
        path
    }

    /// A command beside the daemon, on its disk: its exit code and complaint.
    fn ran(&self, arguments: &[&str]) -> (i32, String) {
        let wrapper = self.disk.wrapper("/");
        let mut command = self.daemon.any_command(arguments);
        let (program, words) = (command.get_program().to_owned(), command.get_args().map(ToOwned::to_owned));
        let mut wrapped = std::process::Command::new(&wrapper[0]);
        wrapped.args(&wrapper[1..]).arg(program).args(words.collect::<Vec<_>>());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = wrapped;
        let output = run(&mut command, b"", PATIENCE);
        (exit_code(output.status), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn assert_charged(&self, events: i64) {
        assert_charged_once(&self.books(), events);
        let (code, complaint) = self.ran(&["audit"]);
        assert_eq!(code, 0, "{complaint}");
    }
}

fn patient() -> Retry {
    Retry::until(PATIENCE, Duration::from_millis(20))
}

#[test]
fn a_disk_that_fills_up_while_events_come_in() {
    only_on_sqlite!();
    const EVENTS: usize = 200;
    let Some(rig) = Rig::start(8192) else { return };
    let pid = rig.daemon.pid();
    for round in 0..3 {
        let ongoing =
            start_delivery(rig.daemon.address(), SECRET, usage_bodies(EVENTS, &format!("full-{round}")), 8, patient());
        wait_until("some are taken", PATIENCE, || (ongoing.acknowledged() > 20).then_some(()));
        let ballast = rig.fill();
        wait_until("the disk is full", PATIENCE, || (ongoing.is_finished() || !rig.daemon.is_ready()).then_some(()));
        fs::remove_file(ballast).unwrap();
        let report = ongoing.finish();
        report.assert_all_acknowledged();
        assert_documented(&report);
        rig.assert_charged((round + 1) * EVENTS as i64);
    }
    assert!(rig.daemon.output().stderr.contains("disk is full"), "it was, and was told so");
    assert!(rig.daemon.is_running() && rig.daemon.pid() == pid);
}

#[test]
fn a_disk_that_the_books_themselves_fill() {
    only_on_sqlite!();
    const EVENTS: usize = 150;
    let Some(rig) = Rig::start(3072) else { return };
    let padding = serde_json::to_string(&"x".repeat(30_000)).unwrap();
    let body = |number: usize| {
        let usage = Usage::new(format!("large-{number}")).remote_key(number as i64 % 5 + 1).quota(700);
        usage.data_field("padding", &padding).json()
    };
    let bodies = (0..EVENTS).map(body).collect();
    let ongoing = start_delivery(rig.daemon.address(), SECRET, bodies, 4, patient());
    wait_until("the disk is full", PATIENCE, || (!rig.daemon.is_ready()).then_some(()));
    let taken = ongoing.acknowledged();
    assert!(taken > 0 && taken < EVENTS, "{taken} were taken before");
    rig.disk.remount("size=64m");
    let report = ongoing.finish();
    report.assert_all_acknowledged();
    assert_documented(&report);
    rig.assert_charged(EVENTS as i64);
}

#[test]
fn a_start_on_a_full_disk_waits_for_room() {
    only_on_sqlite!();
    let Some(rig) = Rig::start(8192) else { return };
    let event = usage_bodies(1, "before").remove(0);
    assert_eq!(rig.daemon.post(&event).status, 200);
    rig.daemon.kill();
    let ballast = rig.fill();
    rig.daemon.launch();
    wait_until("it says so, or can do without", PATIENCE, || {
        (rig.daemon.output().stderr.contains("full") || rig.daemon.is_ready()).then_some(())
    });
    assert!(rig.daemon.is_running(), "{}", rig.daemon.output().stderr);
    fs::remove_file(ballast).unwrap();
    rig.daemon.wait_ready();
    rig.assert_charged(1);
}

#[test]
fn a_first_start_on_a_full_disk_leaves_no_half_of_anything() {
    only_on_sqlite!();
    let Some(rig) = Rig::prepare_with(2048, DaemonOptions::new().without("WEBHOOK_SECRET")) else { return };
    let ballast = rig.fill();
    rig.daemon.launch();
    assert_eq!(rig.daemon.wait_exit(PATIENCE), Some(2));
    let log = rig.daemon.output().stderr;
    assert!(log.contains("can't be created for a generated secret (No space left on device"), "{log}");
    let left = fs::read_dir(ballast.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != "ballast" && name != "mounted").collect();
    assert!(left.is_empty(), "{left:?}");
    fs::remove_file(ballast).unwrap();
    rig.daemon.launch();
    rig.daemon.wait_ready();
}

#[test]
fn a_read_only_disk_is_refused_at_the_start() {
    only_on_sqlite!();
    let Some(rig) = Rig::start(8192) else { return };
    let event = usage_bodies(1, "before").remove(0);
    assert_eq!(rig.daemon.post(&event).status, 200);
    for is_clean in [true, false] {
        if is_clean {
            assert_eq!(rig.daemon.terminate(), 0);
        }
        rig.daemon.kill();
        rig.disk.remount("ro");
        rig.daemon.launch();
        assert_eq!(rig.daemon.wait_exit(PATIENCE), Some(3));
        let log = rig.daemon.output().stderr;
        assert!(log.contains("Read-only file system") && log.contains("write"), "{log}");
        for command in [&["migrate"] as &[&str], &["user", "add", "--email", "a@example.com"]] {
            let (code, complaint) = rig.ran(command);
            assert_eq!(code, 3, "{command:?}: {complaint}");
        }
        rig.disk.remount("rw");
        rig.daemon.launch();
        rig.daemon.wait_ready();
        rig.assert_charged(1);
    }
}

#[test]
fn a_disk_that_becomes_read_only_under_the_daemon_is_waited_for() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    let pid = daemon.pid();
    let event = usage_bodies(1, "e").remove(0);
    // As a file system does it that met an error and gives writing up.
    let read_only = Fault::new("pwrite64,ftruncate,fallocate", "error=EROFS", "1+", &FILES).begin(&daemon);
    let answer = daemon.post(&event);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!daemon.is_ready());
    drop(read_only);
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    assert_eq!(daemon.post(&event).status, 200);
    assert_eq!(daemon.pid(), pid);
    assert_charged_once(&daemon.books(), 1);
}

/// Runs the daemon as somebody who may not write where the modes of files forbid it: the tests' own user may be root.
const BOUND_BY_MODES: [&str; 2] = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"];

#[test]
fn a_database_that_may_not_be_written_to_is_refused_at_the_start() {
    only_on_sqlite!();
    let mut daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    let event = usage_bodies(1, "before").remove(0);
    assert_eq!(daemon.post(&event).status, 200);
    assert_eq!(daemon.terminate(), 0);
    daemon.set_wrapper(&BOUND_BY_MODES);
    let set_mode = |mode| fs::set_permissions(daemon.database_file(), Permissions::from_mode(mode)).unwrap();
    for mode in [0o400, 0o000] {
        set_mode(mode);
        let before = fs::metadata(daemon.database_file()).unwrap().len();
        daemon.launch();
        assert_eq!(daemon.wait_exit(PATIENCE), Some(3), "{mode:o}");
        assert_eq!(fs::metadata(daemon.database_file()).unwrap().len(), before, "{mode:o}");
    }
    let log = daemon.output().stderr;
    assert!(
        log.contains("cannot be written to (Permission denied") && log.contains("give the file to the user"),
        "{log}"
    );
    set_mode(0o600);
    daemon.launch();
    daemon.wait_ready();
    assert_charged_once(&daemon.books(), 1);
}
