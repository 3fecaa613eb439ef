//! Literals and names that several languages share.

use crate::value::{Reader, Value};

/// Splits bytes that repeat a short part, so that a program can repeat it as well.
pub(super) fn repeated(bytes: &[u8]) -> Option<(&[u8], usize)> {
    if bytes.len() <= 64 {
        return None;
    }
    let repeats = |length: &usize| {
        bytes.len() % length == 0 && bytes.iter().zip(&bytes[*length..]).all(|(one, other)| one == other)
    };
    (1..=32).find(repeats).map(|length| (&bytes[..length], bytes.len() / length))
}

/// The name of a socket in a program, different from the words that the program uses itself.
pub(super) fn name(name: &str, taken: &str) -> String {
    let is_taken =
        taken.split(' ').any(|word| word == name) || name.starts_with("PORT_") || name.ends_with("_socket");
    if is_taken { format!("{name}_socket") } else { name.to_owned() }
}

/// Bytes of a result as they stand in a recording: what is shown of them, their length, and the text
/// behind them.
pub(super) fn data(text: &str) -> Option<(Vec<u8>, usize, &str)> {
    let mut reader = Reader::new(text.trim_start_matches('('));
    let Ok(Value::Bytes(bytes)) = reader.value() else { return None };
    let rest = reader.rest();
    let longer = rest.strip_prefix("... (").and_then(|rest| rest.split_once(" bytes)"));
    match longer.and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
        Some((length, rest)) => Some((bytes, length, rest)),
        None => Some((bytes.clone(), bytes.len(), rest)),
    }
}

/// A number of seconds as the timeout of poll(2).
pub(super) fn milliseconds(value: Option<&Value>) -> String {
    match value {
        Some(Value::Float(seconds)) => format!("{}", (seconds * 1000.0).ceil()),
        Some(Value::Int(seconds)) => seconds.saturating_mul(1000).to_string(),
        _ => "-1".to_owned(),
    }
}

/// A text in lines of at most `width` characters.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].is_empty() {
            lines[last] = word.to_owned();
        } else if lines[last].chars().count() + 1 + word.chars().count() <= width {
            lines[last] = format!("{} {word}", lines[last]);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_repeat_are_found_only_if_they_are_long() {
        assert_eq!(repeated(&b"ab".repeat(40)), Some((&b"ab"[..], 40)));
        assert_eq!(repeated(b"xxxx"), None);
        assert_eq!(repeated(&[b"x".repeat(80), b"y".to_vec()].concat()), None);
    }

    #[test]
    fn data_of_results_is_read_with_its_length() {
        assert_eq!(data("b\"a\\n\""), Some((b"a\n".to_vec(), 2, "")));
        assert_eq!(data("b\"xx\"... (500 bytes)"), Some((b"xx".to_vec(), 500, "")));
        assert_eq!(data("(b\"a\", (\"10.0.0.1\", 5))"), Some((b"a".to_vec(), 1, ", (\"10.0.0.1\", 5))")));
        assert_eq!(data("7"), None);
    }
}
