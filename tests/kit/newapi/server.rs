//! The listening side: connections, each on a thread of its own, and what is done to the bytes of an answer.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::wait::Deadline;
use super::answer::Answer;
use super::request::{Request, Requests};
use super::state::{Manner, Reply, State};

/// More than any client may need; a further one is closed at once.
const MAX_CONNECTIONS: usize = 64;

/// A client that takes nothing for so long is left.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The server's part that all its threads have in common.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    state: Mutex<State>,
    connections: Mutex<Connections>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Connections {
    open: BTreeMap<u64, TcpStream>,
    taken: u64,
    is_stopped: bool,
}

impl Server {
    pub fn start(listener: TcpListener, address: SocketAddr) -> Arc<Self> {
        let (state, connections) = (Mutex::default(), Mutex::default());
        let server = Arc::new(Server { address, state, connections, changed: Condvar::new() });
        let accepting = Arc::clone(&server);
        thread::spawn(move || accepting.accept_until_stopped(&listener));
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells those who wait for that.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_all();
        changed
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes everything; no thread stays.
    pub fn stop(&self) {
        self.connections().is_stopped = true;
        self.change(|state| state.stop());
        self.cut();
        drop(TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)); // wakes the accepting thread
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        for (_, stream) in std::mem::take(&mut self.connections().open) {
            drop(stream.shutdown(Shutdown::Both)); // it may be closed already
        }
    }

    fn accept_until_stopped(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.connections().is_stopped {
                return;
            }
            let server = Arc::clone(&self);
            thread::spawn(move || drop(server.serve(stream))); // a client that broke off is no matter
        }
    }

    fn admit(&self, stream: &TcpStream) -> io::Result<Option<u64>> {
        let second = stream.try_clone()?;
        let mut connections = self.connections();
        if connections.is_stopped || connections.open.len() >= MAX_CONNECTIONS {
            return Ok(None);
        }
        connections.taken += 1;
        let number = connections.taken;
        connections.open.insert(number, second);
        Ok(Some(number))
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let Some(number) = self.admit(&stream)? else {
            return Ok(());
        };
        let _open = OpenConnection { server: self, number };
        self.serve_requests(&mut stream)
    }

    fn serve_requests(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut requests = Requests::from(stream.try_clone()?);
        loop {
            let request = match requests.next() {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let problem =
                        format!("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request: {error}");
                    return stream.write_all(problem.as_bytes());
                }
            };
            let may_go_on = self.answer(&request, stream)?;
            if !may_go_on || request.closes() {
                return Ok(());
            }
        }
    }

    /// False if the connection is to be closed.
    fn answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<bool> {
        let reply = self.change(|state| state.reply(request));
        let may_go_on = match reply.manner {
            Manner::AtOnce => true,
            Manner::After(duration) => self.wait(&reply, duration),
            Manner::Never => {
                self.wait(&reply, Duration::MAX);
                return Ok(false);
            }
            Manner::Cut => return Ok(false),
            Manner::Half => {
                let (head, body) = reply.bytes();
                stream.write_all(&[&head, &body[..body.len() / 2]].concat())?;
                self.written(&reply);
                return Ok(false);
            }
            Manner::Oversized(bytes) => {
                write_oversized(stream, &reply, bytes)?;
                self.written(&reply);
                return Ok(true);
            }
        };
        let (head, body) = reply.bytes();
        self.written(&reply);
        stream.write_all(&[head, body].concat())?;
        Ok(may_go_on)
    }

    /// Before the last byte goes out, so that who has read an answer finds it in the journal.
    fn written(&self, reply: &Reply) {
        self.change(|state| state.journal.answered(reply.number, reply.answer.status));
    }

    /// Waits so long, but not past a healing; false if the server was stopped meanwhile.
    fn wait(&self, reply: &Reply, duration: Duration) -> bool {
        let mut state = self.state();
        let mut left = duration;
        while state.healings == reply.healings && !state.is_stopped && !left.is_zero() {
            let step = left.min(Duration::from_secs(3600));
            let deadline = Deadline::after(step);
            let woken = self.changed.wait_timeout(state, step);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            left = left.saturating_sub(step - deadline.remaining());
        }
        !state.is_stopped
    }
}

/// A connection that is closed when its thread ends, by a panic too: no client waits for one that is gone.
struct OpenConnection<'a> {
    server: &'a Server,
    number: u64,
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        let removed = self.server.connections().open.remove(&self.number);
        drop(removed.map(|stream| stream.shutdown(Shutdown::Both))); // it may be closed already
    }
}

/// A success whose data is one long text, without a declared length.
fn write_oversized(stream: &mut TcpStream, reply: &Reply, bytes: usize) -> io::Result<()> {
    const PIECE: usize = 64 * 1024;
    let mut chunked = Answer::json(200, "");
    chunked.body = vec![b'x'; PIECE];
    stream.write_all(&chunked.bytes(&reply.request_id, reply.date.as_deref()).0)?;
    let mut chunk = |piece: &[u8]| {
        let length = format!("{:x}\r\n", piece.len());
        stream.write_all(&[length.as_bytes(), piece, b"\r\n"].concat())
    };
    chunk(br#"{"data":""#)?;
    for _ in 0..bytes.div_ceil(PIECE) {
        chunk(&chunked.body)?;
    }
    chunk(br#"","message":"","success":true}"#)?;
    chunk(b"")
}
