//! Running the script of a tool: which program runs it, with which words and environment.
//!
//! The contract with scripts is older than this program (`docs/skills.md`): arguments as one JSON object on standard
//! input and as `--key value` words, no shell, the result on standard output.
//!
//! **Invariant**: whatever goes wrong is a failed result that says what and what to do about it.
//! **Thread**: the caller's.
//! **Bounds**: `SCRIPTS_RUNNING_MAX`, `SCRIPT_WORD_BYTES_MAX`, `SCRIPT_WORDS_BYTES_MAX`, and those of `child.rs`.
//! Left out on purpose: a sandbox; a skill runs with the server's rights, and who installs one trusts it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

use crate::json;
use crate::limits::{SCRIPT_WORD_BYTES_MAX, SCRIPT_WORDS_BYTES_MAX, SCRIPTS_RUNNING_MAX};
use crate::os;
use crate::places::Places;
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
    let Some(_place) = PLACES.take() else {
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
    // One that asks reads lines: the arguments are the first.
    let input = if tool.dialog { Cow::Owned(json::compact(arguments) + "\n") } else { Cow::Borrowed(arguments) };
    match child::run(command, input.as_bytes(), tool.dialog, watch) {
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
    for variable in os::SERVICE_VARIABLES {
        command.env_remove(variable);
    }
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

/// For the scripts that run at the same time.
static PLACES: Places = Places::new(SCRIPTS_RUNNING_MAX);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::deadline::Deadline;
    use crate::jsonrpc::{ErrorObject, METHOD_NOT_FOUND};
    use crate::skills::child::Cancel;
    use crate::skills::dialog::{Answer, Dialog};
    use crate::skills::manifest;
    use crate::skills::testing::Folder;

    /// A skill with one script, and what a call of it gives.
    struct Bench {
        folder: Folder,
        interpreters: Interpreters,
        dcc: &'static str,
    }

    impl Bench {
        fn new() -> Bench {
            let interpreters = Interpreters { python: None, ..Interpreters::from_environment() };
            Bench { folder: Folder::new(), interpreters, dcc: "python" }
        }

        fn tool(&self, file: &str, script: &str, extra: &str) -> SkillTool {
            let front = format!(
                "---\nname: bench\ndcc: {}\ntools:\n- name: t\n  source_file: scripts/{file}\n{extra}\n---\n",
                self.dcc
            );
            self.folder.write("SKILL.md", &front);
            self.folder.write(&format!("scripts/{file}"), script);
            let skill = manifest::read(self.folder.path()).expect("the skill is right");
            SkillTool::new(&skill, &skill.tools[0], Duration::from_secs(120)).expect("the script is there")
        }

        fn run(&self, tool: &SkillTool, arguments: &str, limit: Duration) -> (Value, bool) {
            let (cancel, deadline) = (Cancel::new(), Deadline::after(limit));
            let watch = Watch { deadline, cancel: &cancel, watched: None, dialog: &mut || {} };
            read(run(tool, arguments, &self.interpreters, watch))
        }

        fn call(&self, file: &str, script: &str, arguments: &str) -> (Value, bool) {
            self.run(&self.tool(file, script, ""), arguments, Duration::from_secs(20))
        }
    }

    fn read(outcome: Outcome) -> (Value, bool) {
        let value: Value = serde_json::from_slice(&outcome.json).expect("a result is JSON");
        assert_eq!(value["isError"].as_bool().unwrap_or(false), outcome.is_error);
        (value, outcome.is_error)
    }

    fn text(result: &(Value, bool)) -> &str {
        result.0["content"][0]["text"].as_str().expect("a result has text")
    }

    /// A failed call whose text has each of the parts and no structured content.
    fn check_failed(result: &(Value, bool), parts: &[&str]) {
        assert!(result.1, "{}", result.0);
        assert_eq!(result.0.get("structuredContent"), None);
        for part in parts {
            assert!(text(result).contains(part), "no {part:?} in {:?}", text(result));
        }
    }

    #[test]
    fn arguments_arrive_on_standard_input_and_as_words() {
        let script = "import json, sys\nprint(json.dumps({'stdin': json.load(sys.stdin), 'words': sys.argv[1:]}))\n";
        let arguments = r#"{"file_name":"a b.obj","count":3,"big":12345678901,"deep":{"x":1},"on":true,"off":false,"no":null,"list":[1]}"#;
        let got = Bench::new().call("t.py", script, arguments);
        assert!(!got.1);
        let expected: Value = serde_json::from_str(arguments).expect("it is JSON");
        assert_eq!(got.0["structuredContent"]["stdin"], expected);
        let words = r#"["--big","12345678901","--count","3","--file-name","a b.obj","--off","false","--on","true"]"#;
        assert_eq!(got.0["structuredContent"]["words"].to_string(), words);
        let copy: Value = serde_json::from_str(text(&got)).expect("the text is the same JSON");
        assert_eq!(copy, got.0["structuredContent"]);
    }

    #[test]
    fn large_arguments_go_by_standard_input_alone() {
        let script =
            "import json, sys\nprint(json.dumps({'size': len(sys.stdin.read()), 'words': len(sys.argv) - 1}))\n";
        let bench = Bench::new();
        let large = format!(r#"{{"a":"x","text":"{}"}}"#, "y".repeat(3_000_000));
        let got = bench.call("t.py", script, &large);
        assert_eq!(got.0["structuredContent"]["size"], large.len());
        assert_eq!(got.0["structuredContent"]["words"], 0);
        let zero = bench.call("t.py", script, r#"{"a":"x\u0000y"}"#);
        assert_eq!(zero.0["structuredContent"]["words"], 0);
    }

    #[test]
    fn what_is_printed_becomes_the_result() {
        let bench = Bench::new();
        for (printed, structured) in [
            ("{\"a\":\n  1}", r#"{"a":1}"#),
            ("hello", r#"{"message":"hello","success":true}"#),
            ("", r#"{"message":"","success":true}"#),
            ("[INFO] done", r#"{"message":"[INFO] done","success":true}"#),
            ("[[1, 2]]", r#"{"message":"[[1, 2]]","success":true}"#),
            ("{\"success\":true,\"n\":1.50}", r#"{"n":1.5,"success":true}"#),
        ] {
            let got = bench.call("t.sh", &format!("cat <<'END'\n{printed}\nEND\n"), "{}");
            assert!(!got.1, "{printed}: {}", got.0);
            assert_eq!(got.0["structuredContent"].to_string(), structured);
        }
    }

    #[test]
    fn a_script_that_says_it_failed_has_failed() {
        let bench = Bench::new();
        let script = "echo '{\"success\": false, \"message\": \"no such mesh\"}'";
        let got = bench.call("t.sh", script, "{}");
        assert!(got.1 && text(&got).contains("no such mesh"));
        assert_eq!(got.0["structuredContent"]["success"], false);
        let with_schema = bench.tool("t.sh", script, "  output_schema: {type: object, required: [n]}");
        let got = bench.run(&with_schema, "{}", Duration::from_secs(20));
        assert!(got.1 && text(&got).contains("no such mesh"));
        assert_eq!(got.0.get("structuredContent"), None, "it may not fit the output schema");
    }

    #[test]
    fn failures_say_what_happened() {
        let bench = Bench::new();
        for (file, script, parts) in [
            (
                "t.sh",
                "echo half; echo 'no licence' >&2; exit 3",
                &["t.sh ended with exit code 3", "no licence", "half"][..],
            ),
            ("t.sh", "kill -9 $$", &["t.sh was ended by signal 9 (SIGKILL"]),
            ("t.py", "raise ValueError('odd')", &["t.py ended with exit code 1", "ValueError: odd"]),
            ("t.sh", "echo '{\"a\": 1'", &["begins like JSON but is not valid JSON", "EOF", "{\"a\": 1"]),
            ("t.sh", "echo \"{'a': 1}\"", &["begins like JSON but is not valid JSON"]),
            ("t.sh", "echo '[{\"a\": 1}, '", &["begins like JSON but is not valid JSON"]),
            ("t.sh", "echo '{\"a\": \"\\ud800\"}'", &["begins like JSON but is not valid JSON"]),
            ("t.py", "print('[' * 200 + '{')\nprint('{\"a\":' * 200 + '1' + '}' * 200)", &["nested deeper than 100"]),
            ("t.sh", "printf 'ok\\377\\376'", &["is not UTF-8 text (byte 2 of 4)"]),
        ] {
            check_failed(&bench.call(file, script, "{}"), parts);
        }
    }

    #[test]
    fn a_script_may_answer_in_the_form_of_a_response() {
        let bench = Bench::new();
        let print = |result: &str| format!("cat <<'END'\nsome words\n{{\"jsonrpc\":\"2.0\",{result}}}\nEND\n");
        let image = r#""result":{"content":[{"type":"image", "data":"eA==","mimeType":"image/png"}]}"#;
        let got = bench.call("t.sh", &print(image), "{}");
        assert_eq!(got.0.to_string(), r#"{"content":[{"data":"eA==","mimeType":"image/png","type":"image"}]}"#);
        let got = bench.call("t.sh", &print(r#""id":1,"result":{"a":1}"#), "{}");
        assert_eq!(got.0["structuredContent"].to_string(), r#"{"a":1}"#);
        let failed =
            bench.call("t.sh", &print(r#""result":{"content":[{"type":"text","text":"no"}],"isError":true}"#), "{}");
        check_failed(&failed, &["no"]);
        for (result, part) in [
            (r#""error":{"code":1,"message":"no licence"}"#, "t.sh: no licence"),
            (r#""result":[1]"#, "must be an object"),
            (r#""result":{"content":[{"type":"smell"}]}"#, "content of type \"smell\""),
            (r#""result":{"content":{}}"#, "invalid type"),
            (r#""result":{"content":[],"structuredContent":1}"#, "invalid type"),
            (r#""result":{"content":[],"structuredContent":null}"#, "invalid type: null"),
            (r#""result":{"content":[],"resultType":"task"}"#, "unknown field `resultType`"),
            (r#""result":{"content":[],"_meta":{"x":"\ud800"}}"#, "wrong result"),
        ] {
            check_failed(&bench.call("t.sh", &print(result), "{}"), &[part]);
        }
        let with_schema = bench.tool("t.sh", &print(r#""result":{"content":[]}"#), "  output_schema: {type: object}");
        check_failed(&bench.run(&with_schema, "{}", Duration::from_secs(20)), &["structuredContent is needed"]);
        let both = print(r#""result":{"a":1},"error":{}"#);
        assert!(text(&bench.call("t.sh", &both, "{}")).contains("some words"), "that is no response");
    }

    /// Answers each question a moment after it was asked, through the pipe that is watched.
    struct Echo {
        pipe: (io::PipeReader, io::PipeWriter),
        told: Vec<String>,
        asked: Vec<(u64, String)>,
        count: u64,
    }

    impl Echo {
        fn new() -> Echo {
            Echo { pipe: io::pipe().expect("a pipe can be made"), told: Vec::new(), asked: Vec::new(), count: 0 }
        }
    }

    impl Dialog for Echo {
        fn idle(&mut self) {}

        fn tell(&mut self, method: &str, params: &str) {
            self.told.push(format!("{method} {params}"));
        }

        fn ask(&mut self, _: &str, method: &str, params: &str) -> Result<u64, ErrorObject> {
            if method == "roots/list" {
                return Err(ErrorObject::new(METHOD_NOT_FOUND, "no roots"));
            }
            self.count += 1;
            self.asked.push((self.count, params.to_owned()));
            self.pipe.1.write_all(b"x").map(|()| self.count).map_err(|_| ErrorObject::invalid_params("no pipe"))
        }

        fn answers(&self) -> Option<BorrowedFd<'_>> {
            Some(self.pipe.0.as_fd())
        }

        fn answer(&mut self) -> Option<(u64, Answer)> {
            let (number, params) = self.asked.pop()?;
            self.pipe.0.read_exact(&mut [0]).ok()?;
            Some((number, Ok(params.into_bytes())))
        }
    }

    const ASKING: &str = r#"
import json, sys
arguments = json.loads(sys.stdin.readline())
def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def ask(method, params):
    say({"id": "q", "method": method, "params": params})
    return json.loads(sys.stdin.readline())
say({"method": "notifications/progress", "params": {"progress": 1}})
first = ask("elicitation/create", {"message": arguments["text"]})
second = ask("roots/list", {})
print(json.dumps({"first": first, "second": second}))
"#;

    #[test]
    fn a_script_that_asks_is_answered_on_its_standard_input() {
        let bench = Bench::new();
        let tool = bench.tool("t.py", ASKING, "  dialog: true");
        let (cancel, mut echo) = (Cancel::new(), Echo::new());
        let started = Instant::now();
        // Larger than a pipe takes at once, with line breaks between its tokens.
        let arguments = format!("{{\n\"text\":\n\"{}\"}}", "y".repeat(300_000));
        let watch = Watch {
            deadline: Deadline::after(Duration::from_secs(20)),
            cancel: &cancel,
            watched: None,
            dialog: &mut echo,
        };
        let got = read(run(&tool, &arguments, &bench.interpreters, watch));
        assert!(!got.1, "{}", text(&got));
        let answers = &got.0["structuredContent"];
        assert_eq!(answers["first"]["id"], "q");
        assert_eq!(answers["first"]["result"]["message"].as_str().map(str::len), Some(300_000));
        assert_eq!(answers["second"]["error"]["message"], "no roots");
        assert_eq!(echo.told, [r#"notifications/progress {"progress": 1}"#]);
        assert!(started.elapsed() < Duration::from_secs(10));

        let plain = bench.tool("t.py", ASKING, "");
        check_failed(
            &bench.run(&plain, r#"{"text":"x"}"#, Duration::from_secs(20)),
            &["elicitation/create", "`dialog: true`"],
        );
    }

    #[test]
    fn a_script_that_talks_without_end_is_ended() {
        let bench = Bench::new();
        let deaf = r#"
import sys
while True: sys.stdout.write('{"jsonrpc":"2.0","id":1,"method":"roots/list"}\n' * 100)
"#;
        let tool = bench.tool("t.py", deaf, "  dialog: true");
        check_failed(&bench.run(&tool, "{}", Duration::from_secs(2)), &["did not end within 2 s"]);
        let endless = "import time\nprint('{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"elicitation/create\"}', flush=True)\ntime.sleep(60)\n";
        let tool = bench.tool("t.py", endless, "  dialog: true");
        check_failed(&bench.run(&tool, "{}", Duration::from_secs(1)), &["did not end within 1 s"]);
    }

    #[test]
    fn too_much_output_ends_the_script() {
        let started = Instant::now();
        let got = Bench::new().call("t.py", "import sys\nwhile True: sys.stdout.write('x' * 65536)\n", "{}");
        check_failed(&got, &["t.py printed more than 8 MiB and was ended"]);
        assert!(started.elapsed() < Duration::from_secs(15));
        let all = Bench::new().call("t.py", "import sys\nsys.stdout.write('x' * (8 * 1024 * 1024 - 10))\n", "{}");
        assert!(!all.1, "what is below the bound is passed on");
    }

    #[test]
    fn a_large_object_is_not_given_twice() {
        let script = "import json\nprint(json.dumps({'a': '\"' * (4 * 1024 * 1024 - 100)}))\n";
        let got = Bench::new().call("t.py", script, "{}");
        assert!(!got.1);
        assert!(text(&got).contains("it is in structuredContent"), "{}", &text(&got)[..100]);
        assert_eq!(got.0["structuredContent"]["a"].as_str().map(str::len), Some(4 * 1024 * 1024 - 100));
    }

    #[test]
    fn the_deadline_ends_the_whole_group() {
        let bench = Bench::new();
        let mark = bench.folder.path().join("alive");
        let script = format!("(sleep 2; touch '{}') & sleep 60", mark.display());
        let tool = bench.tool("t.sh", &script, "");
        let started = Instant::now();
        let got = bench.run(&tool, "{}", Duration::from_millis(300));
        check_failed(&got, &["t.sh did not end within 0.3 s and was ended"]);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        thread::sleep(Duration::from_millis(2200));
        assert!(!mark.exists(), "what the script had started went on");
    }

    #[test]
    fn a_script_that_ignores_sigterm_is_killed() {
        let bench = Bench::new();
        let tool = bench.tool("t.sh", "trap '' TERM; while :; do sleep 0.05; done", "");
        let started = Instant::now();
        check_failed(&bench.run(&tool, "{}", Duration::from_millis(200)), &["did not end within"]);
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }

    #[test]
    fn a_script_that_stops_itself_is_killed_too() {
        let bench = Bench::new();
        let tool = bench.tool("t.sh", "kill -STOP $$", "");
        check_failed(&bench.run(&tool, "{}", Duration::from_millis(200)), &["did not end within"]);
    }

    #[test]
    fn what_holds_the_output_after_the_end_is_not_waited_for() {
        let bench = Bench::new();
        let started = Instant::now();
        let got = bench.call("t.sh", "sleep 30 & echo '{\"a\":1}'", "{}");
        assert_eq!(got.0["structuredContent"]["a"], 1);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn input_that_nobody_reads_does_not_hang() {
        let bench = Bench::new();
        let large = format!(r#"{{"text":"{}"}}"#, "y".repeat(2_000_000));
        assert!(!bench.call("t.sh", "exec 0<&-; sleep 0.2; echo ok", &large).1);
        assert!(!bench.call("t.sh", "echo ok", &large).1);
    }

    #[test]
    fn cancelling_and_a_peer_that_goes_end_the_script() {
        let bench = Bench::new();
        let tool = bench.tool("t.sh", "sleep 60", "");
        let (cancel, deadline) = (Cancel::new(), Deadline::after(Duration::from_secs(30)));
        let started = Instant::now();
        let outcome = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(150));
                cancel.cancel();
            });
            let watch = Watch { deadline, cancel: &cancel, watched: None, dialog: &mut || {} };
            run(&tool, "{}", &bench.interpreters, watch)
        });
        check_failed(&read(outcome), &["t.sh was ended: the call was cancelled"]);
        let watch = Watch { deadline, cancel: &cancel, watched: None, dialog: &mut || {} };
        check_failed(&read(run(&tool, "{}", &bench.interpreters, watch)), &["the call was cancelled"]);

        let (ours, theirs) = UnixStream::pair().expect("sockets can be made");
        let outcome = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(150));
                drop(theirs);
            });
            let cancel = Cancel::new();
            let watch = Watch { deadline, cancel: &cancel, watched: Some(ours.as_fd()), dialog: &mut || {} };
            run(&tool, "{}", &bench.interpreters, watch)
        });
        check_failed(&read(outcome), &["who asked for the call has gone"]);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn every_script_finds_its_interpreter_or_says_what_is_missing() {
        let mut bench = Bench::new();
        assert!(!bench.call("t.js", "console.log(JSON.stringify({a: 1}))", "{}").1);
        assert!(!bench.call("t.pl", "print '{\"a\":1}'", "{}").1);
        bench.folder.write_executable("scripts/direct", "");
        assert!(!bench.call("direct", "#!/bin/sh\necho '{}'\n", "{}").1);
        bench.folder.write_executable("scripts/lost", "");
        check_failed(&bench.call("lost", "#!/no/such/program\n", "{}"), &["lost could not be run", "`#!` line"]);
        check_failed(&bench.call("t.xyz", "echo 1", "{}"), &["no interpreter is known for", "chmod +x"]);

        bench.interpreters.path = Vec::new();
        check_failed(&bench.call("t.py", "", "{}"), &["python3 or python was not found", "DCC_MCP_PYTHON_EXECUTABLE"]);
        check_failed(&bench.call("t.rb", "", "{}"), &["ruby was not found: install Ruby"]);
        bench.interpreters.python = Some("/no/such/python".into());
        check_failed(&bench.call("t.py", "", "{}"), &["/no/such/python was not found", "DCC_MCP_PYTHON_EXECUTABLE"]);
    }

    #[test]
    fn skills_of_an_application_want_its_python() {
        let mut bench = Bench { dcc: "maya", ..Bench::new() };
        bench.interpreters.allow_ambient_python = false;
        let needs = ["needs the Python of maya", "DCC_MCP_PYTHON_EXECUTABLE", "DCC_MCP_ALLOW_AMBIENT_PYTHON=1"];
        check_failed(&bench.call("t.py", "print('{}')", "{}"), &needs);
        assert!(!bench.call("t.sh", "echo '{}'", "{}").1, "only Python scripts need it");
        bench.interpreters.allow_ambient_python = true;
        assert!(!bench.call("t.py", "print('{}')", "{}").1);
        bench.interpreters.allow_ambient_python = false;
        bench.interpreters.python = Some("python3".into());
        assert!(!bench.call("t.py", "print('{}')", "{}").1);
    }

    #[test]
    fn bad_arguments_do_not_start_the_script() {
        let bench = Bench::new();
        let schema = "  input_schema: {type: object, required: [n], properties: {n: {type: integer}}}";
        let tool = bench.tool("t.sh", "echo started", schema);
        for (arguments, part) in [
            ("{}", r#"bench__t: the argument "n" (integer) is missing"#),
            (r#"{"n":"x"}"#, r#"bench__t: the argument "n" must be integer, not string"#),
            ("[]", "must be a JSON object"),
            ("{", "must be a JSON object"),
        ] {
            check_failed(&bench.run(&tool, arguments, Duration::from_secs(5)), &[part]);
        }
    }

    #[test]
    fn a_script_that_was_moved_away_or_out_is_not_run() {
        let bench = Bench::new();
        let tool = bench.tool("t.sh", "echo ok", "");
        let script = bench.folder.path().join("scripts/t.sh");
        std::fs::remove_file(&script).expect("it can be removed");
        check_failed(&bench.run(&tool, "{}", Duration::from_secs(5)), &["there is no file \"scripts/t.sh\""]);
        std::os::unix::fs::symlink("/bin/ls", &script).expect("a link can be made");
        check_failed(&bench.run(&tool, "{}", Duration::from_secs(5)), &["leads out of the skill folder"]);
    }

    #[test]
    fn scripts_inherit_no_descriptors_and_know_their_folder() {
        let bench = Bench::new();
        let script = "import json, os\nprint(json.dumps({'fds': sorted(map(int, os.listdir('/proc/self/fd'))), 'dir': os.environ['DCC_MCP_SKILL_DIR']}))";
        let got = bench.call("t.py", script, "{}");
        assert_eq!(got.0["structuredContent"]["dir"], bench.folder.path().display().to_string());
        // Whoever started this test may have left descriptors open to all that it starts: those are not ours.
        let listing = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))";
        let plain = Command::new("python3").args(["-c", listing]).output().expect("python3 runs");
        let plain = String::from_utf8_lossy(&plain.stdout).replace(' ', "");
        assert_eq!(got.0["structuredContent"]["fds"].to_string(), plain.trim());
    }
}
