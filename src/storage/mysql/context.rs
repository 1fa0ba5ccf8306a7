//! What every statement needs beside its connection: names that depend on the installation, the clock, the policy.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use sqlx::AssertSqlSafe;

use super::options::MysqlOptions;
use super::takeover::AdoptedFrom;
use crate::clock::SharedClock;
use crate::domain::ids::{IdMark, RecordIds};
use crate::domain::settlement::LedgerPolicy;
use crate::storage::skew;

/// How own tables begin in the statements of this folder.
const OWN: &str = "hookledger_";

/// Stands for naming the index by which usage records are read.
const USAGE_INDEX: &str = "{usage_index}";

/// Stands for the collation of the platform's id columns in the statements of this folder.
const PLATFORM_COLLATION: &str = "{collation}";

pub struct Context {
    pub options: MysqlOptions,
    /// Read once a batch; a reload replaces it.
    pub policy: Arc<ArcSwap<LedgerPolicy>>,
    pub clock: SharedClock,
    /// A repair may take over that of an earlier state.
    pub installation: ArcSwap<String>,
    pub ids: RecordIds,
    pub names: Names,
    pub adopted_from: AdoptedFrom,
    /// Rows of a log were settled here: events look for theirs.
    pub has_log: AtomicBool,
    pub skew: skew::Noted,
}

/// Where the own tables lie, and how the platform compares ids.
#[derive(Debug, Clone)]
pub struct Names {
    own: String,
    collation: String,
    usage_index: String,
    /// Bytes that one statement and its parameters may have.
    pub max_packet_bytes: usize,
}

impl Names {
    /// Both names come from the server or were checked by the configuration: nothing in them can end a quotation.
    /// `usage_index`: that of `usage_records` by key and time, where there is one.
    pub fn new(state_schema: &str, collation: &str, usage_index: Option<&str>, max_packet_bytes: usize) -> Self {
        let usage_index = usage_index.map(|name| format!("FORCE INDEX (`{}`)", name.replace('`', "``")));
        Names {
            own: format!("`{state_schema}`.{OWN}"),
            collation: collation.to_owned(),
            usage_index: usage_index.unwrap_or_default(),
            max_packet_bytes,
        }
    }

    /// A statement of this folder as this installation runs it.
    pub fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        let text = text.replace(OWN, &self.own).replace(PLATFORM_COLLATION, &self.collation);
        AssertSqlSafe(text.replace(USAGE_INDEX, &self.usage_index))
    }
}

impl Context {
    /// Goes on under this id, which the ids of its rows end in.
    pub fn take_installation(&self, id: String) {
        self.ids.end_in(IdMark::of(&id));
        self.installation.store(Arc::new(id));
    }

    pub fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        self.names.sql(text)
    }
}
