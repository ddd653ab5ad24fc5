//! Tests: the man page and the completions of bash, zsh and fish in `packaging/` are what the table of flags says.
//!
//! `UPDATE=1 cargo test --lib papers` writes them anew. They are kept in the repository so that a build of the program
//! alone has all that is installed, and no second program has to be built to write them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::flags::{self, Default, Flag, Form, GROUPS, Verb};
use super::help::{HEAD, TAIL};

const NAME: &str = "dcc-mcp-server";

/// Where a paper is kept, and how it is written.
type Paper = (&'static str, fn() -> String);

const PAPERS: [Paper; 4] = [
    ("packaging/man/dcc-mcp-server.1", man),
    ("packaging/completions/dcc-mcp-server.bash", bash),
    ("packaging/completions/_dcc-mcp-server", zsh),
    ("packaging/completions/dcc-mcp-server.fish", fish),
];

#[test]
fn man_page_and_completions_are_those_of_the_table() {
    for (name, write) in PAPERS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
            fs::write(&path, write()).expect("a paper can be written");
        }
        let there = fs::read_to_string(&path).expect("a paper is there");
        assert!(there == write(), "{name} differs from the table; UPDATE=1 cargo test --lib papers writes it anew");
    }
}

#[test]
fn every_flag_is_in_every_paper() {
    for (name, write) in PAPERS {
        let text = write().replace("\\-", "-");
        for flag in flags::all() {
            for word in [Some(flag.name), flag.alias].into_iter().flatten() {
                let word = if name.ends_with(".fish") { word.trim_start_matches('-') } else { word };
                assert!(text.contains(word), "{word} is not in {name}");
            }
        }
    }
}

/// What a value is, as far as a shell can help with it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    None,
    Words(&'static str),
    Folder,
    File,
    Text,
}

fn kind(flag: &Flag) -> Kind {
    match (flag.value, flag.form) {
        (_, Form::Switch) => Kind::None,
        ("LEVEL", _) => Kind::Words("error warn info debug trace"),
        ("full|meta", _) => Kind::Words("full meta"),
        ("FOLDER" | "FOLDERS", _) => Kind::Folder,
        ("FILE", _) => Kind::File,
        _ => Kind::Text,
    }
}

/// Of the last change of what the man page says beyond the table; a date of the build would make no two builds equal.
const DATE: &str = "2026-11-24";

const VERBS: [(Verb, &str, &str); 3] = [
    (Verb::Serve, "", ""),
    (Verb::Healthcheck, "healthcheck", "exit with 0 if the server answers, else 1"),
    (Verb::Status, "status", "list the live instances"),
];

fn names(flag: &Flag) -> impl Iterator<Item = &'static str> {
    [Some(flag.name), flag.alias].into_iter().flatten()
}

// ---- man ----------------------------------------------------------------------------------------------------------

/// man(7). Sections as man-pages(7) orders them.
fn man() -> String {
    let (about, usage) = HEAD.split_once("\nUsage:\n").expect("the help says how it is used");
    let (usage, values) = usage.split_once("\n\n").expect("a paragraph on values follows");
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(
        ".\\\" Made from src/config/flags.rs: UPDATE=1 cargo test --lib papers\n.TH DCC\\-MCP\\-SERVER 1 {DATE} \"{NAME} {version}\" \
         \"User Commands\"\n.SH NAME\ndcc\\-mcp\\-server \\- one MCP endpoint over every live DCC instance\n.SH SYNOPSIS\n"
    );
    let command = |line: &str| format!(".B {}\n", troff(line.trim().split("  ").next().unwrap_or_default()));
    out.push_str(&usage.lines().map(command).collect::<Vec<_>>().join(".br\n"));
    let _ = writeln!(out, ".SH DESCRIPTION\n{}\n.PP\n{}", troff(about.trim()), troff(values.trim()));
    out.push_str(".SH OPTIONS\n");
    for group in GROUPS {
        let _ = writeln!(out, ".SS {}", troff(group.title));
        group.flags.iter().for_each(|flag| man_flag(&mut out, flag));
    }
    let mut title = "";
    for line in TAIL.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("  ") {
            None => {
                title = line.trim_end_matches(':');
                let _ = writeln!(out, ".SH {}", title.to_uppercase());
            }
            Some(item) if title == "Examples" => {
                let _ = writeln!(out, ".nf\n{}\n.fi", troff(item));
            }
            Some(item) => {
                let (term, text) = item.split_once("  ").expect("a term and its text");
                let _ = writeln!(out, ".TP\n.B {}\n{}", troff(term), troff(text.trim()));
            }
        }
    }
    out.push_str(
        ".SH ENVIRONMENT\nEvery variable named above. Variables without a flag are in docs/configuration.md.\n",
    );
    out
}

fn man_flag(out: &mut String, flag: &Flag) {
    let spelt: Vec<String> = names(flag).map(|name| format!("\\fB{}\\fR", troff(name))).collect();
    let value = if flag.value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", troff(flag.value)) };
    let _ = writeln!(out, ".TP\n{}{value}\n{}", spelt.join(", "), troff(flag.help));
    let default = match flag.default {
        Default::None => None,
        Default::Value(text) | Default::Words(text) => Some(format!("default: {text}")),
    };
    let facts: Vec<String> = flag.variable.map(str::to_owned).into_iter().chain(default).collect();
    if !facts.is_empty() {
        let _ = writeln!(out, ".br\n[{}]", troff(&facts.join(", ")));
    }
}

/// Text for troff: its control characters at the start of a line, hyphens that are meant to be copied.
fn troff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('~', "\\(ti");
    let guard = |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    escaped.lines().map(|line| guard(line.trim())).collect::<Vec<_>>().join("\n")
}

