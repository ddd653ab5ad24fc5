//! The seeds of the fuzz targets, replayed on stable Rust: what was found once is not found again.
//!
//! `make fuzz` looks for new ones. What it finds becomes a file in `corpus/<target>/`, named after what was wrong.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "checks/lib.rs"]
mod checks;

use checks::{TARGETS, Target};

#[test]
fn every_seed_holds_and_every_parser_takes_some_and_refuses_some() {
    for Target { name, check } in TARGETS {
        let (mut taken, mut refused) = (0, 0);
        for seed in files(&folder().join("corpus").join(name)) {
            let input = fs::read(&seed).expect("a readable seed");
            match catch_unwind(AssertUnwindSafe(|| check(&input))) {
                Ok(true) => taken += 1,
                Ok(false) => refused += 1,
                Err(_) => panic!("{} does not hold", seed.display()),
            }
        }
        assert!(taken > 1 && refused > 1, "{name}: {taken} taken, {refused} refused");
    }
}

#[test]
fn every_check_has_its_fuzz_target_and_its_seeds() {
    let checks: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let names = |below: &str| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        files(&folder().join(below)).into_iter().map(stem).collect()
    };
    assert_eq!(names("targets"), checks);
    assert_eq!(names("corpus"), checks);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}
