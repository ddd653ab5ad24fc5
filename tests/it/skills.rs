//! Skill folders end to end: found, shown, loaded, run, changed, broken.

use std::fs;

use serde_json::{Value, json};

use crate::client::{R06, Session, text_of};
use crate::folder::write;
use crate::life::is_alive;
use crate::program::{PROGRAM, Program, Start, World};
use crate::skill::{ECHO, plain, probe, script};
use crate::wait::{PATIENCE, until, until_some};

const FORM_B: &str = "---
name: form-b
description: Tools beside the manifest
license: MIT
compatibility: any
allowed-tools: Bash
metadata:
  dcc-mcp:
    dcc: python
    version: 2.0.0
    tags: one, two
    search-hint: sibling
    tools: tools.yaml
---
# Form B
";

const FORM_B_TOOLS: &str = r#"tools:
  - name: measure
    description: Measures
    inputSchema: '{"type": "object", "properties": {"text": {"type": "string"}}}'
    output_schema:
      type: object
      properties:
        length: {type: integer}
      required: [length]
    annotations:
      title: Measure a text
      read_only_hint: true
      destructive_hint: false
    next-tools:
      on-success: [form_b__measure]
    call_examples:
      - {text: abc}
    a-key-nobody-knows: 1
    source_file: scripts/measure.py
"#;

const MEASURE: &str = "import json, sys\nprint(json.dumps({'length': len(json.load(sys.stdin)['text'])}))\n";

