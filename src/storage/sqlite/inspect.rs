//! What lies where a database should be: whose it is, and which version made it. Changes nothing.

use std::path::Path;

use sqlx::migrate::Migrate;
use sqlx::{Connection, SqliteConnection};

use super::migrate::{MIGRATIONS, MIGRATIONS_TABLE};
use super::{MigrateError, SqliteOptions, connect, presence};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// A file of zero bytes.
    EmptyFile,
    /// A file of another kind.
    Junk,
    Database(Contents),
}

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Migrations that it has had, in order; none: the tables are not hookledger's.
    pub versions: Vec<i64>,
    pub installation: Option<String>,
}

/// How a database's version stands to this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Current,
    /// Migrations bring it up to date.
    Older,
    /// A newer version changed it, or it was never hookledger's.
    Foreign,
}

impl Contents {
    pub fn age(&self) -> Age {
        let known = MIGRATIONS.map(|(version, ..)| version);
        match self.versions.as_slice() {
            versions if versions == known => Age::Current,
            [] => Age::Foreign,
            versions if known.starts_with(versions) => Age::Older,
            _ => Age::Foreign,
        }
    }
}

/// Looks at the database in use, beside whoever writes to it.
pub async fn look(options: &SqliteOptions) -> Result<Found, MigrateError> {
    match std::fs::metadata(&options.path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        // SQLite would throw away the write-ahead log beside an emptied file: it must not be opened.
        Ok(metadata) if metadata.len() == 0 => return Ok(Found::EmptyFile),
        _ => {}
    }
    // By itself: SQLite would take the first page from a write-ahead log beside it.
    let is_database = presence::is_database(&options.path);
    if !is_database.map_err(|error| MigrateError::Unreadable(options.path.display().to_string(), error))? {
        return Ok(Found::Junk);
    }
    let mut connection = connect::looker(options).await?;
    let contents = contents(&mut connection).await?;
    connection.close().await?;
    Ok(Found::Database(contents))
}

/// Looks at a file that no program has open. Leaves nothing beside it.
pub async fn look_at_file(path: &Path) -> Result<Contents, sqlx::Error> {
    let mut connection = connect::still_file(path).await?;
    let contents = contents(&mut connection).await?;
    connection.close().await?;
    Ok(contents)
}

async fn contents(connection: &mut SqliteConnection) -> Result<Contents, sqlx::Error> {
    let versions = match has_table(connection, MIGRATIONS_TABLE).await? {
        true => {
            let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await;
            let applied = applied.map_err(|error| sqlx::Error::Migrate(Box::new(error)))?;
            applied.into_iter().map(|migration| migration.version).collect()
        }
        false => Vec::new(),
    };
    let installation = match has_table(connection, "hookledger_meta").await? {
        true => {
            sqlx::query_scalar("SELECT value FROM hookledger_meta WHERE name = 'installation_id'")
                .fetch_optional(&mut *connection)
                .await?
        }
        false => None,
    };
    Ok(Contents { versions, installation })
}

async fn has_table(connection: &mut SqliteConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?1")
        .bind(table)
        .fetch_one(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_program_knows_can_be_brought_up_to_date() {
        let known = MIGRATIONS.map(|(version, ..)| version);
        let age = |versions: &[i64]| Contents { versions: versions.to_vec(), installation: None }.age();
        assert_eq!(age(&known), Age::Current);
        assert_eq!(age(&known[..1]), Age::Older);
        assert_eq!(age(&[]), Age::Foreign);
        assert_eq!(age(&[&known[..], &[9999]].concat()), Age::Foreign);
        assert_eq!(age(&[known[0], 9999]), Age::Foreign);
    }
}
