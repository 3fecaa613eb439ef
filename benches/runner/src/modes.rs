//! The modes: a set of servers and the load for them.

use crate::servers::{self, Server};

pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// The heading of its table.
    pub(crate) title: &'static str,
    pub(crate) servers: fn() -> Vec<Server>,
    /// Arguments of the load generator, starting with its mode. Empty for programs that
    /// measure themselves.
    pub(crate) load: &'static [&'static str],
    pub(crate) on: On,
    /// Whether server and load generator have one CPU each, unless an option overrides it.
    pub(crate) pinned: bool,
    /// Whether `all` runs it.
    pub(crate) in_all: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Tcp,
    Unix,
    Udp,
}

impl Mode {
    pub(crate) fn is_bulk(&self) -> bool {
        self.load.first() == Some(&"bulk")
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.load.contains(&"--idle")
    }

    /// Units of the rate and of the CPU column.
    pub(crate) fn units(&self) -> (&'static str, &'static str) {
        if self.is_bulk() { ("MB/s", "µs/MB") } else { ("1/s", "µs") }
    }
}

pub(crate) const MODES: &[Mode] = &[
    Mode {
        name: "echo",
        title: "Echo of 64 bytes, 64 connections, TCP",
        servers: servers::echo,
        load: &["echo", "--connections", "64", "--size", "64"],
        on: On::Tcp,
        pinned: true,
        in_all: true,
    },
    Mode {
        name: "echo-free",
        title: "Echo of 64 bytes, 64 connections, TCP, not pinned to a CPU",
        servers: servers::echo_free,
        load: &["echo", "--connections", "64", "--size", "64"],
        on: On::Tcp,
        pinned: false,
        in_all: true,
    },
    Mode {
        name: "echo1",
        title: "Echo of 64 bytes, one connection, TCP",
        servers: servers::echo,
        load: &["echo", "--connections", "1", "--size", "64"],
        on: On::Tcp,
        pinned: true,
        in_all: false,
    },
    Mode {
        name: "echo512",
        title: "Echo of 64 bytes, 512 connections, TCP",
        servers: servers::echo,
        load: &["echo", "--connections", "512", "--size", "64"],
        on: On::Tcp,
        pinned: true,
        in_all: false,
    },
    Mode {
        name: "echo4k",
        title: "Echo of 4 KiB, 64 connections, TCP",
        servers: servers::echo,
        load: &["echo", "--connections", "64", "--size", "4096"],
        on: On::Tcp,
        pinned: true,
        in_all: true,
    },
    Mode {
        name: "unix",
        title: "Echo of 64 bytes, 64 connections, Unix sockets",
        servers: servers::unix,
        load: &["echo", "--connections", "64", "--size", "64"],
        on: On::Unix,
        pinned: true,
        in_all: true,
    },
    Mode {
        name: "short",
        title: "Short connections: connect, 64 bytes, half-close, read to the end; 32 at a time",
        servers: servers::short,
        load: &["short", "--connections", "32", "--size", "64"],
        on: On::Tcp,
        pinned: true,
        in_all: true,
    },
    Mode {
        name: "once",
        title: "Short connections that the server closes; 32 at a time",
        servers: servers::short,
        load: &["short", "--connections", "32", "--size", "64", "--server-closes"],
        on: On::Tcp,
        pinned: true,
        in_all: false,
    },
    Mode {
        name: "idle",
        title: "Echo of 64 bytes on 64 connections, beside 9,500 idle connections",
        servers: servers::idle,
        load: &["echo", "--connections", "64", "--size", "64", "--idle", "9500"],
        on: On::Tcp,
        pinned: true,
        in_all: true,
    },
    Mode {
        name: "idle1k",
        title: "Echo of 64 bytes on 64 connections, beside 1,000 idle connections",
        servers: servers::idle,
        load: &["echo", "--connections", "64", "--size", "64", "--idle", "1000"],
        on: On::Tcp,
        pinned: true,
        in_all: false,
    },
    Mode {
        name: "udp",
        title: "Datagrams of 64 bytes, 8 sockets, 64 in flight",
        servers: servers::udp,
        load: &["udp", "--connections", "8", "--window", "64", "--size", "64"],
        on: On::Udp,
        pinned: true,
        in_all: true,
    },
    Mode {
        name: "udp1",
        title: "Datagrams of 64 bytes, one at a time",
        servers: servers::udp,
        load: &["udp", "--connections", "1", "--window", "1", "--size", "64"],
        on: On::Udp,
        pinned: true,
        in_all: false,
    },
    Mode {
        name: "bulk",
        title: "A file of 512 MiB, sent twelve times; the client discards it in the kernel",
        servers: servers::bulk,
        load: &["bulk", "--connections", "12"],
        on: On::Tcp,
        pinned: true,
        in_all: true,
    },
    Mode {
        name: "bulkcopy",
        title: "A file of 512 MiB, sent twice; the client copies it",
        servers: servers::bulk,
        load: &["bulk", "--connections", "2", "--copy"],
        on: On::Tcp,
        pinned: true,
        in_all: false,
    },
    Mode {
        name: "recv",
        title: "One receive of 64 bytes that have already arrived",
        servers: servers::recv,
        load: &[],
        on: On::Tcp,
        pinned: true,
        in_all: true,
    },
];

pub(crate) fn named(name: &str) -> Option<&'static Mode> {
    MODES.iter().find(|mode| mode.name == name)
}
