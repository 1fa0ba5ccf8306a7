//! Ways to a server: encrypted in each mode, by a Unix socket, with the password in a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::crashes::with_users;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::folder::TestFolder;
use crate::kit::mariadb::PrivateServer;

const PATIENCE: Duration = Duration::from_secs(60);
const URL: &str = "HOOKLEDGER__DATABASE__URL";

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate of it for `localhost` alone.
fn make_certificates(folder: &Path) {
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("{new} -x509 -days 2 -subj /CN=kit-authority -keyout ca.key -out ca.pem"));
    openssl(folder, &format!("{new} -subj /CN=localhost -keyout server.key -out server.csr"));
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
    openssl(folder, &format!("{sign} -out server.pem"));
}

/// A server with a certificate of an authority that only this folder knows.
fn server_with_certificate(folder: &Path) -> PrivateServer {
    make_certificates(folder);
    let server = PrivateServer::start();
    for name in ["ca.pem", "server.pem", "server.key"] {
        let copy = server.folder().join(name);
        fs::copy(folder.join(name), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    }
    server.configure("ssl_ca = {folder}/ca.pem\nssl_cert = {folder}/server.pem\nssl_key = {folder}/server.key");
    server
}

/// The daemon led to its own database by another host name, with more settings.
fn led_by(daemon: &mut Daemon, host: &str, settings: &[(&str, &str)]) {
    let mut login = daemon.guest().login().clone();
    login.host = host.to_owned();
    let (url, state) = (login.url(daemon.guest().platform()), daemon.guest().state().to_owned());
    daemon.set_environment(URL, url);
    daemon.set_environment("HOOKLEDGER__DATABASE__STATE_SCHEMA", state);
    daemon.unset_environment("HOOKLEDGER__DATABASE__CA_FILE");
    for (name, value) in settings {
        daemon.set_environment(&format!("HOOKLEDGER__DATABASE__{name}"), value);
    }
}

#[track_caller]
fn assert_works(daemon: &Daemon) {
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(daemon.terminate(), 0);
}

#[track_caller]
fn assert_refused(daemon: &Daemon, words: &str) {
    let before = daemon.output().stderr.len();
    daemon.launch();
    let end = daemon.wait_exit(PATIENCE);
    let log = daemon.output().stderr[before..].to_owned();
    assert_eq!(end, Some(3), "{log}");
    assert!(log.to_lowercase().contains(words), "{log}");
}

#[test]
fn each_mode_asks_for_what_it_says() {
    only_on_a_server!();
    let folder = TestFolder::new();
    let server = server_with_certificate(folder.path());
    let mut daemon = Daemon::prepare(DaemonOptions::new().on(&server));
    let own = folder.path().join("ca.pem").display().to_string();
    make_certificates(daemon.folder());
    let another = daemon.folder().join("ca.pem").display().to_string();
    // From now on only who comes encrypted is let in.
    let account = daemon.guest().platform().to_owned();
    server.admin().execute(None, &format!("ALTER USER '{account}'@'%' REQUIRE SSL"));
    for mode in ["require", "prefer"] {
        led_by(&mut daemon, "127.0.0.1", &[("TLS", mode)]);
        assert_works(&daemon);
    }
    led_by(&mut daemon, "127.0.0.1", &[("TLS", "off")]);
    assert_refused(&daemon, "over tls alone, and database.tls is");
    led_by(&mut daemon, "127.0.0.1", &[("TLS", "verify-ca"), ("CA_FILE", &own)]);
    assert_works(&daemon);
    led_by(&mut daemon, "localhost", &[("TLS", "verify-full"), ("CA_FILE", &own)]);
    assert_works(&daemon);
    led_by(&mut daemon, "127.0.0.1", &[("TLS", "verify-full"), ("CA_FILE", &own)]);
    assert_refused(&daemon, "certificate");
    for mode in ["verify-ca", "verify-full"] {
        led_by(&mut daemon, "localhost", &[("TLS", mode), ("CA_FILE", &another)]);
        assert_refused(&daemon, "certificate");
    }
    // The whole server may demand it as well. The session that switches this stays, so that it can switch back.
    server.admin().execute(None, &format!("ALTER USER '{account}'@'%' REQUIRE NONE"));
    let mut switch = daemon.books().hold("SET GLOBAL require_secure_transport = 1");
    led_by(&mut daemon, "127.0.0.1", &[("TLS", "off")]);
    assert_refused(&daemon, "over tls alone, and database.tls is");
    led_by(&mut daemon, "127.0.0.1", &[("TLS", "require")]);
    assert_works(&daemon);
    switch.and_then("SET GLOBAL require_secure_transport = 0");
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_required() {
    only_on_a_server!();
    let server = PrivateServer::start();
    let mut daemon = Daemon::prepare(DaemonOptions::new().on(&server));
    led_by(&mut daemon, "127.0.0.1", &[("TLS", "require")]);
    assert_refused(&daemon, "tls");
    led_by(&mut daemon, "127.0.0.1", &[("TLS", "prefer")]);
    assert_works(&daemon);
    // A wrong password is told as such where TLS is not the matter.
    let url = daemon.guest().url();
    daemon.set_environment(URL, url.replacen(&daemon.guest().login().password, "wrong", 1));
    assert_refused(&daemon, "access denied");
    assert!(!daemon.output().stderr.contains("over TLS alone"));
    // By its Unix socket, with the password in a file.
    let login = daemon.guest().login().clone();
    let socket = server.socket().display().to_string();
    let secret = daemon.folder().join("password");
    fs::write(&secret, format!("{}\n", login.password)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("mysql://{}@localhost/{}?socket={socket}", login.user, daemon.guest().platform());
    daemon.set_environment(URL, url);
    daemon.set_environment("HOOKLEDGER__DATABASE__PASSWORD_FILE", secret.display());
    daemon.launch();
    daemon.wait_ready();
    with_users(&daemon);
    assert_eq!(daemon.post(Usage::new("e").remote_key(1).quota(700).json()).status, 200);
    daemon.books().assert_whole();
}
