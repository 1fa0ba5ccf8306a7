//! What senders and operators reach over HTTP. Turns requests into messages and outcomes into answers; decides
//! nothing about money.

pub mod access;
pub mod admin;
pub mod answer;
pub mod balance;
pub mod connection;
pub mod health;
pub mod policy;
pub mod server;
pub mod source;
pub mod webhook;
