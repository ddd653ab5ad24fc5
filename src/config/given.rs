//! The values of the flags as they came, from arguments and variables, before they are understood.
//!
//! **Invariant**: a flag that the table does not have, or that the verb does not take, is an error, and so is an argument
//! that nothing takes.
//! **Thread**: `main`; pure functions.
//! **Bounds**: what the system allows for arguments.
//! Left out on purpose: short flags and their bundles, abbreviations, and `--` to end the flags. There is nothing to use
//! them for.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::UsageError;
use super::flags::{self, Default, Flag, Form, Verb, flag};
use super::nearest::nearest;
use super::value::{self, Parsed};

/// The variables that are set and not empty, by their names.
pub type Environment = BTreeMap<String, OsString>;

/// The values of all flags, as they came.
pub struct Given {
    sources: Vec<(&'static Flag, Vec<Source>)>,
}

/// One value and where it came from: a flag, or a variable.
pub struct Source {
    pub name: &'static str,
    pub is_flag: bool,
    pub value: OsString,
}

impl Given {
    pub fn read(
        verb: Verb,
        env: &Environment,
        mut values_of: impl FnMut(&'static str) -> Result<Vec<OsString>, UsageError>,
    ) -> Result<Given, UsageError> {
        let mut sources = Vec::new();
        for flag in flags::all().filter(|flag| flag.verbs.contains(&verb)) {
            let mut found = take(&mut values_of, flag)?;
            let variable = flag.variable.and_then(|name| Some((name, env.get(name)?)));
            if let (true, Some((name, value))) = (found.is_empty(), variable) {
                found.push(Source { name, is_flag: false, value: value.clone() });
            }
            sources.push((flag, found));
        }
        Ok(Given { sources })
    }

    pub fn sources(&self, name: &str) -> &[Source] {
        self.sources.iter().find(|(flag, _)| flag.name == name).map_or(&[], |(_, sources)| sources)
    }

    /// The value that was given, else the default of the table, both checked alike.
    pub fn value<T>(&self, name: &'static str, parse: fn(&str) -> Parsed<T>) -> Result<T, UsageError> {
        let default = match flag(name).map(|flag| (flag.default, flag.form)) {
            Some((Default::Value(default), _)) => default,
            Some((_, Form::Switch)) => "false",
            _ => "",
        };
        match self.optional(name, parse)? {
            Some(value) => Ok(value),
            None => parse(default).map_err(|accepted| wrong(name, default, accepted)),
        }
    }

    pub fn optional<T>(&self, name: &str, parse: fn(&str) -> Parsed<T>) -> Result<Option<T>, UsageError> {
        self.sources(name).first().map(|source| source.parse(parse)).transpose()
    }

    /// The items of all comma-separated lists, each once.
    pub fn list(&self, name: &str, parse: fn(&str) -> Parsed<String>) -> Result<Vec<String>, UsageError> {
        let mut items = Vec::new();
        for source in self.sources(name) {
            for word in value::words(source.text()?) {
                items.push(parse(word).map_err(|accepted| wrong(source.name, word, accepted))?);
            }
        }
        Ok(once_each(items.into_iter()))
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.sources(name).first().map(|source| PathBuf::from(&source.value))
    }
}

impl Source {
    fn parse<T>(&self, parse: fn(&str) -> Parsed<T>) -> Result<T, UsageError> {
        let text = self.text()?;
        parse(text).map_err(|accepted| wrong(self.name, text, accepted))
    }

    fn text(&self) -> Result<&str, UsageError> {
        self.value.to_str().ok_or_else(|| UsageError::NotUtf8 { name: self.name.to_owned() })
    }
}

/// All values of one flag, under its name and its alias.
fn take(
    values_of: &mut impl FnMut(&'static str) -> Result<Vec<OsString>, UsageError>,
    flag: &'static Flag,
) -> Result<Vec<Source>, UsageError> {
    let mut found = Vec::new();
    for name in [Some(flag.name), flag.alias].into_iter().flatten() {
        for value in values_of(name)? {
            // Two dashes are the next flag; that a value was forgotten is more likely than a value of this form.
            if value.is_empty() || value.as_bytes().starts_with(b"--") {
                return Err(UsageError::NoValue { flag: name });
            }
            found.push(Source { name, is_flag: true, value });
        }
    }
    match found.len() > 1 && flag.form == Form::Single {
        true => Err(UsageError::Twice { flag: flag.name }),
        false => Ok(found),
    }
}

/// `--flag=value` as two arguments, and a switch with its value, so that `pico_args` meets one form only. Its own
/// feature for `=` takes quotes off values, and knows no bytes that are not UTF-8.
pub fn separate(args: Vec<OsString>) -> Vec<OsString> {
    let mut out = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let parts: Vec<&[u8]> = arg.as_bytes().splitn(2, |byte| *byte == b'=').collect();
        let known = str::from_utf8(parts[0]).ok().and_then(flag);
        let has_value = |next: &OsString| next.to_str().is_some_and(|next| value::boolean(next).is_ok());
        match (known, parts.as_slice()) {
            (Some(_), [name, value]) => out.extend([name, value].map(|part| OsString::from_vec(part.to_vec()))),
            (Some(flag), [_]) if flag.form == Form::Switch && !args.peek().is_some_and(has_value) => {
                out.extend([arg, "true".into()]);
            }
            _ => out.push(arg),
        }
    }
    out
}

/// What is left when all known flags are taken: nothing, or one URL for `healthcheck`.
pub fn free_argument(rest: Vec<OsString>, verb: Verb) -> Result<Option<OsString>, UsageError> {
    let mut url = None;
    for argument in rest {
        let text = argument.to_string_lossy();
        if text.starts_with('-') {
            let name = text.split('=').next().unwrap_or_default();
            let known = flag(name).map(|flag| UsageError::NotTakenBy { flag: flag.name, verb });
            let taken = flags::all().filter(|flag| flag.verbs.contains(&verb)).map(|flag| flag.name);
            return Err(known.unwrap_or_else(|| UsageError::UnknownFlag {
                flag: shown(OsStr::new(name)),
                nearest: nearest(name, taken),
            }));
        }
        if verb != Verb::Healthcheck || url.is_some() {
            return Err(unexpected(&argument));
        }
        url = Some(argument);
    }
    Ok(url)
}

pub fn unexpected(argument: &OsStr) -> UsageError {
    let text = argument.to_string_lossy();
    let as_flag = flag(&format!("--{text}")).map(|flag| flag.name);
    let nearest = as_flag.or_else(|| nearest(&text, ["healthcheck", "status"].into_iter()));
    let nearest = nearest.filter(|nearest| *nearest != text);
    UsageError::Unexpected { argument: shown(argument), nearest }
}

fn wrong(name: &str, value: &str, accepted: &'static str) -> UsageError {
    UsageError::Value { name: name.to_owned(), value: shown(OsStr::new(value)), accepted }
}

/// A value of somebody else in a message: on one line, and not endless.
pub fn shown(value: &OsStr) -> String {
    const LETTERS_MAX: usize = 80;
    let text = value.to_string_lossy();
    let short: String = text.chars().take(LETTERS_MAX).collect();
    format!("{short:?}{}", if short.len() < text.len() { "..." } else { "" })
}

pub fn once_each<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    items.for_each(|item| {
        if !seen.contains(&item) {
            seen.push(item);
        }
    });
    seen
}
