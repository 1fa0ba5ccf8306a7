//! A real daemon within this process, so that the fuzzer sees which of its code a request reaches.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hookledger::app::{self, ServeOptions};
use hookledger::config;
use socket2::{Domain, Socket, Type};

/// What senders share with the daemon.
pub const SECRET: &str = "fuzz-secret-0123456789abcdef0123456789";

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// No answer takes longer: beyond, it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

const PAUSE: Duration = Duration::from_millis(20);

/// Where it listens.
pub struct Daemon {
    server: SocketAddr,
    admin_socket: PathBuf,
}

/// The daemon of this process, started at the first call.
pub fn daemon() -> &'static Daemon {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(|| Daemon::start().expect("the daemon starts"))
}

impl Daemon {
    fn start() -> io::Result<Self> {
        let folder = std::env::var_os("HOOKLEDGER_FUZZ_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = folder.join(format!("daemon-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let environment = [
            ("DATABASE_URL", format!("sqlite://{}/hookledger.db", folder.display())),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
            ("HOOKLEDGER__SERVER__LISTEN", server.to_string()),
            ("HOOKLEDGER__METRICS__LISTEN", String::new()),
            ("HOOKLEDGER__LOG__LEVEL", "error".to_owned()),
            // Every input must get through to what lies behind the limits.
            ("HOOKLEDGER__RATE_LIMIT__PER_SECOND", "0".to_owned()),
            ("HOOKLEDGER__RATE_LIMIT__BAD_PER_SECOND", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let empty = folder.join("hookledger.toml");
        fs::write(&empty, "")?;
        std::thread::spawn(move || {
            let load = Arc::new(move || config::load(Some(&empty), environment.clone()));
            let ended = app::serve(load, ServeOptions::default());
            eprintln!("the daemon ended: {ended:?}");
            std::process::exit(1);
        });
        let daemon = Daemon { server, admin_socket: folder.join("admin.sock") };
        daemon.wait_ready();
        // Supervision would survive what is to be found here.
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            std::process::abort();
        }));
        Ok(daemon)
    }

    fn wait_ready(&self) {
        let begun = Instant::now();
        let is_ready = || {
            let answer = self.ask_server(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n");
            answer.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
        };
        while !is_ready() {
            assert!(begun.elapsed() < START_TIMEOUT, "the daemon is not ready");
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends these bytes to the senders' listener on a connection of their own; all that is answered.
    pub fn ask_server(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // No end of a connection keeps its port.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        socket.connect(&self.server.into())?;
        let mut stream = std::net::TcpStream::from(socket);
        exchange(&mut stream, request, |stream| stream.shutdown(Shutdown::Write))
    }

    /// The same for the operators' socket.
    pub fn ask_admin(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.admin_socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        exchange(&mut stream, request, |stream| stream.shutdown(Shutdown::Write))
    }
}

/// What hangs is an error. A server may close before it has read everything: that is none.
fn exchange<S: Read + Write>(
    stream: &mut S,
    request: &[u8],
    finish: impl FnOnce(&S) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    if stream.write_all(request).is_ok() {
        finish(stream).ok();
    }
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(error),
        _ => Ok(answer),
    }
}
