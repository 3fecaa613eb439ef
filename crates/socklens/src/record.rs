//! Recordings as files: JSON lines, and pcapng.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

use crate::event::{Event, EventKind, Fate, HostName, Seen};
use crate::packet::{Numbers, Packet, Transport};

/// Version of the JSON lines. It changes when a key changes its meaning or disappears; readers skip
/// keys and kinds that they do not know.
pub const VERSION: u32 = 1;

/// What stands at the head of a recording.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Head {
    /// Name of the scenario.
    pub scenario: String,
    /// How the hosts are made: `veth`, `tun` or `loopback`.
    pub tier: String,
    /// Time of the system at the first event.
    pub begin: SystemTime,
}

impl Head {
    /// Describes a recording.
    #[must_use]
    pub fn new(scenario: impl Into<String>, tier: impl Into<String>, begin: SystemTime) -> Head {
        Head { scenario: scenario.into(), tier: tier.into(), begin }
    }

    fn since_1970(&self) -> Duration {
        self.begin.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// One object of JSON that is being written.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new(kind: &str) -> Object {
        let mut object = Object("{".to_owned());
        object.text("k", kind);
        object
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{key}\":");
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.0.push('"');
        for c in text.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                c if c < ' ' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    pub(crate) fn number(&mut self, key: &str, number: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.0, "{number}");
    }

    pub(crate) fn optional(&mut self, key: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(key, text),
            None => self.number(key, "null"),
        }
    }

    /// An object of numbers. Without any it is left out.
    pub(crate) fn counters(&mut self, key: &str, counters: &[(&str, u64)]) {
        if !counters.is_empty() {
            let parts: Vec<_> =
                counters.iter().map(|(name, number)| format!("\"{name}\":{number}")).collect();
            self.number(key, format_args!("{{{}}}", parts.join(",")));
        }
    }

    /// Objects that were written before.
    pub(crate) fn list(&mut self, key: &str, objects: &[String]) {
        self.number(key, format_args!("[{}]", objects.join(",")));
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() { '=' } else { digit as char });
        }
    }
    text
}

