//! Every input that a sender can give, the good ones included: what is answered, and which rows it leaves.
//!
//! Each row of each table is sent to a real daemon, its answer is held against the protocol, the tables are counted
//! before and after, and the next good event must be served.

#[path = "intake_accepted.rs"]
mod accepted;
#[path = "intake_bodies.rs"]
mod bodies;
#[path = "intake_fields.rs"]
mod fields;
#[path = "intake_order.rs"]
mod order;
#[path = "intake_repeats.rs"]
mod repeats;
#[path = "intake_rig.rs"]
pub mod rig;
#[path = "intake_routes.rs"]
mod routes;
#[path = "intake_signatures.rs"]
mod signatures;
#[path = "intake_types.rs"]
mod types;
#[path = "intake_wire.rs"]
mod wire;
