//! Reads scenarios.

use std::time::Duration;

use crate::call::{OF_HOST, OF_SOCKET};
use crate::command;
use crate::event::{Fate, HostName};
use crate::hub::{Policy, Select};
use crate::observe::STATES;
use crate::packet::Packet;
use crate::scenario::closest::suggestion;
use crate::scenario::condition::FIELDS;
use crate::scenario::line::{Condition, Line, Operator, ParseError, Statement, Term, Wanted, WireLine};
use crate::value::{Reader, Value, constant, shortened};

/// A scenario that was read.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

/// Longest wait that a line can have.
const LONGEST: Duration = Duration::from_secs(600);

impl Scenario {
    /// Reads a scenario. `name` is what the output calls it.
    ///
    /// # Errors
    ///
    /// Returns an error for the first line that cannot be understood.
    ///
    /// # Examples
    ///
    /// ```
    /// use socklens::Scenario;
    ///
    /// assert!(Scenario::parse("lesson", "S = A.socket(AF_INET, SOCK_STREAM)\nS.close()").is_ok());
    /// let error = Scenario::parse("lesson", "S.close()").unwrap_err();
    /// assert!(error.to_string().starts_with("line 1: no line before this one makes a socket S"));
    /// ```
    pub fn parse(name: &str, text: &str) -> Result<Scenario, ParseError> {
        let mut lines = Vec::new();
        let mut known: Vec<String> = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let line = parse_line(index + 1, text, &mut known).map_err(|problem| ParseError {
                line: index + 1,
                problem,
                text: text.to_owned(),
            })?;
            lines.push(line);
        }
        Ok(Scenario { name: name.to_owned(), lines })
    }

    /// Returns the name of the scenario.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the first line of the header, which says what the scenario teaches.
    #[must_use]
    pub fn title(&self) -> &str {
        self.lines.first().and_then(|line| line.comment.as_deref()).unwrap_or_default()
    }

    /// Whether no line does something.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.statement.is_none())
    }

    /// Returns true if the scenario has a line that the tier loopback cannot run: `needs wire`, `wire` or
    /// `sysctl`.
    #[must_use]
    pub fn needs_wire(&self) -> bool {
        self.lines.iter().filter_map(|line| line.statement.as_ref()).any(|statement| {
            matches!(statement, Statement::NeedsWire | Statement::Wire(_) | Statement::Sysctl { .. })
        })
    }
}

/// Splits a line into its statement and its comment.
fn split_comment(text: &str) -> (&str, Option<&str>) {
    let mut quote = None;
    let mut is_escaped = false;
    for (place, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => return (text[..place].trim(), Some(text[place + 1..].trim())),
            (None, _) => {}
        }
    }
    (text.trim(), None)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.trim().strip_suffix('s').and_then(|text| text.trim().parse::<f64>().ok());
    number
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| format!("{:?} is not a time such as 0.5s, or is longer than 600s", text.trim()))
}

/// Removes `within 2s` from the end of a line.
fn split_limit(text: &str) -> Result<(&str, Option<Duration>), String> {
    match text.rsplit_once(" within ") {
        // Within quotes it is data.
        Some((before, limit)) if !limit.contains(['"', '\'', ')']) => {
            Ok((before.trim_end(), Some(seconds(limit)?)))
        }
        _ => Ok((text, None)),
    }
}