// ---- shells -------------------------------------------------------------------------------------------------------

fn bash() -> String {
    let mut out = format!("# Made from src/config/flags.rs: UPDATE=1 cargo test --lib papers\n_{}() {{\n", ident());
    out.push_str(
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} flags\n\
         \x20   # bash takes = for a word of its own.\n\
         \x20   if [ \"$word\" = = ]; then word=; elif [ \"$before\" = = ]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi\n\
         \x20   case $before in\n",
    );
    for flag in flags::all() {
        let pattern = names(flag).collect::<Vec<_>>().join("|");
        let action = match kind(flag) {
            Kind::None => continue,
            Kind::Words(words) => format!("COMPREPLY=($(compgen -W \"{words}\" -- \"$word\"))"),
            Kind::Folder => "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\"))".to_owned(),
            Kind::File => "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\"))".to_owned(),
            Kind::Text => "COMPREPLY=()".to_owned(),
        };
        let _ = writeln!(out, "        {pattern}) {action}; return ;;");
    }
    out.push_str("    esac\n    case $verb in\n");
    for (verb, word, _) in VERBS.iter().rev() {
        let pattern = if word.is_empty() { "*" } else { word };
        let _ = writeln!(out, "        {pattern}) flags=\"{}\" ;;", flags_of(*verb).join(" "));
    }
    out.push_str(
        "    esac\n    [ \"$COMP_CWORD\" -eq 1 ] && flags=\"healthcheck status $flags\"\n    \
         COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))\n}\n",
    );
    let _ = writeln!(out, "complete -F _{} {NAME}", ident());
    out
}

fn flags_of(verb: Verb) -> Vec<&'static str> {
    flags::all().filter(|flag| flag.verbs.contains(&verb)).flat_map(names).collect()
}

fn ident() -> String {
    NAME.replace('-', "_")
}

fn zsh() -> String {
    let mut out = format!("#compdef {NAME}\n# Made from src/config/flags.rs: UPDATE=1 cargo test --lib papers\n");
    out.push_str("local -a flags\ncase ${words[2]} in\n");
    for (verb, word, _) in VERBS.iter().rev() {
        let pattern = if word.is_empty() { "*" } else { word };
        let _ = writeln!(out, "{pattern})\n    flags=(");
        for flag in flags::all().filter(|flag| flag.verbs.contains(verb)) {
            for name in names(flag) {
                let _ = writeln!(out, "        {}", zsh_flag(flag, name));
            }
        }
        match verb {
            Verb::Serve => out.push_str(
                "        '1::command:((healthcheck\\:\"ask for health\" status\\:\"list the live instances\"))'\n",
            ),
            Verb::Healthcheck => out.push_str("        '1:command:' '2::URL:_urls'\n"),
            Verb::Status => out.push_str("        '1:command:'\n"),
        }
        out.push_str("    )\n    ;;\n");
    }
    out.push_str("esac\n_arguments -s -S $flags\n");
    out
}

/// An argument of `_arguments`; brackets, colons and quotes of the text are its own signs.
fn zsh_flag(flag: &Flag, name: &str) -> String {
    let text = flag.help.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let again = if flag.form == Form::Repeatable { "*" } else { "" };
    // `--flag=value` and `--flag value`; a switch of one letter takes nothing.
    let (joint, value) = match kind(flag) {
        Kind::None => ("", String::new()),
        Kind::Words(words) => ("=", format!(":{}:({words})", flag.value.replace('|', " or "))),
        Kind::Folder => ("=", format!(":{}:_files -/", flag.value)),
        Kind::File => ("=", format!(":{}:_files", flag.value)),
        Kind::Text => ("=", format!(":{}: ", flag.value)),
    };
    format!("'{again}{name}{joint}[{text}]{value}'")
}

fn fish() -> String {
    let mut out = format!("# Made from src/config/flags.rs: UPDATE=1 cargo test --lib papers\ncomplete -c {NAME} -f\n");
    for (_, word, about) in VERBS.iter().filter(|(_, word, _)| !word.is_empty()) {
        let _ = writeln!(out, "complete -c {NAME} -n __fish_use_subcommand -a {word} -d '{about}'");
    }
    for flag in flags::all() {
        let others: Vec<&str> =
            VERBS.iter().filter(|(verb, ..)| !flag.verbs.contains(verb)).map(|(_, word, _)| *word).collect();
        let when = match (flag.verbs.contains(&Verb::Serve), others.is_empty()) {
            (_, true) => String::new(),
            (true, false) => format!(" -n 'not __fish_seen_subcommand_from {}'", others.join(" ")),
            (false, false) => format!(" -n '__fish_seen_subcommand_from {}'", words_of(flag).join(" ")),
        };
        for name in names(flag) {
            let spelt = match name.strip_prefix("--") {
                Some(long) => format!("-l {long}"),
                None => format!("-s {}", name.trim_start_matches('-')),
            };
            let value = match kind(flag) {
                Kind::None => String::new(),
                Kind::Words(words) => format!(" -x -a '{words}'"),
                Kind::Folder => " -x -a '(__fish_complete_directories)'".to_owned(),
                Kind::File => " -r -F".to_owned(),
                Kind::Text => " -x".to_owned(),
            };
            let text = flag.help.replace('\\', "\\\\").replace('\'', "\\'");
            let _ = writeln!(out, "complete -c {NAME}{when} {spelt}{value} -d '{text}'");
        }
    }
    out
}

fn words_of(flag: &Flag) -> Vec<&'static str> {
    VERBS.iter().filter(|(verb, ..)| flag.verbs.contains(verb)).map(|(_, word, _)| *word).collect()
}
