//! Load that hurts: clients that are slow, silent, many, or send what no sender sends. Good events are answered all the
//! while, the books are right afterwards, and memory and descriptors stay within what `server.*` says.

#[path = "hostile_figures.rs"]
mod figures;
#[path = "hostile_floods.rs"]
mod floods;
#[path = "hostile_heads.rs"]
mod heads;
#[path = "hostile_rig.rs"]
mod rig;
#[path = "hostile_slow.rs"]
mod slow;