#[test]
fn the_three_forms_are_found_loaded_and_run() {
    let world = World::new();
    let skills = world.skills();
    probe(&skills);
    write(&skills.join("form-b/SKILL.md"), FORM_B);
    write(&skills.join("form-b/tools.yaml"), FORM_B_TOOLS);
    write(&skills.join("form-b/scripts/measure.py"), MEASURE);
    plain(&skills, "form-c", &[("say-hello.sh", "#!/bin/sh\necho hello"), ("nothing.sh", "#!/bin/sh\ncat >/dev/null")]);
    let instance = start(&world, &["--load-skills", "probe-tools,form-b,form-c"]);
    let mut session = Session::open(instance.address, R06);
    let names = session.tool_names();
    for name in ["probe_tools__echo", "form_b__measure", "form_c__nothing"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    assert_eq!(session.structured("form_b__measure", json!({"text": "\u{4e16}\u{754c}!"})), json!({"length": 3}));
    let hello = names.iter().find(|name| name.starts_with("form_c__say")).expect("one tool for each script");
    let said = session.call(hello, json!({}));
    assert_eq!(said["structuredContent"], json!({"success": true, "message": "hello"}), "{said}");
    let nothing = session.structured("form_c__nothing", json!({}));
    assert_eq!(nothing, json!({"success": true, "message": ""}));

    let tools = session.tools();
    let measure = tools.iter().find(|tool| tool["name"] == "form_b__measure").expect("it is listed");
    assert_eq!(measure["inputSchema"]["properties"]["text"]["type"], "string", "a schema given as JSON text");
    assert_eq!(measure["outputSchema"]["required"], json!(["length"]));
    assert_eq!(measure["annotations"]["readOnlyHint"], json!(true));
    assert_eq!(measure["annotations"]["destructiveHint"], json!(false));
    let titles = [&measure["title"], &measure["annotations"]["title"]];
    assert!(titles.contains(&&json!("Measure a text")), "{measure}");
}

#[test]
fn a_skill_that_is_not_loaded_shows_no_tool() {
    let world = World::new();
    probe(&world.skills());
    let instance = start(&world, &[]);
    let mut session = Session::open(instance.address, R06);
    assert!(!session.tool_names().iter().any(|name| name.contains("echo")));
    let listed = session.structured("list_skills", json!({"status": "unloaded"}));
    assert!(listed.to_string().contains("probe-tools"), "{listed}");
    let loaded = session.structured("load_skill", json!({"skill_name": "probe-tools"}));
    assert_eq!(loaded["registered_tools"].as_array().map(Vec::len), Some(3), "{loaded}");
    assert_eq!(loaded["newly_loaded"], json!(["probe-tools"]), "{loaded}");
    let again = session.structured("load_skill", json!({"skill_name": "probe-tools"}));
    assert_eq!(again["already_loaded"], json!(["probe-tools"]), "{again}");
    let listed = session.structured("list_skills", json!({"status": "loaded"}));
    assert!(listed.to_string().contains("probe-tools"), "{listed}");
    session.structured("unload_skill", json!({"skill_name": "probe-tools"}));
    let call = session.request("tools/call", json!({"name": "probe_tools__echo", "arguments": {"text": "x"}}));
    assert_eq!(call["error"]["code"], json!(-32602), "{call}");
}

#[test]
fn skills_come_from_flags_and_from_both_variables() {
    let world = World::new();
    for name in ["from-flag", "from-variable", "from-maya"] {
        plain(&world.path().join(name), name, &[("run.sh", ECHO)]);
    }
    let folder = |name: &str| world.path().join(name).display().to_string();
    let both = format!("/no/such/folder:{}", folder("from-variable"));
    let start = Start::new()
        .args(["--dcc", "maya", "--skill-paths", &folder("from-flag"), "--load-skills", "all"])
        .env("DCC_MCP_SKILL_PATHS", &both)
        .env("DCC_MCP_MAYA_SKILL_PATHS", &folder("from-maya"))
        .env("DCC_MCP_BLENDER_SKILL_PATHS", &folder("from-flag"));
    let instance = world.start(start);
    let names = Session::open(instance.address, R06).tool_names();
    for name in ["from_flag__run", "from_variable__run", "from_maya__run"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
}

#[test]
fn a_broken_skill_is_named_once_with_its_line_and_others_load() {
    let world = World::new();
    probe(&world.skills());
    let broken = world.skills().join("broken/SKILL.md");
    write(&broken, "---\nname: broken\ndescription: fine\ntools: [unclosed\n---\n");
    write(&world.skills().join("no-front-matter/SKILL.md"), "# Only Markdown\n");
    write(&world.skills().join("binary/SKILL.md"), [0xff, 0xfe, 0x00, 0x80]);
    let instance = start(&world, &["--load-skills", "probe-tools"]);
    let mut session = Session::open(instance.address, R06);
    assert!(session.tool_names().contains(&"probe_tools__echo".to_owned()));
    let named = |log: &str, folder: &str| -> Vec<String> {
        let folder = format!("/{folder}");
        log.lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect()
    };
    plain(&world.skills(), "later", &[("run.sh", ECHO)]);
    until(PATIENCE, "the folders were looked at once more", || {
        session.structured("list_skills", json!({})).to_string().contains("later")
    });
    let log = instance.stderr();
    for folder in ["broken", "no-front-matter", "binary"] {
        let lines = named(&log, folder);
        assert_eq!(lines.len(), 1, "{folder} is named once:\n{log}");
        assert!(lines[0].contains("WARN"), "{}", lines[0]);
    }
    let line = &named(&log, "broken")[0];
    assert!(
        line.contains("SKILL.md:4") || line.contains("SKILL.md:5") || line.contains("line"),
        "with its line: {line}"
    );
    let listed = session.structured("list_skills", json!({"status": "error"}));
    assert!(listed.to_string().contains("broken"), "{listed}");
}

#[test]
fn changed_folders_are_noticed_while_running() {
    let world = World::new();
    let folder = plain(&world.skills(), "moving", &[("one.sh", ECHO)]);
    let instance = start(&world, &["--load-skills", "all"]);
    let mut session = Session::open(instance.address, R06);
    let mut stream = session.stream(None);
    assert!(session.tool_names().contains(&"moving__one".to_owned()));

    script(&folder.join("scripts/two.sh"), ECHO);
    stream.wait_list_changed(PATIENCE);
    until(PATIENCE, "the new script is a tool", || session.tool_names().contains(&"moving__two".to_owned()));
    assert_eq!(session.structured("moving__two", json!({"a": 1})), json!({"a": 1}));

    fs::remove_dir_all(&folder).expect("the skill is removed");
    until(PATIENCE, "its tools are gone", || !session.tool_names().iter().any(|name| name.starts_with("moving__")));
    probe(&world.skills());
    until(PATIENCE, "a new skill is found", || {
        session.structured("list_skills", json!({})).to_string().contains("probe-tools")
    });
}

#[test]
fn what_goes_wrong_in_a_script_is_an_answer() {
    let world = World::new();
    let scripts = [
        ("fails.sh", "#!/bin/sh\necho partial\necho 'the reason' >&2\nexit 3"),
        ("killed.sh", "#!/bin/sh\nkill -9 $$"),
        ("refuses.sh", "#!/bin/sh\necho '{\"success\": false, \"error\": \"not today\"}'"),
        ("floods.sh", "#!/bin/sh\nhead -c 9000000 /dev/zero | tr '\\0' 'x'\nsleep 30"),
        ("lists.sh", "#!/bin/sh\necho '[1, 2]'"),
        ("halves.sh", "#!/bin/sh\necho '{\"a\": '"),
        ("shouts.sh", "#!/bin/sh\nprintf 'na\\303\\257ve \\377 bytes'"),
    ];
    plain(&world.skills(), "bad-luck", &scripts);
    plain(&world.skills(), "odd-one", &[("run.xyz", "no interpreter knows this")]);
    fs::set_permissions(
        world.skills().join("odd-one/scripts/run.xyz"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .expect("not executable");
    let instance = start(&world, &["--load-skills", "all"]);
    let mut session = Session::open(instance.address, R06);

    let failed = call_failed(&mut session, "bad_luck__fails");
    assert!(failed.contains("the reason") && failed.contains('3'), "exit code and tail of standard error: {failed}");
    let killed = call_failed(&mut session, "bad_luck__killed");
    assert!(killed.contains("signal") || killed.contains("kill"), "{killed}");
    assert!(call_failed(&mut session, "bad_luck__refuses").contains("not today"));
    let flood = call_failed(&mut session, "bad_luck__floods");
    assert!(flood.contains("8 MiB"), "{flood}");
    for (tool, message) in [("lists", "[1, 2]"), ("halves", "{\"a\":")] {
        let result = session.call(&format!("bad_luck__{tool}"), json!({}));
        assert!(text_of(&result).replace("\\\"", "\"").contains(message), "{tool}: {result}");
    }
    assert!(call_failed(&mut session, "bad_luck__shouts").contains("UTF-8"));
    if session.tool_names().contains(&"odd_one__run".to_owned()) {
        call_failed(&mut session, "odd_one__run");
    }
    assert_eq!(session.result("ping", json!({})), json!({}), "the server goes on");
}

#[test]
fn a_script_that_runs_too_long_is_ended_with_its_children() {
    let world = World::new();
    let note = world.path().join("grandchild");
    let text = format!("#!/bin/sh\nsleep 60 &\necho $! > {}\nwait", note.display());
    plain(&world.skills(), "slow", &[("wait.sh", text.as_str())]);
    let instance = start(&world, &["--load-skills", "all", "--call-timeout", "1"]);
    let mut session = Session::open(instance.address, R06);
    let text = call_failed(&mut session, "slow__wait");
    assert!(text.contains("1 s") || text.contains("time"), "{text}");
    let grandchild = until_some(PATIENCE, "the grandchild is noted", || crate::life::noted_pid(&note));
    until(PATIENCE, "the grandchild is ended too", || !is_alive(grandchild));
}

#[test]
fn arguments_arrive_as_json_and_as_words() {
    let world = World::new();
    let text = "import json, sys\nprint(json.dumps({'stdin': json.load(sys.stdin), 'words': sys.argv[1:]}))\n";
    plain(&world.skills(), "arguments", &[("show.py", text)]);
    let instance = start(&world, &["--load-skills", "all"]);
    let mut session = Session::open(instance.address, R06);
    let hostile = "$(touch /tmp/x); `id` \"'\n--other";
    let arguments = json!({"some_text": hostile, "count": 3, "flag": true, "off": false, "list": [1], "none": null});
    let shown = session.structured("arguments__show", arguments.clone());
    assert_eq!(shown["stdin"], arguments);
    let words: Vec<&str> = shown["words"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
    for pair in [["--some-text", hostile], ["--count", "3"], ["--flag", "true"], ["--off", "false"]] {
        assert!(words.windows(2).any(|window| window == pair), "{pair:?} in {words:?}");
    }
    assert!(!words.contains(&"--list") && !words.contains(&"--none"), "{words:?}");
}

#[test]
fn scripts_run_side_by_side() {
    let world = World::new();
    probe(&world.skills());
    let instance = start(&world, &["--load-skills", "all"]);
    let release = world.path().join("release");
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (address, path) = (instance.address, release.display().to_string());
            std::thread::spawn(move || Session::open(address, R06).structured("hold", json!({"release": path})))
        })
        .collect();
    until(PATIENCE, "all eight scripts run", || crate::life::children(instance.pid()).len() == 8);
    let mut session = Session::open(instance.address, R06);
    assert_eq!(session.structured("echo", json!({"text": "meanwhile"})), json!({"text": "meanwhile"}));
    write(&release, "");
    for call in calls {
        assert_eq!(call.join().expect("answered"), json!({"released": true}));
    }
}

#[test]
fn a_script_of_an_application_wants_that_applications_python() {
    let world = World::new();
    let folder = plain(&world.skills(), "maya-only", &[("run.py", "print('{}')\n")]);
    write(&folder.join("SKILL.md"), "---\nname: maya-only\ndescription: d\ndcc: maya\n---\n");
    let skills = world.skills().display().to_string();
    let args = || Start::new().args(["--dcc", "maya", "--skill-paths", &skills, "--load-skills", "all"]);
    let strict = world.start(args());
    let told = call_failed(&mut Session::open(strict.address, R06), "maya_only__run");
    assert!(told.contains("DCC_MCP_PYTHON_EXECUTABLE"), "says what to do: {told}");
    let ambient = world.start(args().env("DCC_MCP_ALLOW_AMBIENT_PYTHON", "1"));
    let result = Session::open(ambient.address, R06).call("maya_only__run", json!({}));
    assert_ne!(result["isError"], json!(true), "{result}");
    let elsewhere = world.start(Start::new().args(["--dcc", "blender", "--skill-paths", &skills]));
    let listed = Session::open(elsewhere.address, R06).structured("list_skills", json!({}));
    assert!(!listed.to_string().contains("maya-only"), "not shown to another application: {listed}");
}

#[test]
fn groups_are_shown_when_they_are_activated() {
    let world = World::new();
    let manifest = "---\nname: grouped\ndescription: d\ndcc: python\ntools:\n  - {name: always, source_file: scripts/run.sh}\n  \
                    - {name: sometimes, source_file: scripts/run.sh, group: extra}\ngroups:\n  - name: extra\n    \
                    description: more\n    default-active: false\n    tools: [sometimes]\n---\n";
    write(&world.skills().join("grouped/SKILL.md"), manifest);
    script(&world.skills().join("grouped/scripts/run.sh"), ECHO);
    let instance = start(&world, &["--load-skills", "all"]);
    let mut session = Session::open(instance.address, R06);
    let listed = |session: &mut Session| session.tool_names().contains(&"grouped__sometimes".to_owned());
    assert!(session.tool_names().contains(&"grouped__always".to_owned()) && !listed(&mut session));
    session.structured("activate_tool_group", json!({"group": "extra"}));
    assert!(listed(&mut session));
    session.structured("deactivate_tool_group", json!({"group": "extra"}));
    assert!(!listed(&mut session));
}

/// That SIGCHLD is ignored is inherited; the kernel then reaps children itself, and every call failed.
#[test]
fn scripts_are_run_by_a_server_whose_parent_ignores_its_children() {
    let world = World::new();
    plain(&world.skills(), "count", &[("count.sh", "#!/bin/sh\nprintf '{\"n\":%d}' \"$(echo 1 | wc -l)\"\n")]);
    let skills = world.skills().display().to_string();
    let ignore =
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])";
    let start = Start::new().through(&["python3", "-c", ignore, PROGRAM]);
    let instance = world.start(start.args(["--skill-paths", &skills, "--load-skills", "all"]));
    let mut session = Session::open(instance.address, R06);
    for _ in 0..3 {
        assert_eq!(session.structured("count", json!({})), json!({"n": 1}));
    }
}

/// The policies of sched(7): 0 is the usual one, 3 SCHED_BATCH, 5 SCHED_IDLE. One that begins, or has just begun the script, is as usual.
#[cfg(not(feature = "tiny-http"))]
#[test]
fn connections_let_others_finish_and_scripts_do_not_inherit_that() {
    let world = World::new();
    let policies = "#!/bin/sh\nconnections=$(grep -h '(conn-' /proc/$PPID/task/*/stat | cut -d ' ' -f 41 | sort | tail -n 1)\n\
        printf '{\"script\":%s,\"connections\":%s}' \"$(cut -d ' ' -f 41 /proc/self/stat)\" \"$connections\"\n";
    plain(&world.skills(), "policies", &[("policies.sh", policies)]);
    let found = |start: Start| {
        let skills = world.skills().display().to_string();
        let instance = world.start(start.args(["--skill-paths", &skills, "--load-skills", "all"]));
        let _waits = Session::open(instance.address, R06);
        let found = Session::open(instance.address, R06).structured("policies", json!({}));
        (found["connections"].as_u64(), found["script"].as_u64())
    };
    assert_eq!(found(Start::new()), (Some(3), Some(0)));
    let idle = "import os, sys; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); os.execv(sys.argv[1], sys.argv[1:])";
    let idle = Start::new().through(&["python3", "-c", idle, PROGRAM]);
    assert_eq!(found(idle), (Some(5), Some(5)), "what the operator chose stays");
}

fn start(world: &World, args: &[&str]) -> Program {
    let skills = world.skills().display().to_string();
    world.start(Start::new().args(["--skill-paths", &skills]).args(args.iter().copied()))
}

/// Calls a tool that must fail and gives what it says.
#[track_caller]
fn call_failed(session: &mut Session, tool: &str) -> String {
    let result = session.call(tool, json!({}));
    assert_eq!(result["isError"], json!(true), "{tool}: {result}");
    text_of(&result)
}