/// Whether a terminal does not show the character, but obeys it: it can move the cursor, or change the
/// order in which the characters of a line are shown.
pub(crate) fn is_invisible(c: char) -> bool {
    (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn parse_line(number: usize, text: &str, known: &mut Vec<String>) -> Result<Line, String> {
    if let Some(c) = text.chars().find(|c| is_invisible(*c)) {
        return Err(format!(
            "the invisible character U+{:04X}; bytes in quotes are written as \\x1b",
            u32::from(c)
        ));
    }
    let (text, comment) = split_comment(text);
    let (body, limit) = split_limit(text)?;
    let statement = if body.is_empty() { None } else { Some(parse_statement(body, known)?) };
    let takes_limit = matches!(
        statement,
        Some(
            Statement::Call { .. }
                | Statement::Join { .. }
                | Statement::Expect(_)
                | Statement::Wire(WireLine::Decide(..))
                | Statement::Run { .. }
        )
    );
    if limit.is_some() && !takes_limit {
        return Err("within belongs to a call, join, expect, run, and to a decision of the wire".to_owned());
    }
    Ok(Line { number, text: text.to_owned(), comment: comment.map(str::to_owned), statement, limit })
}

/// Whether a text can be the name of a socket or of a host.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn host(name: &str) -> Result<HostName, String> {
    HostName::parse(name).ok_or_else(|| format!("{name:?} is not a host; the hosts are A and B"))
}

fn parse_statement(text: &str, known: &mut Vec<String>) -> Result<Statement, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    match word {
        "needs" => parse_needs(rest),
        "host" => host(rest).map(|_| Statement::Host),
        "join" => {
            let mut reader = Reader::new(rest);
            let object = name(&mut reader)?;
            check_known(&object, known)?;
            let wanted = parse_wanted(&mut reader)?;
            at_end(&reader)?;
            Ok(Statement::Join { object, wanted })
        }
        "expect" if rest.contains(" or ") => {
            Err("an expectation has no \"or\"; its conditions are joined by and, and != excludes a value"
                .to_owned())
        }
        "expect" => {
            let conditions: Result<Vec<_>, _> =
                rest.split(" and ").map(|condition| parse_condition(condition, known)).collect();
            conditions.map(Statement::Expect)
        }
        "wire" => parse_wire(rest).map(Statement::Wire),
        "wait" => seconds(rest).map(Statement::Wait),
        "run" => {
            let (name, rest) = rest.split_once(' ').ok_or("run needs a host and a command")?;
            let (command, result) = rest.split_once(" -> ").unwrap_or((rest, ""));
            let command = command.trim();
            let (command, background) = match command.strip_suffix('&') {
                Some(command) => (command.trim(), true),
                None => (command, false),
            };
            // A command may stand in quotes.
            let mut quoted = Reader::new(command);
            let text = match quoted.value() {
                Ok(Value::Str(inside)) if quoted.rest().trim().is_empty() => inside,
                _ => command.to_owned(),
            };
            let words = command::split(&text)?;
            let result = if result.is_empty() { String::new() } else { format!("-> {result}") };
            let mut reader = Reader::new(&result);
            let wanted = parse_wanted(&mut reader)?;
            at_end(&reader)?;
            Ok(Statement::Run { host: host(name)?, text, words, background, wanted })
        }
        "sysctl" => {
            let parts: Vec<_> = rest.splitn(3, ' ').collect();
            let [name, parameter, value] = parts[..] else {
                return Err("sysctl needs a host, a name and a value".to_owned());
            };
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !parameter.starts_with("net.")
                || !parameter.chars().all(is_plain)
                || parameter.contains("..")
            {
                return Err(format!("{parameter:?} is not a parameter such as net.ipv4.tcp_fin_timeout"));
            }
            Ok(Statement::Sysctl { host: host(name)?, name: parameter.to_owned(), value: value.to_owned() })
        }
        "limit" => {
            let number = rest.strip_prefix("descriptors ").and_then(|number| number.trim().parse().ok());
            number.map(Statement::LimitDescriptors).ok_or_else(|| "write: limit descriptors 0".to_owned())
        }
        _ => parse_call(text, known),
    }
}

fn parse_needs(text: &str) -> Result<Statement, String> {
    if text == "wire" {
        return Ok(Statement::NeedsWire);
    }
    let version = text.strip_prefix("linux ").map(str::trim).unwrap_or_default();
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => Ok(Statement::NeedsLinux(major, minor)),
        _ => Err("write: needs wire, or: needs linux 5.4".to_owned()),
    }
}

