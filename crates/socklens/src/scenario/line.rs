//! What a line of a scenario means.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::event::{Fate, HostName};
use crate::hub::{Policy, Select};
use crate::scenario::parse::is_invisible;
use crate::value::Value;

/// A line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseError {
    /// The number of the line, from 1 on.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// The line.
    pub text: String,
}

impl ParseError {
    /// Returns the line with a mark below what is wrong, if the problem quotes a part of it.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = socklens::Scenario::parse("lesson", "S = A.sokcet()").unwrap_err();
    /// assert_eq!(error.marked(), "  1 | S = A.sokcet()\n    |       ^^^^^^\n");
    /// ```
    #[must_use]
    pub fn marked(&self) -> String {
        // Tabs would move the mark, and the terminal must not obey what the line contains.
        let shown = |c| match c {
            '\t' => ' ',
            c if is_invisible(c) => '\u{fffd}',
            c => c,
        };
        let text: String = self.text.chars().map(shown).collect();
        if self.problem.ends_with("at the end of the line") {
            let before = " ".repeat(text.trim_end().chars().count());
            return format!("{:3} | {}\n    | {before}^\n", self.line, text.trim_end());
        }
        let quoted = self.problem.split('"').skip(1).step_by(2).find(|part| !["", ")", "]"].contains(part));
        let word = self.problem.split(' ').next().unwrap_or_default();
        let named = self.problem.split(" makes a socket ").nth(1).map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
        });
        let part = quoted.or(named).unwrap_or(word);
        let mut marked = format!("{:3} | {text}\n", self.line);
        if let Some(place) = text.find(part).filter(|_| !part.is_empty()) {
            let before = " ".repeat(text[..place].chars().count());
            marked += &format!("    | {before}{}\n", "^".repeat(part.chars().count()));
        }
        marked
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl Error for ParseError {}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Operator {
    /// Longer ones first.
    pub(crate) const ALL: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];

    pub(crate) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Operator::Equal => left == right,
            Operator::NotEqual => left != right,
            Operator::Less => left < right,
            Operator::AtMost => left <= right,
            Operator::Greater => left > right,
            Operator::AtLeast => left >= right,
        }
    }
}

/// What a call must return.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// It must not fail.
    Success,
    /// It must not return within its limit.
    Blocks,
    /// Whatever it returns, also an error.
    Anything,
    /// The name of an error.
    Errno(String),
    Compared(Operator, Value),
}

/// One side of a condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    Field(String, String),
    Count(HostName, String),
    Held,
    Number(f64),
    Word(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) left: Term,
    pub(crate) operator: Operator,
    pub(crate) right: Term,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WireLine {
    Policy(Policy),
    Decide(Fate, Select),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    NeedsWire,
    NeedsLinux(u32, u32),
    Host,
    Call {
        targets: Vec<String>,
        object: String,
        function: String,
        args: Vec<Value>,
        args_text: String,
        background: bool,
        wanted: Wanted,
    },
    Join {
        object: String,
        wanted: Wanted,
    },
    Expect(Vec<Condition>),
    Wire(WireLine),
    Wait(Duration),
    Run {
        host: HostName,
        /// As the scenario writes it.
        text: String,
        /// The program and its arguments.
        words: Vec<String>,
        background: bool,
        wanted: Wanted,
    },
    Sysctl {
        host: HostName,
        name: String,
        value: String,
    },
    LimitDescriptors(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) number: usize,
    /// Without its comment.
    pub(crate) text: String,
    pub(crate) comment: Option<String>,
    /// `None` for an empty line and for a comment.
    pub(crate) statement: Option<Statement>,
    pub(crate) limit: Option<Duration>,
}
