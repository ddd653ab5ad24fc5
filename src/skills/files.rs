//! The files of one skill folder: read with a bound, and never from outside the folder.
//!
//! **Invariant**: a path that this file hands out is a regular file whose real place, links resolved, is inside the skill
//! folder; opening a file never waits (a named pipe among the files is refused, not read).
//! **Bounds**: `MANIFEST_BYTES_MAX` a file, `SKILL_FILES_MAX` scripts.
//! Left out on purpose: what the files mean (`manifest.rs`) and how a script is started (`run.rs`).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::limits::{MANIFEST_BYTES_MAX, SKILL_FILES_MAX};

#[derive(Debug)]
pub enum FileError {
    Missing { name: String },
    Outside { name: String },
    NotAFile { name: String },
    TooLarge { name: String },
    NotText { name: String },
    Read { name: String, source: io::Error },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Missing { name } => write!(f, "there is no file \"{name}\" in the skill folder"),
            FileError::Outside { name } => {
                write!(f, "\"{name}\" leads out of the skill folder; only files inside it are used")
            }
            FileError::NotAFile { name } => write!(f, "\"{name}\" is not a regular file"),
            FileError::TooLarge { name } => write!(f, "\"{name}\" is larger than {MANIFEST_BYTES_MAX} bytes"),
            FileError::NotText { name } => write!(f, "\"{name}\" is not UTF-8 text"),
            FileError::Read { name, source } => write!(f, "\"{name}\" cannot be read: {source}"),
        }
    }
}

/// The real path of the file that `name` (relative, as a manifest gives it) names inside `folder`.
pub fn inside(folder: &Path, name: &str) -> Result<PathBuf, FileError> {
    let relative = Path::new(name);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || name.is_empty() || name.contains('\0') {
        return Err(FileError::Outside { name: name.to_owned() });
    }
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::Missing { name: name.to_owned() },
        _ => FileError::Read { name: name.to_owned(), source },
    };
    let real_folder = folder.canonicalize().map_err(read)?;
    let real = real_folder.join(relative).canonicalize().map_err(read)?;
    if !real.starts_with(&real_folder) {
        return Err(FileError::Outside { name: name.to_owned() });
    }
    if !fs::metadata(&real).map_err(read)?.is_file() {
        return Err(FileError::NotAFile { name: name.to_owned() });
    }
    Ok(real)
}

/// The text of a file inside the folder, without a byte-order mark.
pub fn read(folder: &Path, name: &str) -> Result<String, FileError> {
    let path = inside(folder, name)?;
    let failed = |source: io::Error| FileError::Read { name: name.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(FileError::TooLarge { name: name.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText { name: name.to_owned() })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The scripts of a skill: what stands in `scripts/` and can be run, by name. Names that begin with `_` or `.` are
/// parts that other scripts use.
pub fn scripts(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.join("scripts")) else { return Vec::new() };
    let names = entries.flatten().take(SKILL_FILES_MAX).filter_map(|entry| entry.file_name().into_string().ok());
    let mut scripts: Vec<String> = names
        .filter(|name| !name.starts_with(['_', '.']))
        .map(|name| format!("scripts/{name}"))
        .filter(|name| inside(folder, name).is_ok_and(|path| is_script(&path)))
        .collect();
    scripts.sort();
    scripts
}

/// The file name without folder and ending.
pub fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name)
}

/// Endings of scripts that an interpreter runs (`run.rs` knows which); anything else must be executable.
pub const SCRIPT_ENDINGS: [&str; 11] = ["py", "pyw", "sh", "bash", "js", "mjs", "cjs", "rb", "pl", "lua", "ps1"];

fn is_script(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
    SCRIPT_ENDINGS.contains(&ending.as_str()) || is_executable(path)
}

pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::testing::Folder;

    #[test]
    fn only_regular_files_inside_the_folder() {
        let folder = Folder::new();
        let skill = folder.write("s/scripts/a.py", "").parent().and_then(Path::parent).map(Path::to_owned);
        let skill = skill.expect("the file has a folder");
        folder.write("secret.py", "print(1)");
        std::os::unix::fs::symlink("../../secret.py", skill.join("scripts/link.py")).expect("a link can be made");
        std::os::unix::fs::symlink("a.py", skill.join("scripts/alias.py")).expect("a link can be made");
        for (name, expected) in [
            ("scripts/a.py", "ok"),
            ("./scripts/a.py", "ok"),
            ("scripts/alias.py", "ok"),
            ("scripts/none.py", "there is no file \"scripts/none.py\" in the skill folder"),
            ("../secret.py", "\"../secret.py\" leads out of the skill folder; only files inside it are used"),
            ("scripts/link.py", "\"scripts/link.py\" leads out of the skill folder; only files inside it are used"),
            ("/etc/passwd", "\"/etc/passwd\" leads out of the skill folder; only files inside it are used"),
            ("scripts", "\"scripts\" is not a regular file"),
            ("", "\"\" leads out of the skill folder; only files inside it are used"),
        ] {
            let got = inside(&skill, name).map(|_| "ok".to_owned()).unwrap_or_else(|error| error.to_string());
            assert_eq!(got, expected);
        }
        assert_eq!(scripts(&skill), ["scripts/a.py", "scripts/alias.py"]);
    }

    #[test]
    fn large_files_binary_files_and_pipes_are_refused_at_once() {
        let folder = Folder::new();
        folder.write("big.yaml", &"x".repeat(MANIFEST_BYTES_MAX as usize + 1));
        std::fs::write(folder.path().join("bin.yaml"), [0xff, 0xfe]).expect("a file can be written");
        let pipe = folder.path().join("pipe.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        for (name, expected) in
            [("big.yaml", "larger than"), ("bin.yaml", "not UTF-8 text"), ("pipe.yaml", "not a regular file")]
        {
            let error = read(folder.path(), name).expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