fn parse_wire(text: &str) -> Result<WireLine, String> {
    let words: Vec<_> = text.split_whitespace().collect();
    let fate = match words.first().copied().unwrap_or_default() {
        "pass" if words.len() == 1 => return Ok(WireLine::Policy(Policy::Pass)),
        "hold" if words.len() == 1 => return Ok(WireLine::Policy(Policy::Hold)),
        "cut" if words.len() == 1 => return Ok(WireLine::Policy(Policy::Cut)),
        "delay" if words.len() == 2 => {
            let number = words[1].trim_end_matches("ms").parse().ok().filter(|ms| *ms <= 60_000);
            let delay = number.map(Duration::from_millis).ok_or("write: wire delay 100")?;
            return Ok(WireLine::Policy(Policy::Delay(delay)));
        }
        "deliver" => Fate::Delivered,
        "drop" => Fate::Dropped,
        "duplicate" => Fate::Duplicated,
        _ => {
            return Err(format!(
                "wire {text:?}: write hold, pass, cut, delay MS, or deliver, drop or duplicate and the \
                 packet, such as: wire deliver SYN+ACK from B"
            ));
        }
    };
    let mut select = Select::default();
    let mut rest = &words[1..];
    if let [name, after @ ..] = rest {
        if *name != "from" {
            if !Packet::knows(name) {
                return Err(format!(
                    "{name:?} is not a packet; write flags such as SYN+ACK, or DATA, UDP, ICMP"
                ));
            }
            select.name = Some((*name).to_owned());
            rest = after;
        }
    }
    match rest {
        [] => {}
        ["from", name] => select.from = Some(host(name)?),
        _ => return Err(format!("wire {text:?}: expected from A, or from B")),
    }
    Ok(WireLine::Decide(fate, select))
}

fn name(reader: &mut Reader<'_>) -> Result<String, String> {
    match reader.value() {
        Ok(Value::Names(names)) if names.len() == 1 => Ok(names[0].clone()),
        _ => Err("expected a name".to_owned()),
    }
}

fn at_end(reader: &Reader<'_>) -> Result<(), String> {
    match reader.rest().trim() {
        "" => Ok(()),
        rest => Err(format!("{:?} was not expected", shortened(rest))),
    }
}

/// Whether a word is the name of an error.
fn is_errno(word: &str) -> bool {
    word == "timeout" || (1..200).any(|number| sock::errno_name(number) == Some(word))
}

fn parse_wanted(reader: &mut Reader<'_>) -> Result<Wanted, String> {
    if !reader.take("->") {
        return Ok(Wanted::Success);
    }
    let operator = Operator::ALL.into_iter().find(|(text, _)| reader.take(text));
    let value = reader.value()?;
    if let Some((_, operator)) = operator {
        return Ok(Wanted::Compared(operator, value));
    }
    Ok(match value {
        Value::Names(names) if names == ["blocks"] => Wanted::Blocks,
        Value::Names(names) if names == ["any"] => Wanted::Anything,
        Value::Names(names) if names.len() == 1 && is_errno(&names[0]) => Wanted::Errno(names[0].clone()),
        Value::Names(names) if names != ["fd"] && names.iter().any(|name| constant(name).is_none()) => {
            let name = names.join(" | ");
            let errors = (1..200).filter_map(sock::errno_name);
            let hint = suggestion(&name, errors.chain(["any", "blocks", "fd", "timeout", "None", "True"]));
            return Err(format!(
                "{name} is neither a value nor an error, nor any, blocks, fd or timeout{hint}"
            ));
        }
        value => Wanted::Compared(Operator::Equal, value),
    })
}

fn check_known(name: &str, known: &[String]) -> Result<(), String> {
    if HostName::parse(name).is_some() || known.iter().any(|known| known == name) {
        return Ok(());
    }
    let hint = suggestion(name, known.iter().map(String::as_str));
    Err(format!("no line before this one makes a socket {name}{hint}"))
}

/// What shutdown takes.
const DIRECTIONS: [&str; 3] = ["SHUT_RD", "SHUT_WR", "SHUT_RDWR"];

/// Checks that the names among the arguments are constants, or sockets.
fn check_names(value: &Value, known: &[String]) -> Result<(), String> {
    match value {
        Value::Tuple(values) | Value::List(values) => {
            values.iter().try_for_each(|value| check_names(value, known))
        }
        Value::Names(names) => names.iter().try_for_each(|name| {
            if constant(name).is_some() || DIRECTIONS.contains(&&**name) || known.contains(name) {
                return Ok(());
            }
            let constants = sock::constants().into_iter().map(|(name, _)| name);
            let hint = suggestion(name, constants.chain(DIRECTIONS));
            Err(format!("{name} is neither a constant nor a socket{hint}"))
        }),
        _ => Ok(()),
    }
}

