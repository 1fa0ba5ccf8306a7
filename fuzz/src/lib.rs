//! What the targets share: a real daemon inside the fuzzer, and the reading of its answers.

pub mod answers;
pub mod daemon;
