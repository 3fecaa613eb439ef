//! Python's literals: what calls take and return.

use std::fmt;

use sock::{POLLERR, POLLHUP, POLLIN, POLLOUT};

/// A value of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// `7`
    Int(i64),
    /// `0.5`
    Float(f64),
    /// `b"data"`
    Bytes(Vec<u8>),
    /// `"text"`
    Str(String),
    /// `(1, 2)`
    Tuple(Vec<Value>),
    /// `[1, 2]`
    List(Vec<Value>),
    /// Names joined by `|`: constants, or a socket.
    Names(Vec<String>),
    /// A descriptor.
    Fd(i32),
}

impl Value {
    /// Whether a call that returned this value returned what `wanted` is. `any` stands for every
    /// value, also within a tuple, and `fd` for a descriptor.
    pub(crate) fn is(&self, wanted: &Value) -> bool {
        match (self, wanted) {
            (_, Value::Names(names)) if names == &["any"] => true,
            (Value::Fd(_), Value::Names(names)) => names == &["fd"],
            (Value::Names(is), Value::Names(wanted)) => {
                is.len() == wanted.len() && is.iter().all(|name| wanted.contains(name))
            }
            (Value::Tuple(is), Value::Tuple(wanted)) | (Value::List(is), Value::List(wanted)) => {
                is.len() == wanted.len() && is.iter().zip(wanted).all(|(is, wanted)| is.is(wanted))
            }
            // A call without a result succeeds with 0 in C, and with None in Python.
            (Value::Int(0), Value::None) => true,
            (is, Value::Names(names)) if names.len() == 1 => {
                constant(&names[0]).is_some_and(|number| *is == Value::Int(number))
            }
            _ => self == wanted,
        }
    }
}

/// Returns the number of a constant of `sock`.
pub(crate) fn constant(name: &str) -> Option<i64> {
    let event = EVENTS.iter().find(|(known, _)| *known == name).map(|(_, event)| i64::from(*event));
    event.or_else(|| {
        sock::constants().into_iter().find(|(known, _)| *known == name).map(|(_, number)| number)
    })
}

/// The events of poll(2).
pub(crate) const EVENTS: [(&str, sock::Events); 4] =
    [("POLLIN", POLLIN), ("POLLOUT", POLLOUT), ("POLLERR", POLLERR), ("POLLHUP", POLLHUP)];

/// Bytes that are shown of a long value.
pub(crate) const SHOWN: usize = 48;

/// The beginning of bytes of which there are `length`.
pub(crate) fn shown_bytes(bytes: &[u8], length: usize) -> String {
    let first = &bytes[..bytes.len().min(SHOWN)];
    let more = if length > first.len() { format!("... ({length} bytes)") } else { String::new() };
    format!("b\"{}\"{more}", first.escape_ascii())
}

fn write_all(f: &mut fmt::Formatter<'_>, values: &[Value]) -> fmt::Result {
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{value}")?;
    }
    Ok(())
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number}"),
            Value::Bytes(bytes) => f.write_str(&shown_bytes(bytes, bytes.len())),
            Value::Str(text) => write!(f, "{text:?}"),
            Value::Tuple(values) => {
                f.write_str("(")?;
                write_all(f, values)?;
                f.write_str(if values.len() == 1 { ",)" } else { ")" })
            }
            Value::List(values) => {
                f.write_str("[")?;
                write_all(f, values)?;
                f.write_str("]")
            }
            Value::Names(names) => f.write_str(&names.join(" | ")),
            Value::Fd(number) => write!(f, "fd {number}"),
        }
    }
}

/// Reads values from a text.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a str,
}

