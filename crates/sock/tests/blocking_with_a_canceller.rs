//! The promise: a socket with a canceller that is never used does what a blocking socket does:
//! the same result, after the same wait, without using the processor. And a cancel ends what waits.
//!
//! Every case is made twice, without a canceller and with one, and compared.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Ipv4Addr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use sock::{
    AF_INET, AF_UNIX, Address, Canceller, IPPROTO_IP, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK,
    MSG_TRUNC, MSG_WAITALL, MsgFlags, RecvBatch, SHUT_RDWR, SHUT_WR, SO_SNDBUF, SOCK_DGRAM, SOCK_SEQPACKET,
    SOCK_STREAM, SOL_SOCKET, Socket, create_server, socketpair_with, was_cancelled,
};

/// No wait of a test is longer.
const LIMIT: Duration = Duration::from_secs(30);
/// Who has not returned by then blocks. One that seems to differ is repeated with ten times as long.
const BLOCKS: Duration = Duration::from_millis(100);
/// The system's own timeout, where one is set: well below `BLOCKS`.
const TIMEOUT: Duration = Duration::from_millis(30);
/// Most processor time of a call that waits.
const CPU: Duration = Duration::from_millis(60);

type Call = fn(&Socket) -> io::Result<String>;

/// A case by its name, how it is made, and the call.
type Named = (String, Box<dyn Fn() -> Case + Send>, Call);

/// A socket to make a call on, and what has to stay open for it.
struct Case {
    sock: Socket,
    peers: Vec<Socket>,
}

/// What happens once the call is seen to block.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// It is cancelled; without a canceller the socket is shut down.
    Cancel,
    /// The first peer sends four bytes, receives all there is, or accepts.
    Help,
    /// The peers are closed.
    Close,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    blocked: bool,
    /// None for one that was cancelled.
    result: Option<String>,
}

