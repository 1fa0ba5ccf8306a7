//! A client's connection with deadlines of its own. The server below bounds the first head of a connection and the time
//! that it is idle; here is the rest: every later head, bytes that nobody waits for, and clients who take no answers.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What was read is looked at before more is, and no more than this is read ahead of the request at work: else small
/// requests by the thousand would lie parsed in memory.
const LOOK_BYTES: usize = 4 * 1024;

/// A long head is looked at from its start each time, so that it is looked at less often.
const MOST_LOOK_BYTES: usize = 16 * 1024;

/// A client who takes this much within the deadline is slow, and goes on.
const TAKEN_BYTES: usize = 16 * 1024;

/// How long bytes are still taken, and thrown away, behind the last answer: a client who sends may else not get it.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For the head of a request, from its first byte on.
    pub head: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
    /// To take an answer, or some of a long one.
    pub answer: Duration,
}

/// What the road of a connection's requests tells it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Rc<ProgressCells>);

#[derive(Debug, Default)]
struct ProgressCells {
    is_at_work: Cell<bool>,
    /// What comes belongs to the request that is at work.
    is_taking_body: Cell<bool>,
    is_over: Cell<bool>,
}

impl Progress {
    /// A request is at work until the guard is dropped: its own deadlines hold, not the connection's.
    pub fn begin(&self) -> WorkGuard {
        self.0.is_at_work.set(true);
        self.0.is_taking_body.set(true);
        WorkGuard(self.clone())
    }

    /// The request that is at work has its whole body: what comes now belongs to the next ones.
    pub fn has_body(&self) {
        self.0.is_taking_body.set(false);
    }

    /// The answer that comes now is the last one.
    pub fn end(&self) {
        self.0.is_over.set(true);
    }
}

/// A request that is at work.
#[derive(Debug)]
pub struct WorkGuard(Progress);

impl Drop for WorkGuard {
    fn drop(&mut self) {
        self.0.0.is_at_work.set(false);
    }
}

/// How many connections are open, and how many may be.
#[derive(Debug)]
pub struct Places {
    open: AtomicUsize,
    most: usize,
}

impl Places {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Places { open: AtomicUsize::new(0), most })
    }

    /// So many connections are taken at a time.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Nine tenths are taken: idle connections are a luxury now.
    pub fn are_scarce(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.most - self.most / 10
    }
}

/// One place, taken until it is dropped.
#[derive(Debug)]
struct Place(Arc<Places>);

impl Place {
    fn take(places: &Arc<Places>) -> Self {
        places.open.fetch_add(1, Ordering::Relaxed);
        Place(places.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that ends when its client keeps none of the deadlines.
#[derive(Debug)]
pub struct ClientConnection<S> {
    stream: S,
    deadlines: Deadlines,
    progress: Progress,
    /// Bytes came after the last answer.
    is_receiving: bool,
    /// Runs out where no request is at work and nothing that was due came.
    due: Pin<Box<Sleep>>,
    /// An answer waits for the client to take it.
    blocked: Option<Blocked>,
    /// Bytes that were read at one go, and how many may be.
    read_at_once: usize,
    look_bytes: usize,
    /// Bytes that were read since nothing was at work.
    read_ahead: usize,
    /// Some of that was read while the server might not look at it: it is woken after each answer, or nobody would.
    may_lie_unseen: bool,
    _place: Place,
}

#[derive(Debug)]
struct Blocked {
    until: Pin<Box<Sleep>>,
    taken_bytes: usize,
}

impl<S> ClientConnection<S> {
    pub fn new(stream: S, deadlines: Deadlines, places: &Arc<Places>) -> Self {
        ClientConnection {
            stream,
            deadlines,
            progress: Progress::default(),
            is_receiving: false,
            due: Box::pin(sleep(deadlines.idle)),
            blocked: None,
            read_at_once: 0,
            look_bytes: LOOK_BYTES,
            read_ahead: 0,
            may_lie_unseen: false,
            _place: Place::take(places),
        }
    }

    /// For the road of its requests.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The request at work needs nothing of what comes, and enough has come for the next ones.
    fn is_full(&self) -> bool {
        let progress = &self.progress.0;
        progress.is_at_work.get() && !progress.is_taking_body.get() && self.read_ahead >= LOOK_BYTES
    }

    fn received(&mut self, bytes: usize) {
        self.read_at_once += bytes;
        // With nothing at work, all that came before was answered.
        let is_at_work = self.progress.0.is_at_work.get();
        self.read_ahead = if is_at_work { self.read_ahead + bytes } else { bytes };
        self.may_lie_unseen |= is_at_work;
        if bytes > 0 && !self.is_receiving && !self.progress.0.is_over.get() {
            self.is_receiving = true;
            self.due.as_mut().reset(Instant::now() + self.deadlines.head);
        }
    }

    /// Nothing more has come. True: something was due.
    fn found_nothing(&mut self, context: &mut Context<'_>) -> bool {
        self.read_at_once = 0;
        if self.progress.0.is_at_work.get() {
            return false;
        }
        self.may_lie_unseen = false;
        self.due.as_mut().poll(context).is_ready()
    }

    /// Some of an answer was taken, all of it or only a part.
    fn taken(&mut self, bytes: usize, is_all: bool, context: &mut Context<'_>) {
        self.is_receiving = false;
        self.look_bytes = LOOK_BYTES;
        if self.may_lie_unseen || self.blocked.is_some() {
            context.waker().wake_by_ref();
        }
        let more = if self.progress.0.is_over.get() { LAST_BYTES } else { self.deadlines.idle };
        self.due.as_mut().reset(Instant::now() + more);
        // Nothing else may ask it before it runs out: it has to know whom to wake.
        let _ = self.due.as_mut().poll(context);
        if is_all {
            self.blocked = None;
        } else if let Some(blocked) = &mut self.blocked {
            blocked.taken_bytes += bytes;
            if blocked.taken_bytes >= TAKEN_BYTES {
                *blocked = Blocked::until(self.deadlines.answer);
            }
        }
    }
}

impl Blocked {
    fn until(deadline: Duration) -> Self {
        Blocked { until: Box::pin(sleep(deadline)), taken_bytes: 0 }
    }
}

fn too_slow(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientConnection<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.blocked.is_some() || this.is_full() {
            // The next answer that is taken wakes whoever reads.
            this.may_lie_unseen = true;
            return Poll::Pending;
        }
        if this.read_at_once >= this.look_bytes {
            this.read_at_once = 0;
            if !this.progress.0.is_at_work.get() {
                this.look_bytes = (2 * this.look_bytes).min(MOST_LOOK_BYTES);
            }
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut bytes = [0; LOOK_BYTES];
        let most = LOOK_BYTES.min(buffer.remaining());
        let mut some = ReadBuf::new(&mut bytes[..most]);
        let read = Pin::new(&mut this.stream).poll_read(context, &mut some);
        match &read {
            Poll::Ready(Ok(())) => {
                buffer.put_slice(some.filled());
                this.received(some.filled().len());
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if this.found_nothing(context) {
                    return Poll::Ready(Err(too_slow("the client sent no whole request in time")));
                }
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientConnection<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Ready(Ok(written)) => {
                this.taken(written, written == bytes.len(), context);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let blocked = this.blocked.get_or_insert_with(|| Blocked::until(this.deadlines.answer));
                match blocked.until.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Err(too_slow("the client did not take its answers in time"))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
