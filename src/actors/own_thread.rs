//! A thread of its own for an actor, on which what the actor leaves behind can be dropped.
//!
//! Work that was under way when the thread ends is dropped after the thread's own runtime has stopped. A connection that
//! it holds goes back to its pool by a task, which then needs another runtime: that of whoever began the thread. Without
//! one it would panic, and with two of them the process would be aborted.

use actix::Arbiter;
use tokio::runtime::{Builder, Handle, Runtime};

/// Begins a thread; to be called within a runtime that outlives it.
pub fn begin() -> Arbiter {
    let Ok(outer) = Handle::try_current() else { return Arbiter::new() };
    match Builder::new_current_thread().enable_all().build() {
        Ok(own) => Arbiter::with_tokio_rt(move || within(&outer, own)),
        // It tells what is wrong.
        Err(_) => Arbiter::new(),
    }
}

/// Called first on the new thread, and in force up to its end: the entry is never left.
fn within(outer: &Handle, own: Runtime) -> Runtime {
    std::mem::forget(outer.enter());
    own
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    /// Tells as it is dropped whether a task could be spawned then.
    struct Left(SyncSender<bool>);

    impl Drop for Left {
        fn drop(&mut self) {
            self.0.send(Handle::try_current().is_ok()).unwrap();
        }
    }

    #[test]
    fn what_is_left_when_a_thread_ends_is_dropped_within_a_runtime() {
        let (tell, told) = sync_channel(1);
        let (begin_work, begun) = sync_channel(1);
        actix::System::new().block_on(async move {
            let thread = begin();
            thread.spawn(async move {
                let _left = Left(tell);
                begin_work.send(()).unwrap();
                std::future::pending::<()>().await;
            });
            begun.recv().unwrap();
            thread.stop();
            thread.join().unwrap();
        });
        assert!(told.recv().unwrap(), "a connection could not have gone back to its pool");
    }
}
