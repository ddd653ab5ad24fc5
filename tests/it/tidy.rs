//! Style as a test: what a reader may rely on in every file of `src/`.
//!
//! The order of the layers is the order of the groups of `mod` lines in `src/lib.rs`. A file uses its own group and
//! the groups above it, and no two modules use each other.
//! Left out on purpose: what rustfmt and clippy say already. Code is read as text that rustfmt has formatted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 400;
/// Lines of one function.
const FUNCTION_LINES_MAX: usize = 70;

/// A third-party name, and the one file in which it may stand.
const EDGES: &[(&str, &str)] = &[
    ("httparse", "http/head.rs"),
    ("memchr", "http/head.rs"),
    ("libc", "os.rs"),
    ("tiny_http", "http/tiny.rs"),
    ("pico_args", "config.rs"),
    ("simple_logger", "logging.rs"),
    ("signal_hook", "os.rs"),
    ("yaml_rust2", "skills/yaml.rs"),
];

/// What no file holds, and where it may stand all the same.
const FORBIDDEN: &[(&str, &str)] = &[
    (".unwrap()", ""),
    ("todo!(", ""),
    ("unimplemented!(", ""),
    ("dbg!(", ""),
    ("#[ignore", ""),
    ("unsafe ", "os.rs"),
    ("allow(unsafe_code)", "os.rs"),
    ("unbounded(", ""),
    ("mpsc::channel(", ""),
    ("thread::spawn(", ""),
    ("thread::Builder", "worker.rs"),
    ("thread::scope(", ""),
    // A value in a log line that could end its own quotes; `logging::Quoted` escapes them.
    (r#"=\"{"#, "config/papers.rs"),
];

/// A file of `src/`: its name there, its text without comments and tests, and all of it.
struct Source {
    name: String,
    code: Vec<String>,
    text: String,
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in sources().iter().filter(|source| source.name != "main.rs" || source.text.len() > 20) {
        assert!(source.text.starts_with("//! "), "{} does not open with //!", source.name);
    }
    for file in rust_files(&root().join("tests")) {
        let text = fs::read_to_string(&file).expect("a readable file");
        assert!(text.starts_with("//! "), "{} does not open with //!", file.display());
    }
}

#[test]
fn files_and_functions_can_be_read_in_a_sitting() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.code.len() > FILE_LINES_MAX {
            faults.push(format!("{}: {} lines without its tests", source.name, source.code.len()));
        }
        for (name, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}: fn {name} has {lines} lines", source.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn nothing_forbidden_and_no_third_party_beyond_its_edge() {
    let mut faults = Vec::new();
    for source in sources() {
        for (number, line) in source.code.iter().enumerate() {
            for (word, home) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
                if source.name != *home {
                    faults.push(format!("{}:{}: {word}", source.name, number + 1));
                }
            }
            for (name, home) in EDGES {
                let used = line.contains(&format!("{name}::")) || line.contains(&format!("use {name}"));
                if used && source.name != *home {
                    faults.push(format!("{}:{}: {name} belongs to {home}", source.name, number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_file_uses_only_what_is_above_it() {
    let layers = layers();
    let edges = edges();
    let mut faults = Vec::new();
    for (from, targets) in &edges {
        for to in targets {
            match (layers.get(from), layers.get(to)) {
                (Some(user), Some(used)) if used > user => faults.push(format!("{from} uses {to}, which is below it")),
                (Some(_), None) => faults.push(format!("{from} uses {to}, which lib.rs does not declare")),
                _ => {}
            }
        }
    }
    for from in edges.keys() {
        if reaches(&edges, from, from, &mut BTreeSet::new()) {
            faults.push(format!("{from} uses itself through others"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn only_the_composition_sees_the_configuration() {
    for source in sources() {
        let sees =
            source.code.iter().any(|line| line.contains("crate::config") || line.contains("dcc_mcp_server::config"));
        let may = matches!(source.name.as_str(), "app.rs" | "app/parts.rs" | "main.rs" | "config.rs");
        assert!(may || !sees, "{} uses crate::config", source.name);
    }
}

#[test]
fn the_tests_of_this_file_find_what_they_look_for() {
    let code: Vec<String> =
        ["fn short() {", "    x();", "}", "pub(crate) fn long(", "    a: u8,", ") {", "}"].map(str::to_owned).into();
    assert_eq!(functions(&code), [("short".to_owned(), 3), ("long".to_owned(), 4)]);
    assert_eq!(used_modules("use crate::http::{head, client};"), ["http"]);
    assert_eq!(used_modules("    let x = crate::limits::A + crate::hash::fnv64(b);"), ["limits", "hash"]);
    assert_eq!(used_modules("use crate::{hub, limits::X};"), ["hub", "limits"]);
}

/// Module → the number of its group in `lib.rs`.
fn layers() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let mut layers = BTreeMap::new();
    let mut group = 0;
    for line in text.lines() {
        if line.trim().is_empty() {
            group += 1;
        }
        if let Some((_, name)) = line.split_once("mod ") {
            layers.insert(name.trim_end_matches(';').to_owned(), group);
        }
    }
    assert!(layers.len() > 5, "lib.rs declares the modules: {layers:?}");
    layers
}

/// Module → the other modules that its files use.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.name != "main.rs" && source.name != "lib.rs") {
        let module = source.name.trim_end_matches(".rs").split('/').next().unwrap_or_default().to_owned();
        let used = source.code.iter().flat_map(|line| used_modules(line));
        edges.entry(module.clone()).or_default().extend(used.filter(|used| *used != module));
    }
    edges
}

/// The modules of this crate that a line names after `crate::`.
fn used_modules(line: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => {
                let parts = list.split('}').next().unwrap_or(list).split(',');
                found.extend(parts.filter_map(|part| part.trim().split(|c| !is_name(c)).next()).map(str::to_owned));
            }
            None => found.extend(rest.split(|c| !is_name(c)).next().map(str::to_owned)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn reaches(edges: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str, seen: &mut BTreeSet<String>) -> bool {
    edges
        .get(from)
        .into_iter()
        .flatten()
        .any(|next| next == to || seen.insert(next.clone()) && reaches(edges, next, to, seen))
}

/// Names and lengths of the functions: in formatted code the closing brace stands under the first letter.
fn functions(code: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        let qualifiers =
            |word: &&str| word.starts_with("pub") || matches!(*word, "const" | "unsafe" | "extern" | "\"C\"");
        if !words[..at].iter().all(qualifiers) || line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let declared = format!("{});", " ".repeat(indent));
        let end = code[start..].iter().position(|line| *line == close || line.starts_with(&declared));
        let name = words.get(at + 1).and_then(|word| word.split(['(', '<']).next()).unwrap_or_default();
        found.push((name.to_owned(), end.unwrap_or(code.len() - start) + 1));
    }
    found
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable file");
        let name = path.strip_prefix(&folder).expect("below src").to_string_lossy().into_owned();
        let code = without_tests(&text);
        Source { name, code, text }
    };
    rust_files(&folder).into_iter().filter(|path| !is_test_module(path)).map(read).collect()
}

/// The lines up to the tests at the end, comments as empty lines.
fn without_tests(text: &str) -> Vec<String> {
    let marks = ["\n#[cfg(test)]\nmod tests {", "\n#[cfg(test)]\npub mod tests {"];
    let end = marks.iter().filter_map(|mark| text.find(mark)).min().map_or(text.len(), |at| at + 1);
    let lines = text[..end].lines();
    lines.map(|line| if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() }).collect()
}

/// True for a file that its parent declares for tests alone.
fn is_test_module(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let parent = path.parent().map(|folder| folder.with_extension("rs")).unwrap_or_default();
    let above = fs::read_to_string(parent).unwrap_or_default();
    above.contains(&format!("#[cfg(test)]\nmod {stem};")) || above.contains(&format!("#[cfg(test)]\npub mod {stem};"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