fn parse_call(text: &str, known: &mut Vec<String>) -> Result<Statement, String> {
    let (head, _) = text.split_once('(').ok_or_else(|| {
        let word = text.split(' ').next().unwrap_or_default();
        let words = ["expect", "wire", "join", "wait", "run", "needs", "sysctl", "limit", "host"];
        let hint = suggestion(word, words);
        format!(
            "{:?} is neither a call such as S.close(), nor begins with expect, wire, join, wait, run or needs{hint}",
            shortened(text)
        )
    })?;
    let mut reader = Reader::new(&text[head.len() + 1..]);
    let (targets, callee) = match head.split_once('=') {
        Some((targets, callee)) => {
            (targets.split(',').map(|target| target.trim().to_owned()).collect(), callee.trim())
        }
        None => (Vec::new(), head.trim()),
    };
    let (object, function) = callee.split_once('.').ok_or_else(|| format!("{callee:?} has no object"))?;
    if HostName::parse(object).is_some() {
        if !OF_HOST.contains(&function) {
            let hint = suggestion(function, OF_HOST);
            return Err(format!(
                "a host has no function {function:?}{hint}. It has: {}",
                OF_HOST.join(", ")
            ));
        }
    } else if !OF_SOCKET.contains(&function) {
        let hint = suggestion(function, OF_SOCKET);
        return Err(format!(
            "a socket has no function {function:?}{hint}. It has: {}",
            OF_SOCKET.join(", ")
        ));
    }
    check_known(object, known)?;
    let makes = match function {
        "socket" | "accept" | "dup" => 1,
        "socketpair" => 2,
        "recv_fds" => usize::MAX,
        _ => 0,
    };
    if targets.len() > makes {
        return Err(format!("{function} makes no socket for {}", targets.join(", ")));
    }
    let before = reader.rest();
    let args = reader.values(")")?;
    let args_text = before[..before.len() - reader.rest().len()].trim_end();
    let args_text = args_text.strip_suffix(')').unwrap_or(args_text).to_owned();
    args.iter().try_for_each(|value| check_names(value, known))?;
    for target in &targets {
        if !is_name(target) || HostName::parse(target).is_some() || constant(target).is_some() {
            return Err(format!("{target:?} cannot be the name of a socket"));
        }
        known.push(target.clone());
    }
    let background = reader.take("&");
    let wanted = parse_wanted(&mut reader)?;
    at_end(&reader)?;
    if background && wanted != Wanted::Success {
        return Err("the result of a call with & belongs to its join".to_owned());
    }
    let (object, function) = (object.to_owned(), function.to_owned());
    Ok(Statement::Call { targets, object, function, args, args_text, background, wanted })
}

fn parse_condition(text: &str, known: &[String]) -> Result<Condition, String> {
    let found = Operator::ALL.into_iter().find_map(|(symbol, operator)| {
        text.split_once(symbol).map(|(left, right)| (left, operator, right))
    });
    let (left, operator, right) =
        found.ok_or_else(|| format!("{:?} has no comparison such as ==", text.trim()))?;
    let (left, right) = (parse_term(left, known)?, parse_term(right, known)?);
    if let (Term::Field(_, field), Term::Word(word)) = (&left, &right) {
        if field == "state" && !STATES.contains(&word.as_str()) {
            let hint = suggestion(word, STATES);
            return Err(format!("{word:?} is not a state{hint}. The states are {}", STATES.join(", ")));
        }
    }
    let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
    if ordered && (matches!(left, Term::Word(_)) || matches!(right, Term::Word(_))) {
        return Err("words can only be compared with == and !=".to_owned());
    }
    Ok(Condition { left, operator, right })
}

