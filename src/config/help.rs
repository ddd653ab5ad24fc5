//! The text of `--help`, made from the table.
//!
//! **Invariant**: no line is wider than 80 columns; every flag, variable and default of the table is in it.
//! **Thread**: `main`.
//! **Bounds**: none needed.
//! Left out on purpose: colours and pagers.

use std::fmt::Write;

use super::flags::{Default, Flag, GROUPS};

const COLUMNS: usize = 80;

pub fn version() -> String {
    concat!("dcc-mcp-server ", env!("CARGO_PKG_VERSION")).to_owned()
}

pub fn help() -> String {
    let mut out = version();
    out.push_str(HEAD);
    for group in GROUPS {
        let _ = writeln!(out, "\n{}:", group.title);
        group.flags.iter().for_each(|flag| describe(&mut out, flag));
    }
    out.push_str(TAIL);
    out
}

pub const HEAD: &str = "
One MCP endpoint over every live DCC instance: start as many servers as you
like; they find each other through a shared folder, and one of them serves the
tools of all at http://127.0.0.1:9765/mcp.

Usage:
  dcc-mcp-server [FLAGS]              serve until SIGTERM or SIGINT
  dcc-mcp-server healthcheck [URL]    exit with 0 if the server answers, else 1
  dcc-mcp-server status [--json]      list the live instances

Values follow as --flag VALUE or --flag=VALUE. A flag wins over its variable, a
variable over the default. Times are in seconds, also with a fraction.
";

pub const TAIL: &str = "
Examples:
  dcc-mcp-server --dcc maya --skill-paths ~/skills --load-skills all
  dcc-mcp-server --host 0.0.0.0 --registry-dir /mnt/studio/dcc-mcp \\
      --auth-token-file /etc/dcc-mcp/token
  dcc-mcp-server --gateway-port 0 --mcp-port 18812 --dcc blender
  dcc-mcp-server healthcheck http://127.0.0.1:18812/health

Signals:
  SIGTERM, SIGINT   drain and stop; a second one stops at once
  SIGHUP            reopen the log, read tokens and skills again

Exit codes:
  0  stopped on request
  1  healthcheck or status: no healthy server
  2  wrong flag, variable or value
  3  cannot bind or register
  4  a listener was lost
  5  a thread died
";

fn describe(out: &mut String, flag: &Flag) {
    let value = if flag.value.is_empty() { String::new() } else { format!(" <{}>", flag.value) };
    let alias = flag.alias.map(|alias| format!(", {alias}")).unwrap_or_default();
    let _ = writeln!(out, "  {}{alias}{value}", flag.name);
    wrap(out, flag.help);
    let default = match flag.default {
        Default::None => None,
        Default::Value(text) | Default::Words(text) => Some(format!("default: {text}")),
    };
    let facts: Vec<String> = flag.variable.map(str::to_owned).into_iter().chain(default).collect();
    if !facts.is_empty() {
        wrap(out, &format!("[{}]", facts.join(", ")));
    }
}

fn wrap(out: &mut String, text: &str) {
    const INDENT: &str = "        ";
    let mut line = INDENT.to_owned();
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > COLUMNS {
            let _ = writeln!(out, "{line}");
            line.truncate(INDENT.len());
        } else if line.len() > INDENT.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;

    #[test]
    fn help_holds_the_whole_table_within_80_columns() {
        let text = help();
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS && !line.ends_with(' ') && !line.contains('\t'), "{line:?}");
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for flag in flags::all() {
            assert!(text.contains(&format!("\n  {}", flag.name)), "{}", flag.name);
            assert!(words.contains(flag.help), "{}", flag.name);
            let facts = [flag.alias, flag.variable];
            for fact in facts.into_iter().flatten() {
                assert!(words.contains(fact), "{fact}");
            }
            if let Default::Value(default) | Default::Words(default) = flag.default {
                assert!(words.contains(&format!("default: {default}]")), "{}", flag.name);
            }
        }
        assert!(!version().contains('\n'));
    }

    #[test]
    fn long_texts_are_wrapped() {
        let mut out = String::new();
        wrap(&mut out, &["word"; 30].join(" "));
        let widths: Vec<usize> = out.lines().map(str::len).collect();
        assert_eq!(widths, [77, 77, 17]);
    }
}