fn shown(result: io::Result<String>) -> String {
    result.unwrap_or_else(|error| match sock::errno(&error).and_then(sock::errno_name) {
        Some(name) => name.to_owned(),
        None => format!("{:?}", error.kind()),
    })
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn help(peer: &Socket) {
    peer.setblocking(false).unwrap();
    if peer.accept().is_ok() {
        return;
    }
    let _ = peer.send(b"wxyz");
    // Until no data has arrived for a while, because a sender that is woken continues.
    peer.settimeout(Duration::from_millis(300)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while peer.recv_into(&mut buffer).is_ok_and(|received| received > 0) {}
}

fn run(
    name: &str,
    case: Case,
    call: Call,
    canceller: Option<Canceller>,
    then: Then,
    blocks: Duration,
) -> Outcome {
    let Case { sock, mut peers } = case;
    let twin = sock.dup().unwrap();
    let (sender, receiver) = mpsc::channel();
    let caller = thread::spawn(move || {
        let before = processor_time();
        let result = call(&sock);
        let used = processor_time() - before;
        let _ = sender.send((result, used));
        sock
    });
    let (blocked, (result, used)) = match receiver.recv_timeout(blocks) {
        Ok(done) => (false, done),
        Err(RecvTimeoutError::Disconnected) => panic!("{name}: panicked"),
        Err(RecvTimeoutError::Timeout) => {
            match (then, &canceller) {
                (Then::Cancel, Some(canceller)) => canceller.cancel(),
                (Then::Cancel, None) => {
                    let _ = twin.shutdown(SHUT_RDWR);
                    peers.clear();
                }
                (Then::Help, _) => {
                    if let Some(peer) = peers.first() {
                        help(peer);
                    }
                }
                (Then::Close, _) => peers.clear(),
            }
            match receiver.recv_timeout(if then == Then::Cancel { LIMIT } else { blocks * 4 }) {
                Ok(done) => (true, done),
                // It was no help: so it is not for the other one either.
                Err(_) => {
                    match &canceller {
                        Some(canceller) => canceller.cancel(),
                        None => drop((twin.shutdown(SHUT_RDWR), peers.clear())),
                    }
                    let ended = receiver.recv_timeout(LIMIT);
                    assert!(ended.is_ok(), "{name}: not cancelled");
                    caller.join().unwrap();
                    return Outcome { blocked: true, result: Some("blocks on".into()) };
                }
            }
        }
    };
    caller.join().unwrap();
    assert!(used < CPU, "{name}: {used:?} of processor time, blocked: {blocked}");
    // What went or came before the cancel is returned, as it is when a signal interrupts.
    let cancelled = canceller.is_none() || result.is_ok() || result.as_ref().is_err_and(was_cancelled);
    if blocked && then == Then::Cancel && cancelled {
        return Outcome { blocked, result: None };
    }
    Outcome { blocked, result: Some(shown(result)) }
}

/// Compares a case with itself; returns whether it blocks, or how the two differ.
fn difference(name: &str, case: impl Fn() -> Case, call: Call) -> Result<bool, String> {
    let both = |then, blocks| {
        [false, true].map(|with| {
            let case = case();
            let canceller = with.then(|| case.sock.canceller().unwrap());
            run(name, case, call, canceller, then, blocks)
        })
    };
    let mut blocked = false;
    for then in [Then::Cancel, Then::Help, Then::Close] {
        let [mut plain, mut with] = both(then, BLOCKS);
        // On a busy machine a call may take longer than that without waiting. Then all of these
        // have to be equal: one alone would hide a difference that is there only sometimes.
        let repeated = if plain == with { 0 } else { 4 };
        for _ in 0..repeated {
            [plain, with] = both(then, BLOCKS * 10);
            if plain != with {
                break;
            }
        }
        if plain != with {
            return Err(format!("{name}, then {then:?}: {plain:?}, and with a canceller {with:?}"));
        }
        blocked = plain.blocked;
        if !blocked {
            break;
        }
    }
    Ok(blocked)
}

#[track_caller]
fn compare(name: &str, case: impl Fn() -> Case, call: Call) -> bool {
    difference(name, case, call).unwrap()
}

/// Runs cases beside each other, since most of them wait; returns how many there were and how many
/// of them blocked.
fn compare_all(cases: Vec<Named>) -> (usize, usize) {
    let count = cases.len();
    let cases = parking_lot::Mutex::new(cases);
    let next = || cases.lock().pop();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let work = || {
            let mut outcomes = Vec::new();
            while let Some((name, case, call)) = next() {
                outcomes.push(difference(&name, case, call));
            }
            outcomes
        };
        let workers: Vec<_> = (0..64).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let blocked = outcomes.iter().filter(|outcome| **outcome == Ok(true)).count();
    let differences: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(differences.is_empty(), "{differences:#?}");
    (count, blocked)
}

const KINDS: [&str; 5] = ["TCP", "Unix stream", "Unix seqpacket", "Unix datagram", "UDP"];

/// Two connected sockets.
fn pair(kind: &str) -> (Socket, Socket) {
    match kind {
        "TCP" => {
            let listener = create_server(("127.0.0.1", 0)).unwrap();
            let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
            client.connect(listener.getsockname().unwrap()).unwrap();
            (listener.accept().unwrap().0, client)
        }
        "UDP" => {
            let [one, other] = [(); 2].map(|()| {
                let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
                sock.bind(("127.0.0.1", 0)).unwrap();
                sock
            });
            one.connect(other.getsockname().unwrap()).unwrap();
            other.connect(one.getsockname().unwrap()).unwrap();
            (one, other)
        }
        "Unix stream" => socketpair_with(AF_UNIX, SOCK_STREAM, 0).unwrap(),
        "Unix seqpacket" => socketpair_with(AF_UNIX, SOCK_SEQPACKET, 0).unwrap(),
        _ => socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap(),
    }
}

const STATES: [&str; 6] =
    ["empty", "two bytes", "ended", "two bytes and ended", "timeout", "two bytes, timeout"];

fn in_state(kind: &str, state: &str) -> Case {
    let (sock, peer) = pair(kind);
    if state.starts_with("two bytes") {
        peer.send(b"ab").unwrap();
    }
    if state.ends_with("timeout") {
        sock.set_recv_timeout(TIMEOUT).unwrap();
    }
    if state.ends_with("ended") && kind != "UDP" {
        peer.shutdown(SHUT_WR).unwrap();
    }
    // On loopback it has come when send returns, but the end of a stream may take a moment.
    Case { sock, peers: vec![peer] }
}

/// One function for each call and flag: a closure would be of another type each.
macro_rules! receiving {
    ($($name:literal $flags:expr;)*) => {[$(
        (concat!("recv ", $name), (|sock| {
            let data = sock.recv_with_flags(4, $flags)?;
            Ok(data.escape_ascii().to_string())
        }) as Call),
        (concat!("recv_into ", $name), |sock| {
            let mut data = [0; 4];
            let received = sock.recv_into_with_flags(&mut data, $flags)?;
            Ok(data[..received.min(4)].escape_ascii().to_string())
        }),
        (concat!("recvfrom ", $name), |sock| {
            let (data, _) = sock.recvfrom_with_flags(4, $flags)?;
            Ok(data.escape_ascii().to_string())
        }),
        (concat!("recvmsg_into ", $name), |sock| {
            let (mut one, mut two, mut three) = ([0], [0; 2], [0]);
            let mut buffers = [&mut one[..], &mut two, &mut three].map(IoSliceMut::new);
            let received = sock.recvmsg_into_with_flags(&mut buffers, 0, $flags)?.received;
            Ok(format!("{received} {one:?} {two:?} {three:?}"))
        }),
    )*]};
}

#[test]
fn receiving_is_as_without_it() {
    let calls = receiving! {
        "" MsgFlags::NONE;
        "DONTWAIT" MSG_DONTWAIT;
        "WAITALL" MSG_WAITALL;
        "PEEK" MSG_PEEK;
        "PEEK|WAITALL" MSG_PEEK | MSG_WAITALL;
        "WAITALL|DONTWAIT" MSG_WAITALL | MSG_DONTWAIT;
        "WAITALL|TRUNC" MSG_WAITALL | MSG_TRUNC;
        "ERRQUEUE" MSG_ERRQUEUE;
        "OOB" MSG_OOB;
    };
    let mut cases: Vec<Named> = Vec::new();
    for kind in KINDS {
        for state in STATES {
            for (name, call) in calls {
                cases.push((
                    format!("{kind}, {state}: {name}"),
                    Box::new(move || in_state(kind, state)),
                    call,
                ));
            }
        }
        for state in ["empty", "two bytes", "timeout"] {
            let call: Call = |sock| {
                let mut batch = RecvBatch::new(3, 10)?;
                Ok(sock.recvmmsg(&mut batch)?.to_string())
            };
            cases.push((
                format!("{kind}, {state}: recvmmsg"),
                Box::new(move || in_state(kind, state)),
                call,
            ));
        }
    }
    let (count, blocked) = compare_all(cases);
    assert!(count > 1000 && blocked > 150, "{blocked} of {count}");
}

/// Much more than fits into any buffer.
const MUCH: usize = 8 << 20;

fn much(kind: &str, timeout: bool) -> Case {
    let (sock, peer) = pair(kind);
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 100_000).unwrap();
    if timeout {
        sock.set_send_timeout(TIMEOUT).unwrap();
    }
    Case { sock, peers: vec![peer] }
}

/// How much went depends on the peer's buffers; whether it was all does not.
fn part(sent: usize) -> io::Result<String> {
    Ok(if sent == MUCH { "all" } else { "a part" }.to_owned())
}

/// Sends datagrams until one does not go.
fn fill(sock: &Socket) {
    while sock.send_with_flags(&[0; 1000], MSG_DONTWAIT).is_ok() {}
}

#[test]
fn sending_is_as_without_it() {
    let streams: [(&str, Call); 9] = [
        ("send", |sock| part(sock.send(&vec![0; MUCH])?)),
        ("send DONTWAIT", |sock| part(sock.send_with_flags(&vec![0; MUCH], MSG_DONTWAIT)?)),
        ("sendall", |sock| sock.sendall(&vec![0; MUCH]).map(|()| "all".to_owned())),
        ("sendall DONTWAIT", |sock| {
            sock.sendall_with_flags(&vec![0; MUCH], MSG_DONTWAIT).map(|()| "all".to_owned())
        }),
        ("sendmsg", |sock| {
            let quarter = vec![0; MUCH / 4];
            part(sock.sendmsg(&[IoSlice::new(&quarter); 4], &[])?)
        }),
        ("sendmsg DONTWAIT", |sock| {
            let quarter = vec![0; MUCH / 4];
            part(sock.sendmsg_with_flags(&[IoSlice::new(&quarter); 4], &[], MSG_DONTWAIT)?)
        }),
        ("sendfile", |sock| {
            let name = fs::read_link("/proc/self/exe")?;
            match sock.sendfile(&File::open(name)?, 0, MUCH as u64) {
                // sendfile(2) that has sent something loses the error, and the next one is EPIPE.
                // With a canceller the error is returned.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok("EPIPE".to_owned()),
                result => result.map(|_| "all".to_owned()),
            }
        }),
        ("send twice", |sock| {
            sock.send(b"x")?;
            part(sock.send(&vec![0; MUCH])?)
        }),
        ("send after a part", |sock| {
            let first = part(sock.send(&vec![0; MUCH])?)?;
            // TCP sends a part once more when it probes the closed window after 200 ms (RFC 9293,
            // 3.8.6.1).
            let mut next = (0..10).map(|_| shown(sock.send(&vec![0; MUCH]).and_then(part)));
            Ok(format!("{first}, {:?}", next.find(|next| next != "a part")))
        }),
    ];
    let datagrams: [(&str, Call); 6] = [
        ("send", |sock| Ok(sock.send(b"x")?.to_string())),
        ("send DONTWAIT", |sock| Ok(sock.send_with_flags(b"x", MSG_DONTWAIT)?.to_string())),
        ("sendmsg", |sock| Ok(sock.sendmsg(&[IoSlice::new(b"x")], &[])?.to_string())),
        ("sendall", |sock| sock.sendall(b"x").map(|()| String::new())),
        ("sendmmsg", |sock| Ok(sock.sendmmsg(&[("x", Address::None)])?.count.to_string())),
        ("sendmmsg of many", |sock| {
            Ok(sock.sendmmsg(&vec![("x", Address::None); 2000])?.count.to_string())
        }),
    ];
    let mut cases: Vec<Named> = Vec::new();
    for kind in KINDS {
        for timeout in [false, true] {
            for (name, call) in streams.into_iter().filter(|_| ["TCP", "Unix stream"].contains(&kind)) {
                let name = format!("{kind}, timeout {timeout}: {name}");
                cases.push((name, Box::new(move || much(kind, timeout)), call));
            }
            for (name, call) in datagrams.into_iter().filter(|_| kind.starts_with("Unix ")) {
                let full = move || {
                    let case = much(kind, timeout);
                    fill(&case.sock);
                    case
                };
                cases.push((format!("{kind}, full, timeout {timeout}: {name}"), Box::new(full), call));
            }
        }
        for (name, call) in datagrams {
            let gone = move || Case { sock: pair(kind).0, peers: Vec::new() };
            // A stream reports it once the peer has answered.
            if kind != "TCP" {
                cases.push((format!("{kind}, peer gone: {name}"), Box::new(gone), call));
            }
        }
    }
    let (count, blocked) = compare_all(cases);
    assert!(count > 60 && blocked > 25, "{blocked} of {count}");
}

/// A receiver with a full queue, which poll(2) on the sender does not check.
#[test]
fn sending_to_a_full_receiver_is_as_without_it() {
    fn case(timeout: bool) -> Case {
        let receiver = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
        receiver.bind("").unwrap();
        let sock = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
        let to = receiver.getsockname().unwrap();
        while sock.sendto_with_flags(b"x", MSG_DONTWAIT, &to).is_ok() {}
        if timeout {
            sock.set_send_timeout(TIMEOUT).unwrap();
        }
        // The name goes along as the sender's own.
        sock.bind(format!("\0{}", to_name(&receiver)).as_str()).unwrap();
        Case { sock, peers: vec![receiver] }
    }
    /// The sender's name determines the receiver's.
    fn to_name(receiver: &Socket) -> String {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Address::Unix(sock::UnixAddress::Abstract(name)) = receiver.getsockname().unwrap() else {
            unreachable!("the kernel has picked its name")
        };
        format!("{}-{}-{number}", name.escape_ascii(), std::process::id())
    }
    let call: Call = |sock| {
        let Address::Unix(sock::UnixAddress::Abstract(own)) = sock.getsockname()? else {
            unreachable!("it was bound to one")
        };
        let receiver = String::from_utf8_lossy(&own).split('-').next().unwrap().to_owned();
        Ok(sock.sendto(b"x", format!("\0{receiver}").as_str())?.to_string())
    };
    assert!(compare("sendto", || case(false), call));
    assert!(!compare("sendto, timeout", || case(true), call));
}

#[test]
fn accepting_is_as_without_it() {
    let call: Call = |sock| sock.accept().map(|_| "accepted".to_owned());
    let listener = |kind| match kind {
        "TCP" => create_server(("127.0.0.1", 0)).unwrap(),
        _ => {
            let kind = if kind == "Unix stream" { SOCK_STREAM } else { SOCK_SEQPACKET };
            let listener = Socket::new(AF_UNIX, kind, 0).unwrap();
            listener.bind("").unwrap();
            listener.listen(5).unwrap();
            listener
        }
    };
    let client = |listener: &Socket| {
        let client = Socket::new(listener.family(), listener.kind(), 0).unwrap();
        client.connect(listener.getsockname().unwrap()).unwrap();
        client
    };
    for kind in ["TCP", "Unix stream", "Unix seqpacket"] {
        let empty = || Case { sock: listener(kind), peers: Vec::new() };
        assert!(compare(&format!("{kind}: accept"), empty, call));
        let timeout = || {
            let case = empty();
            case.sock.set_recv_timeout(TIMEOUT).unwrap();
            case
        };
        assert!(!compare(&format!("{kind}: accept, timeout"), timeout, call));
        let waiting = || {
            let sock = listener(kind);
            Case { peers: vec![client(&sock)], sock }
        };
        assert!(!compare(&format!("{kind}: accept of one"), waiting, call));
        let none = || Case { sock: pair(kind).0, peers: Vec::new() };
        assert!(!compare(&format!("{kind}: accept of a connection"), none, call));
    }
}

/// The address of the case's listener, by which the call finds it: a call is a plain function.
fn connecting(name: &str, listener: fn() -> (Socket, Vec<Socket>), timeout: bool) -> bool {
    let mut blocked = [false; 2];
    for (with, blocked) in [false, true].into_iter().zip(&mut blocked) {
        for then in [Then::Cancel, Then::Help, Then::Close] {
            let (listener, queue) = listener();
            let address = listener.getsockname().unwrap();
            let sock = Socket::new(listener.family(), listener.kind(), 0).unwrap();
            if timeout {
                sock.set_send_timeout(TIMEOUT).unwrap();
            }
            let canceller = with.then(|| sock.canceller().unwrap());
            let (sender, receiver) = mpsc::channel();
            let twin = sock.dup().unwrap();
            let caller = thread::spawn(move || {
                let before = processor_time();
                let result = sock.connect(&address).map(|()| "connected".to_owned());
                let used = processor_time() - before;
                assert!(used < CPU, "{used:?} of processor time");
                let _ = sender.send(result);
                sock
            });
            let early = receiver.recv_timeout(BLOCKS * 3);
            *blocked = early.is_err();
            let mut listener = Some(listener);
            let result = early.or_else(|_| {
                match (then, &canceller) {
                    (Then::Cancel, Some(canceller)) => canceller.cancel(),
                    (Then::Help, _) => drop(listener.as_ref().unwrap().accept().unwrap()),
                    _ => drop((listener.take(), twin.shutdown(SHUT_RDWR))),
                }
                receiver.recv_timeout(LIMIT)
            });
            let result = result.unwrap_or_else(|_| panic!("{name}, then {then:?}: does not end"));
            match then {
                Then::Cancel if with && *blocked => assert!(was_cancelled(result.as_ref().unwrap_err())),
                Then::Cancel if *blocked => {}
                Then::Help if *blocked => assert_eq!(shown(result), "connected", "{name}"),
                Then::Close if *blocked => assert_eq!(shown(result), "ECONNREFUSED", "{name}"),
                _ => {
                    let expected =
                        if listener.unwrap().family() == AF_UNIX { "EAGAIN" } else { "EINPROGRESS" };
                    assert_eq!(shown(result), expected, "{name}");
                }
            }
            caller.join().unwrap();
            drop(queue);
        }
    }
    assert_eq!(blocked[0], blocked[1], "{name}: without a canceller, and with one");
    blocked[0]
}

#[test]
fn each_call_under_one_deadline_has_the_systems_timeout_to_itself() {
    for with in [false, true] {
        let (sock, _peer) = pair("Unix stream");
        sock.set_recv_timeout(TIMEOUT).unwrap();
        let _canceller = with.then(|| sock.canceller().unwrap());
        let mut deadline = sock.deadline();
        for _ in 0..2 {
            let begin = Instant::now();
            let error = sock.recv_into_within(&mut [0], &mut deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "with a canceller: {with}");
            assert!(begin.elapsed() >= TIMEOUT, "with a canceller: {with}");
        }
    }
}

/// Linux lets a blocking connect wait for the one before.
#[test]
fn connecting_once_more_is_as_without_it() {
    for with in [false, true] {
        let listener = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        listener.bind(("127.0.0.1", 0)).unwrap();
        listener.listen(0).unwrap();
        let (listener, _queue) = full_queue(listener);
        let address = listener.getsockname().unwrap();
        let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        sock.setblocking(false).unwrap();
        let connect = || shown(sock.connect(&address).map(|()| "connected".to_owned()));
        assert_eq!(connect(), "EINPROGRESS");
        sock.setblocking(true).unwrap();
        sock.set_send_timeout(TIMEOUT).unwrap();
        let canceller = with.then(|| sock.canceller().unwrap());
        let begin = Instant::now();
        assert_eq!(connect(), "EALREADY", "with a canceller: {with}");
        assert!(begin.elapsed() >= TIMEOUT, "with a canceller: {with}");
        if let Some(canceller) = canceller {
            sock.set_send_timeout(None).unwrap();
            canceller.cancel();
            assert!(was_cancelled(&sock.connect(&address).unwrap_err()));
        }
    }
}

fn full_queue(listener: Socket) -> (Socket, Vec<Socket>) {
    let mut queue = Vec::new();
    for _ in 0..8 {
        let client = Socket::new(listener.family(), listener.kind(), 0).unwrap();
        client.setblocking(false).unwrap();
        let _ = client.connect(listener.getsockname().unwrap());
        queue.push(client);
    }
    (listener, queue)
}

#[test]
fn connecting_to_a_full_queue_is_as_without_it() {
    fn unix(kind: sock::SocketKind) -> (Socket, Vec<Socket>) {
        let listener = Socket::new(AF_UNIX, kind, 0).unwrap();
        listener.bind("").unwrap();
        listener.listen(0).unwrap();
        full_queue(listener)
    }
    fn tcp() -> (Socket, Vec<Socket>) {
        let listener = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        listener.bind(("127.0.0.1", 0)).unwrap();
        listener.listen(0).unwrap();
        full_queue(listener)
    }
    assert!(connecting("Unix stream", || unix(SOCK_STREAM), false));
    assert!(connecting("Unix seqpacket", || unix(SOCK_SEQPACKET), false));
    assert!(!connecting("Unix stream, timeout", || unix(SOCK_STREAM), true));
    assert!(!connecting("TCP, timeout", tcp, true));
}

/// A datagram was refused, and the error is in the queue that `IP_RECVERR` makes.
#[test]
fn a_queued_error_is_as_without_it() {
    const IP_RECVERR: i32 = 11;
    fn refused() -> Case {
        let closed = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        closed.bind(("127.0.0.1", 0)).unwrap();
        let to = closed.getsockname().unwrap();
        let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        sock.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        sock.setsockopt(IPPROTO_IP, IP_RECVERR, true).unwrap();
        sock.connect(to).unwrap();
        drop(closed);
        sock.send(b"x").unwrap();
        sock::poll(&mut [sock::Poll::new(&sock, 0)], Some(LIMIT)).unwrap();
        Case { sock, peers: Vec::new() }
    }
    /// The error has been returned once and stays in the queue.
    fn reported() -> Case {
        let case = refused();
        assert_eq!(shown(case.sock.recv(1).map(|_| String::new())), "ECONNREFUSED");
        case
    }
    let receive: Call = |sock| Ok(sock.recv(1)?.len().to_string());
    let queue: Call =
        |sock| Ok(sock.recvmsg_with_flags(10, 200, MSG_ERRQUEUE)?.ancillary.len().to_string());
    assert!(!compare("recv of an error", refused, receive));
    assert!(compare("recv after an error", reported, receive));
    assert!(!compare("the queue", reported, queue));
    assert!(!compare("an empty queue", || in_state("UDP", "two bytes"), queue));
    let limited = || {
        let case = reported();
        case.sock.set_recv_timeout(TIMEOUT).unwrap();
        case
    };
    assert!(!compare("recv behind an error, timeout", limited, receive));
    // With a timeout of its own a socket waits in the same place, canceller or not.
    let own_timeout = |case: Case| {
        case.sock.settimeout(BLOCKS * 3).unwrap();
        case
    };
    assert!(compare("recv after an error, own timeout", || own_timeout(reported()), receive));
    let datagram = || own_timeout(in_state("UDP", "two bytes"));
    assert!(compare("an empty queue, own timeout", datagram, queue));
}

#[test]
fn a_timeout_that_is_set_is_as_without_it() {
    fn with_mode(kind: &str, mode: Option<Duration>) -> Case {
        let case = in_state(kind, "two bytes");
        case.sock.settimeout(Duration::from_secs(1)).unwrap();
        case.sock.settimeout(mode).unwrap();
        case
    }
    let calls = receiving! {
        "" MsgFlags::NONE;
        "DONTWAIT" MSG_DONTWAIT;
        "WAITALL" MSG_WAITALL;
        "ERRQUEUE" MSG_ERRQUEUE;
    };
    let mut cases: Vec<Named> = Vec::new();
    for kind in KINDS {
        for mode in [None, Some(Duration::ZERO), Some(TIMEOUT)] {
            for (name, call) in calls {
                let name = format!("{kind}, {mode:?}: {name}");
                cases.push((name, Box::new(move || with_mode(kind, mode)), call));
            }
        }
    }
    compare_all(cases);
}
