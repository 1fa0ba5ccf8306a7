//! The books in an existing LetAiCode's database on MySQL or MariaDB, as a guest.
pub mod error;
