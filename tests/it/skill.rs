//! Skill folders written on the fly, with shell scripts that do one thing each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::folder::write;

/// Gives its arguments back as the structured result.
pub const ECHO: &str = "#!/bin/sh\ncat\n";
/// Answers once the file that `--release` names exists. It is called with that one argument.
pub const HOLD: &str = "#!/bin/sh\nn=0\nwhile [ ! -e \"$2\" ] && [ $n -lt 600 ]; do sleep 0.05; n=$((n+1)); done\necho '{\"released\":true}'\n";
/// Writes its process id into the file that `--note` names, then sleeps for a minute.
pub const SLEEP: &str = "#!/bin/sh\necho $$ > \"$2\"\nexec sleep 60\n";

const PROBE: &str = r"---
name: probe-tools
description: Small tools that a test can watch
version: 1.2.3
dcc: python
tags: [probe, test]
search-hint: mirror, parrot
tools:
  - name: echo
    description: Gives its arguments back
    input_schema:
      type: object
      properties:
        text: {type: string}
        count: {type: integer}
      required: [text]
    read_only: true
    idempotent: true
    source_file: scripts/echo.sh
  - name: hold
    description: Waits for a file
    input_schema:
      type: object
      properties:
        release: {type: string}
      required: [release]
    task_support: optional
    source_file: scripts/hold.sh
  - name: sleep
    description: Notes its process id and sleeps
    input_schema:
      type: object
      properties:
        note: {type: string}
      required: [note]
    source_file: scripts/sleep.sh
---
# Probe tools

Tools of the tests.
";

/// The skill `probe-tools` with the tools `echo`, `hold` and `sleep`.
pub fn probe(skills: &Path) {
    let folder = skills.join("probe-tools");
    write(&folder.join("SKILL.md"), PROBE);
    script(&folder.join("scripts/echo.sh"), ECHO);
    script(&folder.join("scripts/hold.sh"), HOLD);
    script(&folder.join("scripts/sleep.sh"), SLEEP);
}

const DESK: &str = r"---
name: desk
description: Asks
dcc: python
tools:
  - {name: ask, description: Asks for a name and for the folders of the client., source_file: scripts/ask.sh, dialog: true}
  - {name: visit, description: Sends the user to a page., source_file: scripts/visit.sh, dialog: true}
prompts:
  - {name: brief, source_file: scripts/brief.sh, dialog: true}
---
";

const ASK: &str = r#"#!/bin/sh
read -r _
name='{"jsonrpc":"2.0","id":"name","method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string"}}}}}'
roots='{"jsonrpc":"2.0","id":"where","method":"roots/list"}'
echo "[$name,$roots]"
read -r one
read -r other
printf '%s\n' "$one" "$other" | grep -q '"error"' && exit 1
echo "thank you"
"#;

const VISIT: &str = r#"#!/bin/sh
read -r _
echo '{"jsonrpc":"2.0","id":"login","method":"elicitation/create","params":{"mode":"url","elicitationId":"l1","url":"https://example.com/login","message":"Log in, please."}}'
read -r answer
case $answer in *accept*) echo "welcome" ;; *) exit 1 ;; esac
"#;

const BRIEF: &str = r#"#!/bin/sh
read -r _
echo '{"jsonrpc":"2.0","id":"subject","method":"sampling/createMessage","params":{"messages":[],"maxTokens":9}}'
read -r answer
case $answer in *'"text":"'*) echo "About what was said." ;; *) exit 1 ;; esac
"#;

/// The skill `desk`, whose tools `ask` and `visit` and whose prompt `brief` ask.
pub fn desk(skills: &Path) {
    let folder = skills.join("desk");
    write(&folder.join("SKILL.md"), DESK);
    script(&folder.join("scripts/ask.sh"), ASK);
    script(&folder.join("scripts/visit.sh"), VISIT);
    script(&folder.join("scripts/brief.sh"), BRIEF);
    write(&folder.join("resources/note.txt"), "A note.\n");
}

/// A skill of form C, in which each script is a tool: `(file name, text)`.
pub fn plain(skills: &Path, name: &str, scripts: &[(&str, &str)]) -> PathBuf {
    let folder = skills.join(name);
    write(&folder.join("SKILL.md"), format!("---\nname: {name}\ndescription: The skill {name}\n---\n# {name}\n"));
    for (file, text) in scripts {
        script(&folder.join("scripts").join(file), text);
    }
    folder
}

/// An executable script.
pub fn script(path: &Path, text: &str) {
    write(path, text);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the script's mode");
}