/// Bytes that `b"x" * N` may have.
const LONGEST: usize = 64 << 20;
/// How deep tuples and lists may be nested.
const DEEPEST: usize = 16;

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Reader<'a> {
        Reader { rest: text }
    }

    pub(crate) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Where a mistake is.
    fn place(&self) -> String {
        match self.rest.trim() {
            "" => "at the end of the line".to_owned(),
            rest => format!("before {:?}", shortened(rest)),
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a text if it comes next.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes characters as long as they are allowed.
    fn take_while(&mut self, allowed: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !allowed(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Values up to `end`, separated by commas.
    pub(crate) fn values(&mut self, end: &str) -> Result<Vec<Value>, String> {
        self.values_at(end, 0).map(|(values, _)| values)
    }

    /// Also returns whether the last value is followed by a comma.
    fn values_at(&mut self, end: &str, depth: usize) -> Result<(Vec<Value>, bool), String> {
        let mut values = Vec::new();
        let mut comma = true;
        loop {
            if self.take(end) {
                return Ok((values, comma));
            }
            if !comma {
                return Err(format!("expected a comma or {end:?} {}", self.place()));
            }
            values.push(self.value_at(depth)?);
            comma = self.take(",");
        }
    }

    /// One value.
    pub(crate) fn value(&mut self) -> Result<Value, String> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err("too many brackets".to_owned());
        }
        self.skip_space();
        let value = match self.rest.chars().next() {
            Some('(') => {
                self.take("(");
                let (mut values, comma) = self.values_at(")", depth + 1)?;
                match values.len() {
                    1 if !comma => values.remove(0),
                    _ => Value::Tuple(values),
                }
            }
            Some('[') => {
                self.take("[");
                Value::List(self.values_at("]", depth + 1)?.0)
            }
            Some('"' | '\'') => {
                let bytes = self.quoted()?;
                Value::Str(String::from_utf8(bytes).map_err(|_| "the text is not UTF-8".to_owned())?)
            }
            Some('b') if self.rest[1..].starts_with(['"', '\'']) => {
                self.rest = &self.rest[1..];
                Value::Bytes(self.quoted()?)
            }
            Some(c) if c.is_ascii_digit() || c == '-' => {
                let is_negative = self.take("-");
                let text = self.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
                let digits = text.replace('_', "");
                let sign = if is_negative { "-" } else { "" };
                if digits.contains('.') {
                    let number = format!("{sign}{digits}").parse();
                    Value::Float(number.map_err(|_| format!("{text:?} is not a number"))?)
                } else {
                    let number = match digits.strip_prefix("0x") {
                        Some(hex) => i64::from_str_radix(hex, 16),
                        None => digits.parse(),
                    };
                    let number = number.map_err(|_| format!("{text:?} is not a number"))?;
                    Value::Int(if is_negative { -number } else { number })
                }
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let mut names = Vec::new();
                loop {
                    self.skip_space();
                    let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                    if name.is_empty() {
                        return Err(format!("expected a name {}", self.place()));
                    }
                    names.push(name.to_owned());
                    if !self.take("|") {
                        break;
                    }
                }
                match (names.len(), names[0].as_str()) {
                    (1, "None") => Value::None,
                    (1, "True") => Value::Bool(true),
                    (1, "False") => Value::Bool(false),
                    _ => Value::Names(names),
                }
            }
            _ => return Err(format!("expected a value {}", self.place())),
        };
        if !self.take("*") {
            return Ok(value);
        }
        match (value, self.value_at(depth + 1)?) {
            (Value::Bytes(bytes), Value::Int(count)) => {
                let count = usize::try_from(count).unwrap_or_default();
                match bytes.len().checked_mul(count) {
                    Some(length) if length <= LONGEST => Ok(Value::Bytes(bytes.repeat(count))),
                    _ => Err(format!("more than {LONGEST} bytes")),
                }
            }
            _ => Err("only bytes can be multiplied, by a number".to_owned()),
        }
    }

    /// The bytes of a text in quotes.
    fn quoted(&mut self) -> Result<Vec<u8>, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next().unwrap_or('"');
        let mut bytes = Vec::new();
        let mut buffer = [0; 4];
        loop {
            match chars.next() {
                None => return Err("a text without its closing quote".to_owned()),
                Some(c) if c == quote => break,
                Some('\\') => match chars.next() {
                    Some('n') => bytes.push(b'\n'),
                    Some('r') => bytes.push(b'\r'),
                    Some('t') => bytes.push(b'\t'),
                    Some('0') => bytes.push(0),
                    Some(c @ ('\\' | '"' | '\'')) => bytes.push(c as u8),
                    Some('x') => {
                        let digits: String = chars.by_ref().take(2).collect();
                        let byte = u8::from_str_radix(&digits, 16);
                        bytes.push(byte.map_err(|_| format!("\\x{digits} is not a byte"))?);
                    }
                    other => return Err(format!("unknown escape \\{}", other.unwrap_or(' '))),
                },
                Some(c) => bytes.extend(c.encode_utf8(&mut buffer).as_bytes()),
            }
        }
        self.rest = chars.as_str();
        Ok(bytes)
    }
}

pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        Reader::new(text).value()
    }

    #[test]
    fn literals_are_read_as_in_python() {
        assert_eq!(read("b\"a\\r\\n\\x00\""), Ok(Value::Bytes(b"a\r\n\0".to_vec())));
        assert_eq!(read("b\"ab\" * 2"), Ok(Value::Bytes(b"abab".to_vec())));
        assert_eq!(
            read("(\"10.0.0.2\", 80)"),
            Ok(Value::Tuple(vec![Value::Str("10.0.0.2".into()), Value::Int(80)]))
        );
        assert_eq!(read("(7)"), Ok(Value::Int(7)));
        assert_eq!(read("(7,)"), Ok(Value::Tuple(vec![Value::Int(7)])));
        assert_eq!(read("-1"), Ok(Value::Int(-1)));
        assert_eq!(read("0.5"), Ok(Value::Float(0.5)));
        assert_eq!(read("A | B"), Ok(Value::Names(vec!["A".into(), "B".into()])));
        assert_eq!(read("[b'x', None]"), Ok(Value::List(vec![Value::Bytes(b"x".to_vec()), Value::None])));
        for wrong in ["", "b\"", "(1", "(1 2)", "b\"\\q\"", "1x", "b\"x\" * 99999999999", "\"x\" * 2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn any_stands_for_every_value() {
        let returned = read("(b\"x\", (\"10.0.0.1\", 40000))").unwrap();
        assert!(returned.is(&read("(b\"x\", (\"10.0.0.1\", any))").unwrap()));
        assert!(returned.is(&read("any").unwrap()));
        assert!(!returned.is(&read("(b\"y\", any)").unwrap()));
        assert!(Value::Fd(5).is(&read("fd").unwrap()));
        assert!(Value::Int(i64::from(sock::SO_ERROR)).is(&read("SO_ERROR").unwrap()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,60}") {
            let _ = read(&text);
        }

        #[test]
        fn brackets_and_quotes_are_read_without_a_panic(text in "[(\\[b\"'x1,* |)\\]-]{0,60}") {
            let _ = read(&text);
        }
    }
}