fn put_seen(object: &mut Object, seen: &Seen) {
    object.text("proto", seen.protocol);
    object.text("st", seen.state);
    object.number("rq", seen.recvq);
    object.number("wq", seen.sendq);
    if let Some((waiting, backlog)) = seen.waiting {
        object.number("waiting", waiting);
        object.number("backlog", backlog);
    }
    object.text("timer", seen.timer.map_or("off", |timer| timer.kind));
    object.number("ms", seen.timer.map_or(0, |timer| timer.left.as_millis()));
    object.number("retr", seen.timer.map_or(0, |timer| timer.retransmits));
    object.number("ino", seen.inode);
    object.text("local", &seen.local);
    object.text("peer", &seen.peer);
    object.number("drops", seen.drops);
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut bits) = (0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        group = group << 6 | u32::from(digit(c)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
            group &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

/// Reads the head of a recording and what [`write_pcapng`] writes: the packets and their fates.
/// `None` without a head.
pub(crate) fn read_packets(jsonl: &str) -> Option<(Head, Vec<Event>)> {
    let (mut head, mut events, mut numbers) = (None, Vec::new(), Numbers::default());
    let seconds = |line: &Json, key: &str| Duration::try_from_secs_f64(line[key].as_f64()?).ok();
    for line in jsonl.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()) {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        let kind = text("k");
        if kind == "meta" {
            let begin = UNIX_EPOCH.checked_add(seconds(&line, "wall")?)?;
            head = Some(Head::new(text("scenario"), text("tier"), begin));
        }
        let (Some(time), Some(id)) = (seconds(&line, "t"), line["id"].as_u64()) else { continue };
        let Some(fate) = Fate::ALL.into_iter().find(|fate| fate.word() == text("fate")) else { continue };
        if kind == "fate" {
            events.push(Event { time, kind: EventKind::Fate { id, fate } });
        } else if let ("pkt", Some(bytes)) = (kind, from_base64(text("raw"))) {
            let mut packet = Packet::parse(&bytes);
            if let Some(packet) = &mut packet {
                numbers.make_relative(packet);
            }
            let from = if text("from") == "B" { HostName::B } else { HostName::A };
            events.push(Event { time, kind: EventKind::Packet { id, from, fate, packet, bytes } });
        }
    }
    Some((head?, events))
}

/// An event as a line of a recording.
pub(crate) fn json(event: &Event) -> String {
    let begin = |kind| {
        let mut object = Object::new(kind);
        object.number("t", format_args!("{:.6}", event.time.as_secs_f64()));
        object
    };
    match &event.kind {
        EventKind::Call { id, host, object: name, function, args, line, thread } => {
            let mut object = begin("call");
            object.number("id", id);
            object.text("actor", &host.to_string());
            object.text("sock", name);
            object.text("fn", function);
            object.text("args", args);
            object.number("line", line);
            if let Some(thread) = thread {
                object.number("tid", thread);
            }
            object.end()
        }
        EventKind::Held { id } => {
            let mut object = begin("held");
            object.number("id", id);
            object.end()
        }
        EventKind::Released { id } => {
            let mut object = begin("released");
            object.number("id", id);
            object.end()
        }
        EventKind::Return { id, value, errno, took } => {
            let mut object = begin("ret");
            object.number("id", id);
            object.text("val", value);
            object.optional("errno", errno.as_deref());
            object.number("us", took.as_micros());
            object.end()
        }
        EventKind::Name { cookie, name } => {
            let mut object = begin("name");
            object.text("ck", &cookie.to_string());
            object.text("name", name);
            object.end()
        }
        EventKind::Kernel { host, cookie, was, now, info } => {
            let mut object = begin("kern");
            object.text("host", &host.to_string());
            object.text("ck", &cookie.to_string());
            object.optional("was", *was);
            put_seen(&mut object, now);
            object.counters("info", info);
            object.end()
        }
        EventKind::Gone { host, cookie, was } => {
            let mut object = begin("gone");
            object.text("host", &host.to_string());
            object.text("ck", &cookie.to_string());
            object.text("was", was);
            object.end()
        }
        EventKind::Died { host, cookie, info } => {
            let mut object = begin("died");
            object.text("host", &host.to_string());
            object.text("ck", &cookie.to_string());
            object.counters("info", info);
            object.end()
        }
        EventKind::Packet { id, from, fate, packet, bytes } => {
            let mut object = begin("pkt");
            object.number("id", id);
            object.text("from", &from.to_string());
            object.text("fate", fate.word());
            if let Some(packet) = packet {
                object.text("flags", &packet.name());
                if let Transport::Tcp { seq, ack, window, .. } = packet.transport {
                    object.number("seq", seq);
                    object.number("ack", ack);
                    object.number("win", window);
                }
                object.number("len", packet.length);
                object.text("src", &packet.source.to_string());
                object.text("dst", &packet.destination.to_string());
            }
            object.text("raw", &base64(bytes));
            object.end()
        }
        EventKind::Fate { id, fate } => {
            let mut object = begin("fate");
            object.number("id", id);
            object.text("fate", fate.word());
            object.end()
        }
        EventKind::Expect { line, ok, text, seen } => {
            let mut object = begin("expect");
            object.number("line", line);
            object.number("ok", ok);
            object.text("text", text);
            object.text("seen", seen);
            object.end()
        }
        EventKind::Hint { id, text } => {
            let mut object = begin("hint");
            object.number("id", id);
            object.text("text", text);
            object.end()
        }
        EventKind::Line { line } => {
            let mut object = begin("line");
            object.number("line", line);
            object.end()
        }
        EventKind::Done { line, ok, text } => {
            let mut object = begin("done");
            object.number("line", line);
            object.number("ok", ok);
            object.text("text", text);
            object.end()
        }
        EventKind::Paused { next } => {
            let mut object = begin("paused");
            match next {
                Some(next) => object.number("next", next),
                None => object.number("next", "null"),
            }
            object.end()
        }
        EventKind::Note(text) => {
            let mut object = begin("note");
            object.text("text", text);
            object.end()
        }
    }
}

/// Writes a recording as JSON lines: a head of kind `meta`, then one object for each event.
///
/// # Errors
///
/// Returns an error if the output cannot be written.
pub fn write_jsonl(output: &mut dyn Write, head: &Head, events: &[Event]) -> io::Result<()> {
    writeln!(output, "{}", meta(head))?;
    events.iter().try_for_each(|event| writeln!(output, "{}", json(event)))
}

/// The first line of a recording.
pub(crate) fn meta(head: &Head) -> String {
    let mut object = Object::new("meta");
    object.number("v", VERSION);
    object.text("scenario", &head.scenario);
    object.text("tier", &head.tier);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    object.text("kernel", release.trim());
    object.number("wall", format_args!("{:.6}", head.since_1970().as_secs_f64()));
    object.end()
}

// pcapng, draft-ietf-opsawg-pcapng.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Packets begin with the header of IPv4 or IPv6.
const LINKTYPE_RAW: u16 = 101;
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;

fn option(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend(code.to_le_bytes());
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn block(output: &mut dyn Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    output.write_all(&[&kind.to_le_bytes(), &length, body, &length].concat())
}

/// Writes the packets of a recording as pcapng. The comment of a packet says what became of it.
///
/// # Errors
///
/// Returns an error if the output cannot be written.
pub fn write_pcapng(output: &mut dyn Write, head: &Head, events: &[Event]) -> io::Result<()> {
    let mut later: HashMap<u64, Fate> = HashMap::new();
    for event in events {
        if let EventKind::Fate { id, fate } = &event.kind {
            later.insert(*id, *fate);
        }
    }
    // Byte order, version 1.0, unknown length.
    let mut body = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    option(&mut body, OPT_COMMENT, format!("{} on {}", head.scenario, head.tier).as_bytes());
    option(&mut body, 0, &[]);
    block(output, SECTION, &body)?;
    for name in ["wire at A", "wire at B"] {
        let mut body = [&LINKTYPE_RAW.to_le_bytes()[..], &[0; 6]].concat();
        option(&mut body, IF_NAME, name.as_bytes());
        option(&mut body, 0, &[]);
        block(output, INTERFACE, &body)?;
    }
    for event in events {
        let EventKind::Packet { id, from, fate, packet, bytes } = &event.kind else { continue };
        let time = (head.since_1970() + event.time).as_micros() as u64;
        let mut body = Vec::new();
        let length = bytes.len() as u32;
        for word in [from.index() as u32, (time >> 32) as u32, time as u32, length, length] {
            body.extend(word.to_le_bytes());
        }
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        let name = packet.as_ref().map(ToString::to_string).unwrap_or_default();
        let comment = match later.get(id) {
            Some(later) => format!("{}, then {}: {name}", fate.word(), later.word()),
            None => format!("{}: {name}", fate.word()),
        };
        option(&mut body, OPT_COMMENT, comment.as_bytes());
        option(&mut body, 0, &[]);
        block(output, ENHANCED_PACKET, &body)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    #[test]
    fn base64_is_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..=bytes.len() {
            assert_eq!(from_base64(&base64(&bytes[..length])).as_deref(), Some(&bytes[..length]));
        }
        assert_eq!(from_base64("Zg=x"), None);
        assert_eq!(from_base64("Z g="), None);
    }

    /// TCP from 10.0.0.1:1000 to 10.0.0.2:80, with these flags and this sequence number.
    fn segment(flags: u8, seq: u32) -> Vec<u8> {
        let mut bytes =
            vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, 80];
        bytes.extend(seq.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn packets_of_json_lines_are_those_of_the_events() {
        let begin = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let head = Head::new("a \"lesson\"", "veth", begin);
        let mut numbers = Numbers::default();
        let mut events = Vec::new();
        let contents = [segment(2, 70_000), segment(1, 70_001), vec![1, 2, 3], vec![]];
        for (place, bytes) in contents.into_iter().enumerate() {
            let mut packet = Packet::parse(&bytes);
            if let Some(packet) = &mut packet {
                numbers.make_relative(packet);
            }
            let id = place as u64;
            let from = HostName::BOTH[place % 2];
            for (fate, later) in
                [(Fate::Passed, None), (Fate::Cut, None), (Fate::Held, Some(Fate::Dropped))]
            {
                let id = id * 10 + events.len() as u64;
                let time = Duration::from_millis(id);
                let (packet, bytes) = (packet.clone(), bytes.clone());
                events.push(Event { time, kind: EventKind::Packet { id, from, fate, packet, bytes } });
                events.push(Event { time, kind: EventKind::Note("a note".to_owned()) });
                let fate = |fate| Event { time, kind: EventKind::Fate { id, fate } };
                events.extend(later.map(fate));
            }
        }
        let mut lines = Vec::new();
        write_jsonl(&mut lines, &head, &events).unwrap();
        let (read_head, read_events) = read_packets(std::str::from_utf8(&lines).unwrap()).unwrap();
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        write_pcapng(&mut expected, &head, &events).unwrap();
        write_pcapng(&mut found, &read_head, &read_events).unwrap();
        assert_eq!(found, expected);
        let is_there = |text: &[u8]| found.windows(text.len()).any(|window| window == text);
        assert!(is_there(b"held, then dropped: FIN      seq 1"));
        assert!(read_packets("{\"k\":\"end\",\"text\":\"x\"}\nno JSON\n").is_none());
    }

    #[test]
    fn texts_of_json_are_escaped() {
        let mut object = Object::new("x");
        object.text("t", "a\"b\\c\nd");
        assert_eq!(object.end(), "{\"k\":\"x\",\"t\":\"a\\\"b\\\\c\\u000ad\"}");
    }

    #[test]
    fn blocks_of_pcapng_have_whole_words_and_their_length_twice() {
        let head = Head::new("x", "veth", SystemTime::now());
        let kind = EventKind::Packet {
            id: 1,
            from: HostName::B,
            fate: Fate::Held,
            packet: None,
            bytes: vec![1, 2, 3],
        };
        let event = Event { time: Duration::ZERO, kind };
        let mut file = Vec::new();
        write_pcapng(&mut file, &head, &[event]).unwrap();
        let mut rest = &file[..];
        let mut blocks = 0;
        while !rest.is_empty() {
            let length = u32::from_le_bytes(*rest[4..].first_chunk().unwrap()) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(rest[length - 4..length], rest[4..8]);
            rest = &rest[length..];
            blocks += 1;
        }
        assert_eq!(blocks, 4);
    }
}
