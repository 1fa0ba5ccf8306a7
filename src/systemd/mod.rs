//! The two ways in which a service manager and its daemon speak: the daemon tells how it does (`notify`), and is handed
//! sockets that outlive it (`sockets`).
//!
//! Where there is no service manager, nothing is said and nothing is handed over. What is told, and when, is `app`'s.

mod notify;
mod sockets;

pub use notify::{ServiceManager, watchdog_timeout};
pub use sockets::{InheritedSockets, SocketsError};
