//! The TOML file: read with the place of every key and value, so that each mistake is reported as `file:line:column`, and all
//! mistakes at once.
//!
//! The file is flat: one key per option, the same names as on the command line. A key that is not known is an error, with the known
//! key that was probably meant. Input is hostile: its size is capped, and nesting is capped by the TOML reader.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, Key, Kind, Setting, ValueError};

/// Longest file that is read, bytes.
pub const FILE_BYTES_MAX: usize = 256 << 10;
/// Mistakes that are reported at once.
const ERRORS_MAX: usize = 20;
/// Longest piece of the file that a message repeats, characters.
const QUOTE_CHARS_MAX: usize = 60;

/// A mistake in the file and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}", file = .file.display())]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: FileProblem,
}

/// What is wrong at one place of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// Longer than [`FILE_BYTES_MAX`].
    #[error("the file is longer than {FILE_BYTES_MAX} bytes; is it a configuration?")]
    TooLong,
    /// Not text.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// No option has this name.
    #[error("unknown key {key:?}{}", .meant.map_or_else(known_keys, |meant| format!("; did you mean {:?}?", meant.name())))]
    UnknownKey {
        /// The key.
        key: String,
        /// The option whose name is close to it.
        meant: Option<Key>,
    },
    /// A value of another type than the option takes.
    #[error("{}: expected {}, found {found}", .key.name(), .key.kind().expected())]
    Type {
        /// The option.
        key: Key,
        /// The type found.
        found: &'static str,
    },
    /// A value that the option refuses.
    #[error("{}: {problem}", .key.name())]
    Value {
        /// The option.
        key: Key,
        /// Why.
        problem: ValueError,
    },
}

fn known_keys() -> String {
    format!("; the keys are {}", Key::ALL.map(Key::name).join(", "))
}

/// Reads the file at `path`.
///
/// # Errors
/// [`ConfigError::Read`] and [`ConfigError::File`].
pub fn read(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&bytes, path)
}

/// Reads the bytes of a file; `name` is what errors call it. Each setting parses by itself; whether they fit together is checked by
/// [`Config::assemble`].
///
/// # Errors
/// [`ConfigError::File`] with every mistake, in the order of the file.
pub fn parse(bytes: &[u8], name: &Path) -> Result<Vec<Setting>, ConfigError> {
    let at = |text: &str, offset: usize, problem| {
        let (line, column) = position(text, offset);
        FileError { file: name.to_owned(), line, column, problem }
    };
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ConfigError::File(vec![at("", 0, FileProblem::TooLong)]));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let good = bytes.get(..e.valid_up_to()).and_then(|good| std::str::from_utf8(good).ok()).unwrap_or_default();
            return Err(ConfigError::File(vec![at(good, good.len(), FileProblem::NotUtf8)]));
        }
    };
    let table = DeTable::parse(text).map_err(|e| {
        let offset = e.span().map_or(0, |span| span.start);
        ConfigError::File(vec![at(text, offset, FileProblem::Syntax(e.message().to_owned()))])
    })?;

    let mut settings = Vec::new();
    let mut mistakes: Vec<(Range<usize>, FileProblem)> = Vec::new();
    let mut scratch = Config::default();
    for (key, value) in table.get_ref() {
        let Some(known) = Key::from_name(key.get_ref()) else {
            let problem = FileProblem::UnknownKey { key: quote(key.get_ref()), meant: nearest(key.get_ref()) };
            mistakes.push((key.span(), problem));
            continue;
        };
        match text_form(known, value.get_ref()) {
            Err(problem) => mistakes.push((value.span(), problem)),
            Ok(text) => match known.set(&mut scratch, &text) {
                Err(problem) => mistakes.push((value.span(), FileProblem::Value { key: known, problem })),
                Ok(()) => settings.push(Setting { key: known, text }),
            },
        }
    }
    if mistakes.is_empty() {
        return Ok(settings);
    }
    mistakes.sort_by_key(|(span, _)| span.start);
    mistakes.truncate(ERRORS_MAX);
    Err(ConfigError::File(mistakes.into_iter().map(|(span, problem)| at(text, span.start, problem)).collect()))
}

/// A TOML value in the text form of the option, if it is of a type that the option takes.
fn text_form(key: Key, value: &DeValue<'_>) -> Result<String, FileProblem> {
    let wrong = |found| Err(FileProblem::Type { key, found });
    match (key.kind(), value) {
        (Kind::Text | Kind::Size | Kind::Cpus, DeValue::String(text)) => Ok(text.to_string()),
        (Kind::Integer | Kind::Size | Kind::Cpus, DeValue::Integer(number)) => Ok(decimal(number)),
        (Kind::Cpus, DeValue::Array(items)) => {
            let mut cpus = Vec::new();
            for item in items.iter() {
                match item.get_ref() {
                    DeValue::Integer(number) => cpus.push(decimal(number)),
                    _ => return wrong("an array that holds something else"),
                }
            }
            Ok(cpus.join(","))
        }
        (_, DeValue::String(_)) => wrong("a string"),
        (_, DeValue::Integer(_)) => wrong("an integer"),
        (_, DeValue::Float(_)) => wrong("a float"),
        (_, DeValue::Boolean(_)) => wrong("a boolean"),
        (_, DeValue::Datetime(_)) => wrong("a date"),
        (_, DeValue::Array(_)) => wrong("an array"),
        (_, DeValue::Table(_)) => wrong("a table"),
    }
}

/// The number in decimal; one past 64 bits stays as it is written, for the option's own check to refuse.
fn decimal(number: &toml::de::DeInteger<'_>) -> String {
    i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| quote(&number.to_string()), |n| n.to_string())
}

/// Line and column of a byte offset, both from 1; the column counts characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    let column = 1 + before.get(line_start..).map_or(0, |line| String::from_utf8_lossy(line).chars().count());
    (line, column)
}

/// A piece of the file for a message: cut to a bearable length.
fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        None => text.to_owned(),
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
    }
}

/// The option whose name is nearest to `name`, when it is near enough to have been meant.
fn nearest(name: &str) -> Option<Key> {
    if name.chars().count() > QUOTE_CHARS_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('_', "-");
    let (distance, key) = Key::ALL.into_iter().map(|key| (edit_distance(&name, key.name()), key)).min()?;
    let bearable = (key.name().len() / 3).clamp(1, 3);
    (distance <= bearable).then_some(key)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits_and_swaps() {
        for (a, b, distance) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("media", "medai", 1), ("rtsp", "rstp", 1), ("poll", "pool", 1)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        for (name, key) in [
            ("medai", Some(Key::Media)),
            ("max_sessions", Some(Key::MaxSessions)),
            ("maxsessions", Some(Key::MaxSessions)),
            ("sesion-timeout", Some(Key::SessionTimeout)),
            ("RTSP", Some(Key::Rtsp)),
            ("logs", Some(Key::Log)),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name), key, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }

    #[test]
    fn places_count_lines_and_characters() {
        let text = "a = 1\nä = \"öü\" # x\nz";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, text.find('#').unwrap()), (2, 10));
        assert_eq!(position(text, text.len()), (3, 2));
        assert_eq!(position(text, 1 << 20), (3, 2));
    }
}
