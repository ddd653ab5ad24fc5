//! The skills of the instances: one that works, which is always loaded, and two that come and go.

use std::path::Path;

use crate::asks::ASK;
use crate::folder::write;
use crate::skill::script;

/// Skills that are loaded and unloaded, and the kinds of lists that this changes.
pub const EXTRAS: [(&str, &[usize]); 2] = [("extra", &[0]), ("notes", &[1, 2])];

const WORK_SKILL: &str = r"---
name: work
description: Works, and asks
tools:
  - {name: run, source_file: scripts/run.sh, task_support: optional}
  - {name: ask, source_file: scripts/ask.sh, task_support: optional, dialog: true}
  - {name: first, source_file: scripts/ask.sh, task_support: optional, dialog: true, ask_first: true}
---
";

/// Tells and answers what it was given.
const WORK: &str = r#"#!/bin/sh
while [ $# -gt 1 ]; do
  case $1 in --token) token=$2 ;; --steps) steps=$2 ;; --pause) pause=$2 ;; esac
  shift 2
done
printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"%s"}}\n' "$token"
step=0
while [ $step -lt "$steps" ]; do
  step=$((step + 1))
  printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":%d,"message":"%s"}}\n' $step "$token"
  sleep "$pause"
done
printf '{"token":"%s"}\n' "$token"
"#;

const NOTES: &str = r#"---
name: notes
description: Not loaded at first
tools: []
prompts:
  - {name: ask, description: Asks, template: "Well?"}
resources:
  - {uri: "notes://one", name: one, mime_type: text/plain, text: "One."}
---
"#;

/// Writes the skills of all instances.
pub fn write_skills(skills: &Path) {
    let tool = |name: &str, tool: &str| {
        format!(
            "---\nname: {name}\ndescription: The skill {name}\ntools:\n  - {{name: {tool}, source_file: scripts/{tool}.sh}}\n---\n"
        )
    };
    write(&skills.join("work/SKILL.md"), WORK_SKILL);
    script(&skills.join("work/scripts/run.sh"), WORK);
    script(&skills.join("work/scripts/ask.sh"), ASK);
    write(&skills.join("extra/SKILL.md"), tool("extra", "more"));
    script(&skills.join("extra/scripts/more.sh"), "#!/bin/sh\ncat\n");
    write(&skills.join("notes/SKILL.md"), NOTES);
}
