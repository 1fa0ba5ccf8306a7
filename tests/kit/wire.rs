//! A raw HTTP/1.1 client: sends exactly the bytes that a test wants, and reads what comes back.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SendFlags, SocketType};

use super::wait::Deadline;

/// Longer than any answer of the daemon may take.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// One answer, whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, in whatever case it is written.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("status {} has a body that is no JSON ({error}): {:?}", self.status, self.text()),
        }
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The server will take no further request on this connection.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The bytes of a request. `Host` and, where there is a body or the method wants one, `Content-Length` are added
/// unless they are among `headers`.
pub fn http_request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let is_given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !is_given("Host") {
        request.push_str("Host: hookledger.test\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let has_length = is_given("Content-Length") || is_given("Transfer-Encoding");
    if !has_length && (!body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method)) {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}

/// A kept-alive connection, over TCP or a Unix socket.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    /// Received, and not yet part of an answer.
    pending: Vec<u8>,
    timeout: Duration,
}

impl Connection {
    /// `timeout` bounds the connecting, and then each answer.
    pub fn open(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        Connection::over(Transport::Tcp(stream), timeout)
    }

    /// The same from an address of this machine: all of 127.0.0.0/8 is there.
    pub fn open_from(source: Ipv4Addr, address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        net::bind(&socket, &SocketAddr::from((source, 0)))?;
        net::connect(&socket, &address)?;
        Connection::over(Transport::Tcp(TcpStream::from(socket)), timeout)
    }

    pub fn open_unix(socket: &Path, timeout: Duration) -> io::Result<Self> {
        Connection::over(Transport::Unix(UnixStream::connect(socket)?), timeout)
    }

    fn over(transport: Transport, timeout: Duration) -> io::Result<Self> {
        transport.set_write_timeout(timeout)?;
        Ok(Connection { transport, pending: Vec::new(), timeout })
    }

    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends a request and reads its answer.
    pub fn request(&mut self, request: &[u8]) -> io::Result<Response> {
        self.send(request)?;
        self.read_answer(request.starts_with(b"HEAD "))
    }

    /// Sends bytes, and waits for nothing.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transport.write_all(bytes)
    }

    /// Sends as much as is taken at once; how much that was.
    pub fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.transport.write_at_once(bytes)
    }

    /// Reads the next answer to a request other than `HEAD`.
    pub fn read_response(&mut self) -> io::Result<Response> {
        self.read_answer(false)
    }

    /// Says that no further byte will come, and can still read.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.transport.shutdown(Shutdown::Write)
    }

    /// Everything up to the server's closing of the connection; an error if it does not close it in time.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let deadline = Deadline::after(self.timeout);
        while self.fill(deadline)? > 0 {}
        Ok(std::mem::take(&mut self.pending))
    }

    fn read_answer(&mut self, is_head: bool) -> io::Result<Response> {
        let deadline = Deadline::after(self.timeout);
        let mut response = parse_head(&self.take_head(deadline)?)?;
        if is_head || response.status < 200 || [204, 304].contains(&response.status) {
            return Ok(response);
        }
        response.body = self.take_body(&response, deadline)?;
        Ok(response)
    }

    fn take_head(&mut self, deadline: Deadline) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                return self.take(at + 4, deadline);
            }
            if self.pending.len() > MAX_HEAD_BYTES {
                return Err(invalid("the head of the answer has no end"));
            }
            self.fill_some(deadline)?;
        }
    }

    fn take_body(&mut self, response: &Response, deadline: Deadline) -> io::Result<Vec<u8>> {
        if let Some(coding) = response.header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(invalid(&format!("unknown transfer coding {coding}")));
            }
            return self.take_chunks(deadline);
        }
        if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| invalid(&format!("content-length {length} is no number")))?;
            return self.take(length, deadline);
        }
        while self.fill(deadline)? > 0 {}
        Ok(std::mem::take(&mut self.pending))
    }

    fn take_chunks(&mut self, deadline: Deadline) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line(deadline)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid(&format!("chunk size {line:?}")))?;
            if size == 0 {
                while !self.take_line(deadline)?.is_empty() {} // trailers
                return Ok(body);
            }
            body.extend(self.take(size, deadline)?);
            if !self.take_line(deadline)?.is_empty() {
                return Err(invalid("a chunk is longer than it says"));
            }
            if body.len() > MAX_BODY_BYTES {
                return Err(invalid("the body has no end"));
            }
        }
    }

    fn take_line(&mut self, deadline: Deadline) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.pending, b"\r\n") {
                let line = self.take(at + 2, deadline)?;
                return String::from_utf8(line[..at].to_vec()).map_err(|_| invalid("a line is no text"));
            }
            if self.pending.len() > MAX_HEAD_BYTES {
                return Err(invalid("a line has no end"));
            }
            self.fill_some(deadline)?;
        }
    }

    fn take(&mut self, count: usize, deadline: Deadline) -> io::Result<Vec<u8>> {
        if count > MAX_BODY_BYTES {
            return Err(invalid("the body is too long"));
        }
        while self.pending.len() < count {
            self.fill_some(deadline)?;
        }
        let rest = self.pending.split_off(count);
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    fn fill_some(&mut self, deadline: Deadline) -> io::Result<()> {
        if self.fill(deadline)? == 0 {
            let problem = format!("closed after {} bytes of an unfinished answer", self.pending.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        Ok(())
    }

    /// Receives what is there; 0 once the other side has closed.
    fn fill(&mut self, deadline: Deadline) -> io::Result<usize> {
        let remaining = deadline.remaining();
        if remaining.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.timeout)));
        }
        self.transport.set_read_timeout(remaining)?;
        let mut chunk = [0; 16 * 1024];
        let count = match self.transport.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.timeout)));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.fill(deadline),
            other => other?,
        };
        self.pending.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

fn parse_head(head: &[u8]) -> io::Result<Response> {
    let text = std::str::from_utf8(head).map_err(|_| invalid("the head of the answer is no text"))?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid(&format!("status line {status_line:?}")))?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&format!("header line {line:?}")))?;
        Ok((name.to_owned(), value.trim().to_owned()))
    };
    let headers = lines.map(header).collect::<io::Result<_>>()?;
    Ok(Response { status, headers, body: Vec::new() })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_owned())
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Transport::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Transport::Unix(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    fn shutdown(&self, side: Shutdown) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.shutdown(side),
            Transport::Unix(stream) => stream.shutdown(side),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Tcp(stream) => stream.read(buffer),
            Transport::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.write_all(bytes),
            Transport::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Tcp(stream) => {
                without_waiting(net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
            }
            Transport::Unix(stream) => {
                without_waiting(net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
            }
        }
    }
}

fn without_waiting(sent: rustix::io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        other => Ok(other?),
    }
}
