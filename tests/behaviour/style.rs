//! Style as a test: what the house rules say of the source tree, and what the documents claim of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn source_files() -> Vec<(String, String)> {
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    let mut files: Vec<_> = files_below(&root().join("src"), ".rs").into_iter().map(read).collect();
    files.extend(files_below(&root().join("tests"), ".rs").into_iter().map(read));
    assert!(files.len() > 50, "the walk found the tree");
    files
}

/// Fails with all offenders at once.
fn assert_none(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn every_module_opens_with_why_it_exists() {
    let files = source_files();
    let offenders = files.iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name.clone());
    assert_none(offenders.collect(), "the first line of a module says why it exists");
}

#[test]
fn files_stay_readable() {
    let files = source_files();
    let long = files.iter().filter(|(_, text)| text.lines().count() > MAX_FILE_LINES);
    let offenders = long.map(|(name, text)| format!("{name}: {} lines", text.lines().count()));
    assert_none(offenders.collect(), "files stay under 400 lines");
}

#[test]
fn banned_words_stay_out() {
    // Put together so that this file does not contain them.
    let banned: Vec<String> = [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("do_", "send("), ("unimplemented", "!(")]
        .iter()
        .map(|(left, right)| format!("{left}{right}"))
        .collect();
    let mut offenders = Vec::new();
    for (name, text) in source_files() {
        for (number, line) in text.lines().enumerate() {
            if banned.iter().any(|word| line.contains(word.as_str())) {
                offenders.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(offenders, "no marks of unfinished work and no unbounded sends");
}

/// Folders below `src/` and what they may use of each other. docs/ARCHITECTURE.md shows this same table.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("storage", &["domain", "clock", "failpoint"]),
    ("telemetry", &["config", "domain", "storage"]),
    ("actors", &["clock", "config", "domain", "failpoint", "storage", "telemetry"]),
    ("http", &["actors", "clock", "config", "domain", "failpoint", "status", "storage", "telemetry"]),
    ("cli", &["actors", "app", "clock", "config", "domain", "failpoint", "status", "storage"]),
];

fn uses_of(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let prefix = format!("src/{folder}/");
    for (name, text) in source_files().into_iter().filter(|(name, _)| name.starts_with(&prefix)) {
        for part in text.split("crate::").skip(1) {
            let room: String =
                part.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
            if !room.is_empty() && room != folder {
                uses.entry(room).or_default().insert(name.clone());
            }
        }
    }
    uses
}

#[test]
fn dependencies_point_downward() {
    let mut offenders = Vec::new();
    for (folder, allowed) in ALLOWED {
        for (room, files) in uses_of(folder) {
            if !allowed.contains(&room.as_str()) {
                offenders.push(format!("{folder} uses {room}: {files:?}"));
            }
        }
    }
    assert_none(offenders, "folders use only what lies below them");
}

#[test]
fn the_domain_knows_no_framework_and_does_no_io() {
    let foreign = ["actix", "sqlx", "tokio", "std::fs", "std::net", "std::env", "tracing", "metrics::"];
    let mut offenders = Vec::new();
    for (name, text) in source_files().into_iter().filter(|(name, _)| name.starts_with("src/domain/")) {
        for word in foreign.iter().filter(|word| text.contains(**word)) {
            offenders.push(format!("{name}: {word}"));
        }
    }
    assert_none(offenders, "the domain decides and does nothing else");
}

#[test]
fn sql_stays_behind_the_store() {
    let outside = source_files().into_iter().filter(|(name, _)| {
        name.starts_with("src/") && !name.starts_with("src/storage/sqlite/") && !name.starts_with("src/domain/parse")
    });
    let offenders = outside.filter(|(_, text)| text.contains("sqlx::")).map(|(name, _)| name);
    assert_none(offenders.collect(), "nothing outside a store's own folder knows SQL");
}

#[test]
fn the_architecture_page_shows_these_folders_and_dependencies() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let mut offenders = Vec::new();
    for (folder, allowed) in ALLOWED {
        let rooms = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        let row = format!("| `{folder}` | {rooms} |");
        if !page.contains(&row) {
            offenders.push(format!("missing row: {row}"));
        }
    }
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !page.contains(&format!("`{}`", name.trim_end_matches(".rs"))) {
            offenders.push(format!("src/{name} is not on the map"));
        }
    }
    assert_none(offenders, "docs/ARCHITECTURE.md is true");
}

#[test]
fn migrations_are_numbered_without_gaps() {
    for database in fs::read_dir(root().join("migrations")).unwrap() {
        let names: Vec<_> = files_below(&database.unwrap().path(), ".sql");
        for (index, path) in names.iter().enumerate() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name} should be number {}", index + 1);
            let registered = fs::read_to_string(root().join("src/storage/sqlite/migrate.rs")).unwrap();
            assert!(registered.contains(&name), "{name} is not in the list of migrations");
        }
    }
}

#[test]
fn both_readmes_have_the_same_chapters() {
    let chapters = |file: &str| {
        let text = fs::read_to_string(root().join(file)).unwrap();
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.split(' ').next().unwrap().len()).collect()
    };
    let (english, chinese): (Vec<usize>, Vec<usize>) = (chapters("README.md"), chapters("README.zh-CN.md"));
    assert_eq!(english, chinese, "the READMEs say the same in the same order");
}
