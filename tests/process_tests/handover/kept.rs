//! The promise: a request on a connection that is idle when the server is replaced is answered, and not
//! every idle connection keeps the old process.

use std::io::{BufRead, BufReader};
use std::path::Path;

use sock::{Address, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{Builder, PreforkMixIn};

use crate::preforking::children;
use crate::support::{LIMIT, wait_until};

use super::{Folder, MODELS, Program, WORKERS, address_of, ask, exchange, start, start_with};

/// A connection on which one request was answered.
fn kept_connection(address: &Address) -> BufReader<Socket> {
    let mut place = None;
    ask(&mut place, "keep\n", address).unwrap();
    place.expect("the server keeps the connection")
}

/// The same with workers that serve one request each. A worker accepts until it has counted the request
/// that it has answered. So a connection may reach a worker that leaves, which answers its first request
/// and closes it. Then another worker is asked.
fn kept_connection_of_a_new_worker(old: &Program, address: &Address) -> BufReader<Socket> {
    let mut place = None;
    wait_until("a worker keeps the connection", || {
        wait_for_free_places(old);
        ask(&mut place, "keep\n", address).unwrap();
        place.is_some()
    });
    place.unwrap()
}

const KEPT: usize = 8;

/// Waits until so few workers are leaving that not all places are taken when another one leaves: there are
/// twice as many as [`WORKERS`]. Without a place for another worker the oldest would close its idle
/// connections, as documented.
fn wait_for_free_places(old: &Program) {
    const { assert!(KEPT < WORKERS) };
    let workers = || children(old.child.id()).len();
    wait_until("workers have exited", || workers() <= WORKERS + KEPT);
}

/// Starts two servers, and returns them with idle connections to the first one, which has released its
/// listener.
fn hand_over_with_kept_connections(
    model: &str,
    path: &Path,
    variables: &[(&str, &str)],
) -> (Program, Program, Vec<BufReader<Socket>>) {
    let old = start_with(model, path, variables);
    let address = address_of(&old.wait_for("serving"));
    let count = if model == "tcp" { 1 } else { KEPT };
    let replaces = variables.iter().any(|(name, _)| *name == "QUOTA");
    // The next client is accepted when the first successor may connect.
    ask(&mut None, "close\n", &address).unwrap();
    let keep = |_| match replaces {
        true => kept_connection_of_a_new_worker(&old, &address),
        false => kept_connection(&address),
    };
    let kept = (0..count).map(keep).collect();
    let new = start(model, path);
    new.wait_for("serving");
    let accepts = || {
        if replaces {
            wait_for_free_places(&old);
        }
        ask(&mut None, "close\n", &address).unwrap() == new.id()
    };
    wait_until("the successor accepts, and the old process does not", accepts);
    (old, new, kept)
}

/// The requests on idle connections arrive when the old process accepts no more.
pub(super) fn answer_kept_connections(model: &str) {
    answer_with(model, &[]);
}

/// Each worker leaves idle connections open for longer than a test takes. Half of `close_timeout` is the
/// most.
pub(super) fn with_quota(
    server: Builder<Stream<Inet>, PreforkMixIn>,
    quota: u64,
) -> Builder<Stream<Inet>, PreforkMixIn> {
    server.max_requests(quota, 0).lame_duck(5 * LIMIT).close_timeout(Some(10 * LIMIT))
}

/// The workers with the connections have served `max_requests`, and are being replaced.
pub(super) fn answer_in_replaced_workers() {
    answer_with("prefork", &[("QUOTA", "1")]);
}

fn answer_with(model: &str, variables: &[(&str, &str)]) {
    let folder = Folder::new();
    let (old, _new, kept) = hand_over_with_kept_connections(model, &folder.path(), variables);
    for mut connection in kept {
        let answer = exchange(&mut connection, "keep\n").expect("an answer of the old process");
        assert_eq!(answer, format!("{} close\n", old.id()));
        assert_eq!(connection.read_line(&mut String::new()).unwrap(), 0);
    }
    assert!(old.wait(), "{model}");
}

/// It serves its connection in the accept loop, and the successor waits for the end of that.
pub(super) fn sequential_does_not_wait() {
    let folder = Folder::new();
    let variables = [("KEEPS", "yes")];
    let (old, _new, mut kept) = hand_over_with_kept_connections("tcp", &folder.path(), &variables);
    assert_eq!(kept[0].read_line(&mut String::new()).unwrap(), 0);
    assert!(old.wait());
}

/// Connections without a further request do not keep the old process.
pub(super) fn close_after_the_grace() {
    for (model, grace) in MODELS[1..].iter().flat_map(|model| [(model, "0"), (model, "50")]) {
        let folder = Folder::new();
        let variables = [("GRACE", grace)];
        let (old, _new, kept) = hand_over_with_kept_connections(model, &folder.path(), &variables);
        assert!(old.wait(), "{model}");
        for mut connection in kept {
            assert_eq!(connection.read_line(&mut String::new()).unwrap(), 0, "{model}");
        }
    }
}

/// A handler that does not look at the state of the server. Its connection is closed behind an answer,
/// and not while its next request is on its way. A forked child closes it after the grace. A pre-forked
/// worker does the same as a thread, but its drain begins later than the successor.
pub(super) fn close_what_is_kept() {
    for model in ["threading", "pool", "selector"] {
        let folder = Folder::new();
        let variables = [("KEEPS", "yes")];
        let (old, _new, kept) = hand_over_with_kept_connections(model, &folder.path(), &variables);
        for mut connection in kept {
            for number in 1..3 {
                let answer = exchange(&mut connection, "keep\n").map_err(|error| error.kind());
                assert_eq!(answer, Ok(format!("{} keep\n", old.id())), "{model}, answer {number}");
            }
            assert_eq!(connection.read_line(&mut String::new()).unwrap(), 0, "{model}");
        }
        assert!(old.wait(), "{model}");
    }
}

/// The last step of a handover: the successor accepts. The old process cannot go on then, but answers
/// what it has.
pub(super) fn successor_dies_after_the_release() {
    for model in &MODELS[1..] {
        let folder = Folder::new();
        let (old, new, kept) = hand_over_with_kept_connections(model, &folder.path(), &[]);
        drop(new);
        for mut connection in kept {
            let answer = exchange(&mut connection, "keep\n").expect("an answer of the old process");
            assert_eq!(answer, format!("{} close\n", old.id()), "{model}");
        }
        assert!(old.wait(), "{model}");
    }
}
