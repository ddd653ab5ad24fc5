//! The files of one skill folder: read with a bound, and never from outside the folder.
//!
//! **Invariant**: a path that this file hands out is a regular file whose real place, links resolved, is inside the skill
//! folder; opening a file never waits (a named pipe among the files is refused, not read).
//! **Bounds**: `MANIFEST_BYTES_MAX` a manifest; `SKILL_FILES_MAX` scripts, and files below a folder, which is entered
//! `SKILL_FOLDER_DEPTH_MAX` levels deep.
//! Left out on purpose: what the files mean (`manifest.rs`) and how a script is started (`run.rs`).

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::limits::{MANIFEST_BYTES_MAX, SKILL_FILES_MAX, SKILL_FOLDER_DEPTH_MAX};
use crate::logging::Quoted;

#[derive(Debug)]
pub enum FileError {
    Missing { name: String },
    Outside { name: String },
    NotAFile { name: String },
    TooLarge { name: String, limit: u64 },
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
            FileError::TooLarge { name, limit } => write!(f, "\"{name}\" is larger than {limit} bytes"),
            FileError::NotText { name } => write!(f, "\"{name}\" is not UTF-8 text"),
            FileError::Read { name, source } => write!(f, "\"{name}\" cannot be read: {source}"),
        }
    }
}

/// The real path of the file that `name` (relative, as a manifest gives it) names inside `folder`.
pub fn inside(folder: &Path, name: &str) -> Result<PathBuf, FileError> {
    let real = real_path(folder, name)?;
    match fs::metadata(&real) {
        Ok(facts) if facts.is_file() => Ok(real),
        Ok(_) => Err(FileError::NotAFile { name: name.to_owned() }),
        Err(source) => Err(not_read(name, source)),
    }
}

/// The real path of whatever `name` names inside `folder`.
fn real_path(folder: &Path, name: &str) -> Result<PathBuf, FileError> {
    let relative = Path::new(name);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || name.is_empty() || name.contains('\0') {
        return Err(FileError::Outside { name: name.to_owned() });
    }
    let real_folder = folder.canonicalize().map_err(|source| not_read(name, source))?;
    let real = real_folder.join(relative).canonicalize().map_err(|source| not_read(name, source))?;
    if !real.starts_with(&real_folder) {
        return Err(FileError::Outside { name: name.to_owned() });
    }
    Ok(real)
}

fn not_read(name: &str, source: io::Error) -> FileError {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::Missing { name: name.to_owned() },
        _ => FileError::Read { name: name.to_owned(), source },
    }
}

/// The text of a file inside the folder, without a byte-order mark.
pub fn read(folder: &Path, name: &str) -> Result<String, FileError> {
    let bytes = read_bytes(folder, name, MANIFEST_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText { name: name.to_owned() })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A file inside the folder that has at most `limit` bytes.
pub fn read_bytes(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, FileError> {
    let path = inside(folder, name)?;
    let failed = |source: io::Error| FileError::Read { name: name.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { name: name.to_owned(), limit });
    }
    Ok(bytes)
}

/// The files that `name` means, sorted: one, all below a folder, or those of a pattern such as `prompts/*.prompt.yaml`
/// (one `*`, in the last part). What is hidden, or leads out of the skill folder, is none of them.
pub fn matching(folder: &Path, name: &str) -> Result<Vec<String>, FileError> {
    let name = name.trim().trim_start_matches("./").trim_end_matches('/');
    if let Some((before, after)) = name.split_once('*') {
        let (parent, start) = before.rsplit_once('/').map_or(("", before), |(parent, start)| (parent, start));
        let fits = |file: &String| {
            let rest = file.strip_prefix(parent).map(|rest| rest.trim_start_matches('/')).unwrap_or_default();
            let length = start.len() + after.len();
            !rest.contains('/') && rest.len() >= length && rest.starts_with(start) && rest.ends_with(after)
        };
        if after.contains(['*', '/']) {
            return Err(FileError::Missing { name: name.to_owned() });
        }
        return Ok(below(folder, parent, 0)?.into_iter().filter(fits).collect());
    }
    match inside(folder, name) {
        Ok(_) => Ok(vec![name.to_owned()]),
        Err(FileError::NotAFile { .. }) if is_folder(folder, name) => {
            below(folder, if name == "." { "" } else { name }, SKILL_FOLDER_DEPTH_MAX)
        }
        Err(error) => Err(error),
    }
}

pub fn is_folder(folder: &Path, name: &str) -> bool {
    real_path(folder, name).is_ok_and(|path| path.is_dir())
}

/// The files in the folder `name` (empty: the skill folder) and in folders there, `depth` levels down, sorted.
fn below(folder: &Path, name: &str, depth: usize) -> Result<Vec<String>, FileError> {
    let mut files = Vec::new();
    let mut waiting = VecDeque::from([(name.to_owned(), 0)]);
    while let Some((name, level)) = waiting.pop_front() {
        let path = if name.is_empty() { folder.to_owned() } else { real_path(folder, &name)? };
        let entries = fs::read_dir(path).map_err(|source| FileError::Read { name: name.clone(), source })?;
        for entry in entries.flatten().take(SKILL_FILES_MAX) {
            let Ok(file) = entry.file_name().into_string() else { continue };
            let file = if name.is_empty() { file } else { format!("{name}/{file}") };
            if entry.file_name().as_encoded_bytes().starts_with(b".") || files.len() + waiting.len() >= SKILL_FILES_MAX
            {
                continue;
            }
            match inside(folder, &file) {
                Ok(_) => files.push(file),
                // A link to a folder is not entered: it may lead in a circle.
                Err(FileError::NotAFile { .. })
                    if level < depth && entry.file_type().is_ok_and(|kind| kind.is_dir()) =>
                {
                    waiting.push_back((file, level + 1));
                }
                Err(error) => {
                    log::debug!("event=skill_file_ignored folder={} reason={}", folder.display(), Quoted(&error))
                }
            }
        }
    }
    files.sort();
    Ok(files)
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
