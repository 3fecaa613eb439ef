//! Conditions on the kernel's state.

use std::sync::Arc;

use sock::Socket;

use crate::hub::State;
use crate::observe::state_name;
use crate::scenario::line::{Condition, Operator, Term};

/// Fields of a socket that an expectation can name.
pub(crate) const FIELDS: [&str; 13] = [
    "state", "recvq", "sendq", "unread", "waiting", "backlog", "timer", "retrans", "expires", "orphan",
    "rtt", "cwnd", "drops",
];

#[derive(Clone, Debug, PartialEq)]
enum Known {
    Number(f64),
    Word(String),
}

impl std::fmt::Display for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Known::Number(number) => write!(f, "{number}"),
            Known::Word(word) => f.write_str(word),
        }
    }
}

/// Returns whether all conditions are true, and what was seen.
pub(crate) fn check(state: &State, conditions: &[Condition]) -> (bool, String) {
    let mut ok = true;
    let mut seen = Vec::new();
    for condition in conditions {
        let left = value(state, &condition.left);
        let right = value(state, &condition.right);
        ok &= match (&left, condition.operator, &right) {
            (Known::Number(left), operator, Known::Number(right)) => operator.holds(*left, *right),
            (left, Operator::Equal, right) => left == right,
            (left, Operator::NotEqual, right) => left != right,
            // For example a field of a socket that is gone.
            _ => false,
        };
        for (term, value) in [(&condition.left, &left), (&condition.right, &right)] {
            match term {
                Term::Field(object, field) => seen.push(format!("{object}.{field} is {value}")),
                Term::Count(host, state) => seen.push(format!("count({host}, {state}) is {value}")),
                Term::Held => seen.push(format!("wire.held is {value}")),
                Term::Number(_) | Term::Word(_) => {}
            }
        }
    }
    (ok, seen.join(", "))
}

fn value(state: &State, term: &Term) -> Known {
    match term {
        Term::Number(number) => Known::Number(*number),
        Term::Word(word) => Known::Word(word.clone()),
        Term::Held => Known::Number(state.held().count() as f64),
        Term::Count(host, name) => {
            let rows = state.rows(*host).values();
            Known::Number(rows.filter(|seen| seen.state == name).count() as f64)
        }
        Term::Field(object, field) => field_of(state, object, field),
    }
}

/// The state of an open socket that is in no table: its own view.
fn own_state(sock: &Arc<Socket>) -> &'static str {
    sock.tcp_info().map_or("UNCONNECTED", |info| state_name(info.state))
}

fn field_of(state: &State, object: &str, field: &str) -> Known {
    let word = |word: &str| Known::Word(word.to_owned());
    let Some(entry) = state.entries.get(object) else { return word("nothing") };
    let row = state.rows(entry.host).get(&entry.cookie);
    let is_open = entry.sock.is_some();
    match (field, row) {
        ("state", Some(row)) => word(row.state),
        ("state", None) => entry.sock.as_ref().map_or(word("GONE"), |sock| word(own_state(sock))),
        ("orphan", row) => {
            let has_row = row.is_some_and(|row| row.state != "TIME-WAIT");
            word(if has_row && !is_open { "yes" } else { "no" })
        }
        ("unread", _) => match entry.sock.as_ref().map(|sock| sock.recv_queue()) {
            Some(Ok(count)) => Known::Number(count as f64),
            _ => word("nothing"),
        },
        ("timer", Some(row)) => word(row.timer.map_or("off", |timer| timer.kind)),
        ("timer", None) => word("off"),
        ("recvq" | "sendq" | "drops", None) if is_open => Known::Number(0.0),
        (_, None) => word("nothing"),
        ("recvq", Some(row)) => Known::Number(row.recvq.into()),
        ("sendq", Some(row)) => Known::Number(row.sendq.into()),
        ("drops", Some(row)) => Known::Number(row.drops.into()),
        ("waiting", Some(row)) => {
            row.waiting.map_or(word("nothing"), |(waiting, _)| Known::Number(waiting.into()))
        }
        ("backlog", Some(row)) => {
            row.waiting.map_or(word("nothing"), |(_, backlog)| Known::Number(backlog.into()))
        }
        ("retrans", Some(row)) => Known::Number(row.timer.map_or(0, |timer| timer.retransmits).into()),
        ("expires", Some(row)) => {
            row.timer.map_or(word("nothing"), |timer| Known::Number(timer.left.as_secs() as f64))
        }
        ("rtt", Some(row)) => {
            row.rtt.map_or(word("nothing"), |rtt| Known::Number(rtt.as_secs_f64() * 1000.0))
        }
        ("cwnd", Some(row)) => row.cwnd.map_or(word("nothing"), |cwnd| Known::Number(cwnd.into())),
        _ => word("nothing"),
    }
}