fn parse_term(text: &str, known: &[String]) -> Result<Term, String> {
    let text = text.trim();
    if text == "wire.held" {
        return Ok(Term::Held);
    }
    if let Some(inside) = text.strip_prefix("count(") {
        let inside = inside.strip_suffix(')').ok_or("count( has no closing bracket")?;
        let (name, state) = inside.split_once(',').ok_or("count needs a host and a state")?;
        let state = state.trim();
        if !STATES.contains(&state) {
            let hint = suggestion(state, STATES);
            return Err(format!("{state:?} is not a state{hint}. The states are {}", STATES.join(", ")));
        }
        return Ok(Term::Count(host(name.trim())?, state.to_owned()));
    }
    if let Ok(number) = text.parse::<f64>() {
        return Ok(Term::Number(number));
    }
    if let Some((object, field)) = text.split_once('.') {
        check_known(object, known)?;
        if !FIELDS.contains(&field) {
            let hint = suggestion(field, FIELDS);
            return Err(format!(
                "a socket has no field {field:?}{hint}. The fields are {}",
                FIELDS.join(", ")
            ));
        }
        return Ok(Term::Field(object.to_owned(), field.to_owned()));
    }
    let is_word = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if is_word { Ok(Term::Word(text.to_owned())) } else { Err(format!("{text:?} is not a value")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str) -> String {
        Scenario::parse("test", text).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_found_before_anything_runs() {
        for (text, expected) in [
            ("\n\nS.close()", "line 3: no line before this one makes a socket S"),
            ("S = A.socket()\nS.state()", "line 2: a socket has no function \"state\""),
            ("S = A.socket()\nexpect S.state == ESTAB", "line 2: \"ESTAB\" is not a state"),
            ("S = A.socket()\nexpect S.color == 3", "line 2: a socket has no field \"color\""),
            ("S = C.socket()", "line 1: a socket has no function \"socket\""),
            ("wire deliver SYM", "line 1: \"SYM\" is not a packet"),
            ("wire deliver SYN from C", "line 1: \"C\" is not a host"),
            ("S = A.socket()\nS.close() -> EWRONG", "line 2: EWRONG is neither a value nor an error"),
            ("S = A.socket()\nS.recv(5) & -> b\"x\"", "line 2: the result of a call with &"),
            ("S = A.socket(", "line 1: expected a value"),
            ("wait 5", "line 1: \"5\" is not a time"),
            ("wait 1s within 2s", "line 1: within belongs to"),
            ("expect count(A, ESTABLISHED) < ONE", "line 1: words can only be compared"),
            ("hello", "line 1: \"hello\" is neither a call"),
            ("sysctl A net.ipv4/../../x 1", "line 1: \"net.ipv4/../../x\" is not a parameter"),
        ] {
            assert!(problem(text).starts_with(expected), "{text}: {}", problem(text));
        }
    }

    #[test]
    fn a_comment_begins_outside_of_quotes() {
        let scenario =
            Scenario::parse("test", "# Title.\nS = A.socket()\nS.send(b\"# \\\" #\") # why").unwrap();
        assert_eq!(scenario.title(), "Title.");
        assert_eq!(scenario.lines[2].text, "S.send(b\"# \\\" #\")");
        assert_eq!(scenario.lines[2].comment.as_deref(), Some("why"));
    }

    #[test]
    fn a_limit_is_not_taken_from_data() {
        let scenario =
            Scenario::parse("test", "S = A.socket()\nS.send(b\"a within 1s\") within 3s").unwrap();
        assert_eq!(scenario.lines[1].limit, Some(Duration::from_secs(3)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(S = A\\.socket\\(\\)\n)?\\PC{0,80}") {
            let _ = Scenario::parse("test", &text);
        }

        #[test]
        fn words_of_the_grammar_are_read_without_a_panic(
            words in proptest::collection::vec(
                prop_oneof![
                    Just("expect"), Just("wire"), Just("S"), Just("A"), Just("."), Just("state"), Just("=="),
                    Just("("), Just(")"), Just("->"), Just("&"), Just("b\""), Just("\""), Just("within"),
                    Just("1s"), Just("count("), Just(","), Just("deliver"), Just("from"), Just(" "), Just("="),
                    Just("run"), Just("and"), Just("limit descriptors 1"), Just("needs linux 5."),
                ],
                0..12,
            )
        ) {
            let _ = Scenario::parse("test", &words.concat());
            let _ = Scenario::parse("test", &words.join(" "));
        }
    }
}
