//! Running the script of a tool: which program runs it, with which words and environment.
//!
//! The contract with scripts is older than this program (`docs/skills.md`): arguments as one JSON object on standard
//! input and as `--key value` words, no shell, the result on standard output.
//!
//! **Invariant**: whatever goes wrong is a failed result that says what and what to do about it.
//! **Thread**: the caller's.
//! **Bounds**: `SCRIPTS_RUNNING_MAX`, `SCRIPT_WORD_BYTES_MAX`, `SCRIPT_WORDS_BYTES_MAX`, and those of `child.rs`.
//! Left out on purpose: a sandbox; a skill runs with the server's rights, and who installs one trusts it.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};

use crate::limits::{SCRIPT_WORD_BYTES_MAX, SCRIPT_WORDS_BYTES_MAX, SCRIPTS_RUNNING_MAX};
use crate::skills::child::{self, Watch};
use crate::skills::files;
use crate::skills::outcome::{Of, Outcome, outcome};
use crate::skills::set::SkillTool;

/// Where interpreters are found.
#[derive(Clone, Debug, Default)]
pub struct Interpreters {
    /// `DCC_MCP_PYTHON_EXECUTABLE`.
    pub python: Option<OsString>,
    /// `DCC_MCP_ALLOW_AMBIENT_PYTHON`: any Python will do for skills of an application that has its own.
    pub allow_ambient_python: bool,
    pub path: Vec<PathBuf>,
}

/// Applications whose Python is their own: it has modules that no other has.
const OWN_PYTHON: [&str; 21] = [
    "3dsmax",
    "max",
    "blender",
    "c4d",
    "cinema4d",
    "clarisse",
    "freecad",
    "gaffer",
    "gimp",
    "houdini",
    "katana",
    "mari",
    "maya",
    "modo",
    "motionbuilder",
    "nuke",
    "rumba",
    "substance-designer",
    "substance-painter",
    "substance_painter",
    "unreal",
];

