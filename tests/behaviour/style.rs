//! Style as a test: what the house rules say of the source tree, and what the documents claim of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    // Not all of fuzz/: what is built and found lies there as well.
    for folder in ["fuzz/src", "fuzz/fuzz_targets"] {
        files.extend(files_below(&root().join(folder), ".rs").into_iter().map(read));
    }
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

#[test]
fn every_fuzz_target_has_seeds_and_words_and_is_told_of() {
    let page = fs::read_to_string(root().join("docs/TESTING.md")).unwrap();
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let targets = files_below(&root().join("fuzz/fuzz_targets"), ".rs");
    let names: Vec<String> =
        targets.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let is_lacking = |name: &&String| {
        let seeds = root().join("fuzz/seeds").join(name);
        !(fs::read_dir(seeds).is_ok_and(|seeds| seeds.count() >= 10)
            && root().join(format!("fuzz/dictionaries/{name}.dict")).exists()
            && manifest.contains(&format!("name = \"{name}\""))
            && page.contains(&format!("| `{name}` |")))
    };
    assert!(names.len() >= 5, "{names:?}");
    assert_none(names.iter().filter(is_lacking).cloned().collect(), "seeds, a dictionary, a place in docs/TESTING.md");
}

/// Folders below `src/` and what they may use of each other. docs/ARCHITECTURE.md shows this same table.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("storage", &["domain", "clock", "failpoint"]),
    ("gateway", &["clock", "config", "domain", "failpoint"]),
    ("systemd", &[]),
    ("telemetry", &["config", "domain", "gateway", "storage"]),
    ("polling", &["clock", "config", "domain", "failpoint", "gateway", "storage", "telemetry"]),
    ("audit", &["config", "domain", "gateway", "polling", "storage"]),
    ("actors", &["clock", "config", "domain", "failpoint", "gateway", "polling", "storage", "telemetry"]),
    ("http", &["actors", "clock", "config", "domain", "failpoint", "status", "storage", "telemetry"]),
    ("cli", &["actors", "app", "audit", "clock", "config", "domain", "failpoint", "status", "storage"]),
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
        name.starts_with("src/")
            && !name.starts_with("src/storage/sqlite/")
            && !name.starts_with("src/storage/mysql/")
            && !name.starts_with("src/domain/parse")
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
        let database = database.unwrap();
        let names: Vec<_> = files_below(&database.path(), ".sql");
        let list = format!("src/storage/{}/migrate.rs", database.file_name().to_string_lossy());
        for (index, path) in names.iter().enumerate() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name} should be number {}", index + 1);
            let registered = fs::read_to_string(root().join(&list)).unwrap();
            assert!(registered.contains(&name), "{name} is not in {list}");
        }
    }
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = files_below(&root().join("docs"), ".md");
    paths.extend(
        ["README.md", "README.zh-CN.md", "CHANGELOG.md", "SECURITY.md", "monitoring/README.md"]
            .map(|name| root().join(name)),
    );
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The anchors of a page's headings, as code hosts make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let titles = page.lines().filter_map(|line| line.strip_prefix('#')).map(|rest| rest.trim_start_matches('#').trim());
    let letters = |title: &str| title.to_lowercase().replace(' ', "-");
    titles.map(|title| letters(title).chars().filter(|one| one.is_alphanumeric() || *one == '-').collect()).collect()
}

#[test]
fn links_within_the_documents_lead_somewhere() {
    let mut offenders = Vec::new();
    let mut links = 0;
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let page = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let is_there = match anchor {
                "" => page.exists(),
                _ => fs::read_to_string(&page).is_ok_and(|page| anchors(&page).contains(anchor)),
            };
            if !is_there {
                offenders.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(links > 50, "the documents have links: {links}");
    assert_none(offenders, "every link leads to a file and a heading that are there");
}

#[test]
fn settings_in_the_documents_are_in_the_reference() {
    let reference = fs::read_to_string(root().join("config/default.toml")).unwrap();
    let mut keys = BTreeMap::<&str, BTreeSet<&str>>::new();
    let mut section = "";
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            keys.entry(section).or_default().insert(key);
        }
    }
    let mut offenders = Vec::new();
    for (path, text) in documents() {
        for quoted in text.split('`').skip(1).step_by(2) {
            let Some((section, rest)) = quoted.split_once('.') else { continue };
            let key = rest.split(' ').next().unwrap();
            let is_name = key.chars().all(|one| one.is_ascii_lowercase() || one == '_');
            if is_name && keys.get(section).is_some_and(|known| !known.contains(key)) {
                offenders.push(format!("{}: {quoted}", path.display()));
            }
        }
    }
    assert!(keys.len() > 8, "the reference has sections: {keys:?}");
    assert_none(offenders, "every setting that a document names is in config/default.toml");
}

/// Commands as the documents show them, with the words that follow.
fn shown_commands() -> BTreeSet<Vec<String>> {
    let mut commands = BTreeSet::new();
    for (_, text) in documents() {
        let text = text.replace("\\\n", " ");
        for (index, part) in text.split("```").enumerate() {
            let is_block = index % 2 == 1;
            let quoted = part.split('`').skip(1).step_by(2);
            let shown: Vec<&str> = if is_block { part.lines().collect() } else { quoted.collect() };
            for words in shown.into_iter().filter_map(|shown| shown.trim().strip_prefix("hookledger ")) {
                let words = words.split(" #").next().unwrap();
                commands.insert(words.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    commands
}

#[test]
fn commands_in_the_documents_have_these_options() {
    let mut offenders = Vec::new();
    let commands = shown_commands();
    for words in &commands {
        let group = ["user", "key", "credits", "charges", "disputes", "events", "prices"].contains(&words[0].as_str());
        let name = &words[..words.len().min(if group { 2 } else { 1 })];
        let is_name = |word: &String| word.chars().all(|one| one.is_ascii_lowercase() || one == '-');
        if words[0].starts_with('-') || !name.iter().all(is_name) {
            continue;
        }
        let help = Command::new(env!("CARGO_BIN_EXE_hookledger")).args(name).arg("--help").output().unwrap();
        let text = String::from_utf8(help.stdout).unwrap();
        let options = words.iter().filter(|word| word.starts_with("--"));
        if !help.status.success() || options.into_iter().any(|option| !text.contains(option.as_str())) {
            offenders.push(words.join(" "));
        }
    }
    assert!(commands.len() > 50, "the documents show commands: {}", commands.len());
    assert_none(offenders, "every command and option that a document shows exists");
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

#[test]
fn the_tests_that_the_proofs_name_exist() {
    let page = fs::read_to_string(root().join("docs/PROOFS.md")).unwrap();
    let names: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect();
    let is_missing = |name: &&&str| {
        let (file, test) = name.rsplit_once("::").unwrap();
        let path = root().join(format!("tests/behaviour/{}.rs", file.replace("::", "_")));
        !fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {test}(")))
    };
    assert!(names.len() > 50, "the page names tests: {}", names.len());
    assert_none(names.iter().filter(is_missing).map(|name| (*name).to_owned()).collect(), "a proof that is not there");
}