impl Interpreters {
    pub fn from_environment() -> Interpreters {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Interpreters {
            python: set("DCC_MCP_PYTHON_EXECUTABLE"),
            allow_ambient_python: set("DCC_MCP_ALLOW_AMBIENT_PYTHON")
                .is_some_and(|value| value == "1" || value == "true"),
            path: set("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
        }
    }

    /// The program that runs a script, and what is put before the script's own words.
    fn for_script(&self, script: &Path, dcc: &str) -> Result<(PathBuf, Vec<&'static str>), String> {
        let ending = script.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
        let one_of = |names: &[&str], cure: &str| self.one_of(names, cure).map(|program| (program, Vec::new()));
        match ending.as_str() {
            "py" | "pyw" => self.python(dcc).map(|program| (program, Vec::new())),
            "sh" | "bash" => one_of(&["bash", "sh"], "install bash"),
            "js" | "mjs" | "cjs" => one_of(&["node"], "install Node.js"),
            "rb" => one_of(&["ruby"], "install Ruby"),
            "pl" => one_of(&["perl"], "install Perl"),
            "lua" => one_of(&["lua"], "install Lua"),
            "ps1" => self.one_of(&["pwsh"], "install PowerShell").map(|program| (program, vec!["-NoProfile", "-File"])),
            _ if files::is_executable(script) => Ok((PathBuf::new(), Vec::new())),
            _ => Err(format!(
                "no interpreter is known for \"{}\" and the file is not executable: make it executable (chmod +x) with a `#!` line",
                script.display()
            )),
        }
    }

    fn python(&self, dcc: &str) -> Result<PathBuf, String> {
        if let Some(python) = &self.python {
            let cure = "it is what DCC_MCP_PYTHON_EXECUTABLE names: correct or unset that";
            return self.one_of(&[python.to_string_lossy().as_ref()], cure);
        }
        if OWN_PYTHON.contains(&dcc) && !self.allow_ambient_python {
            return Err(format!(
                "this skill needs the Python of {dcc}: set DCC_MCP_PYTHON_EXECUTABLE to it, or DCC_MCP_ALLOW_AMBIENT_PYTHON=1 to use any"
            ));
        }
        self.one_of(&["python3", "python"], "install Python 3 or set DCC_MCP_PYTHON_EXECUTABLE")
    }

    /// The first of the programs that is there: in `PATH`, or at the place that a name with a slash gives.
    fn one_of(&self, names: &[&str], cure: &str) -> Result<PathBuf, String> {
        for name in names {
            let found = match name.contains('/') {
                true => Some(PathBuf::from(name)).filter(|path| files::is_executable(path)),
                false => self.path.iter().map(|folder| folder.join(name)).find(|path| files::is_executable(path)),
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(format!("{} was not found: {cure}", names.join(" or ")))
    }

    /// Whether a program is in `PATH`.
    pub fn has(&self, name: &str) -> bool {
        self.one_of(&[name], "").is_ok()
    }
}

/// Runs the tool's script. `arguments` is JSON text of an object; `None` means `{}`.
pub fn run(tool: &SkillTool, arguments: &str, interpreters: &Interpreters, watch: Watch<'_>) -> Outcome {
    let values: Map<String, Value> = match serde_json::from_str(arguments) {
        Ok(values) => values,
        Err(error) => {
            return Outcome::failed(format!("the arguments of {} must be a JSON object: {error}", tool.tool.name));
        }
    };
    if let Err(what) = tool.rules.check(&values) {
        return Outcome::failed(format!("{}: {what}", tool.tool.name));
    }
    let Some(_place) = Place::take() else {
        return Outcome::failed(format!(
            "{SCRIPTS_RUNNING_MAX} scripts are running already; try again when some have ended"
        ));
    };
    // Looked up again for each call: the folder may have changed since it was read.
    let script = match files::inside(&tool.folder, &tool.script.to_string_lossy()) {
        Ok(script) => script,
        Err(error) => return Outcome::failed(format!("the script of {} cannot be run: {error}", tool.tool.name)),
    };
    let command = match command(&script, tool, &values, interpreters) {
        Ok(command) => command,
        Err(what) => return Outcome::failed(format!("{} cannot be run: {what}", tool.tool.name)),
    };
    let program = command.get_program().to_string_lossy().into_owned();
    let name = script.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let of =
        Of { script: &name, time_limit: watch.deadline.limit(), has_output_schema: tool.tool.output_schema.is_some() };
    match child::run(command, arguments.as_bytes(), watch) {
        Ok(finished) => outcome(finished, of),
        Err(error) => Outcome::failed(format!("{name} could not be run by {program}: {}", spawn_error(&error))),
    }
}

fn spawn_error(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("{error}; does its `#!` line name a program that is there?"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("{error}; a script without a known ending needs a `#!` line")
        }
        _ => error.to_string(),
    }
}

fn command(
    script: &Path,
    tool: &SkillTool,
    values: &Map<String, Value>,
    interpreters: &Interpreters,
) -> Result<Command, String> {
    let (program, before) = interpreters.for_script(script, &tool.dcc)?;
    let mut command = if program.as_os_str().is_empty() {
        Command::new(script)
    } else {
        let mut command = Command::new(program);
        command.args(before).arg(script);
        command
    };
    command.args(words(values)).env_remove("DCC_MCP_AUTH_TOKEN_FILE").env("DCC_MCP_SKILL_DIR", &tool.folder);
    Ok(command)
}

/// `--key value` for every string, number and boolean; none at all where the system would not take them.
fn words(values: &Map<String, Value>) -> Vec<String> {
    let mut words = Vec::new();
    for (key, value) in values {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        words.push(format!("--{}", key.replace('_', "-")));
        words.push(value);
    }
    let total: usize = words.iter().map(|word| word.len() + 1).sum();
    let is_bad = |word: &String| word.len() > SCRIPT_WORD_BYTES_MAX || word.contains('\0');
    if total > SCRIPT_WORDS_BYTES_MAX || words.iter().any(is_bad) { Vec::new() } else { words }
}

/// A place among the scripts that run at the same time.
struct Place;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Place> {
        let more = |running: usize| (running < SCRIPTS_RUNNING_MAX).then_some(running + 1);
        RUNNING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok().map(|_| Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}
