//! The servers of each mode.

/// A server and its arguments, in which `{address}` and `{file}` are replaced.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    pub(crate) words: &'static [&'static str],
    /// Whether it is measured without the idle connections of the mode.
    pub(crate) alone: bool,
}

impl Server {
    pub(crate) fn is_ours(&self) -> bool {
        match self.program {
            Program::Ours => true,
            // The others make the system calls directly.
            Program::Recv => !self.name.contains("(2)"),
            _ => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// A model of `ours`.
    Ours,
    /// A model of the `ours` that `--earlier` names.
    Earlier,
    /// A model of `peers`.
    Rust,
    C(&'static str),
    Go,
    Python,
    /// Measures itself, and prints a report like that of the load generator.
    Recv,
}

/// Suffix of the name of an earlier build.
pub(crate) const EARLIER: &str = " (earlier)";

/// Returns each of our servers, followed by its earlier build.
pub(crate) fn with_earlier(servers: Vec<Server>) -> Vec<Server> {
    let ours = servers.into_iter().filter(|server| server.program == Program::Ours);
    ours.flat_map(|server| {
        let name = format!("{}{EARLIER}", server.name).leak();
        let earlier = Server { name, program: Program::Earlier, ..server.clone() };
        [server, earlier]
    })
    .collect()
}

const fn server(name: &'static str, program: Program, words: &'static [&'static str]) -> Server {
    Server { name, program, words, alone: false }
}

/// One of our servers. Its arguments are the model and the address.
const fn ours(name: &'static str, words: &'static [&'static str]) -> Server {
    server(name, Program::Ours, words)
}

const fn rust(name: &'static str, words: &'static [&'static str]) -> Server {
    server(name, Program::Rust, words)
}

/// The first server of each mode is the reference for most ratios. Servers that are compared
/// with each other are adjacent, because the state of the machine changes within seconds.
pub(crate) fn echo() -> Vec<Server> {
    vec![
        server("c-epoll", Program::C("epoll"), &["1", "{address}"]),
        ours("SelectorTCPServer", &["selector", "{address}", "--workers", "1"]),
        rust("tokio-current", &["tokio-current", "{address}"]),
        server("go", Program::Go, &["echo", "{address}"]),
        rust("tokio-multi", &["tokio-multi", "{address}"]),
        rust("std-thread", &["std-thread", "{address}"]),
        ours("ThreadingTCPServer", &["threading", "{address}"]),
        server("python-thread", Program::Python, &["thread", "{address}"]),
        ours("ThreadingTCPServer io::copy", &["copy", "{address}"]),
        rust("std-pool", &["std-pool", "{address}"]),
        ours("ThreadPoolTCPServer", &["pool", "{address}", "--workers", "64"]),
        server("python-asyncio", Program::Python, &["asyncio", "{address}"]),
    ]
}

/// Like `echo`, but not pinned, and with two threads in servers with several threads.
pub(crate) fn echo_free() -> Vec<Server> {
    let mut servers = echo();
    servers.retain(|server| {
        !matches!(server.name, "SelectorTCPServer" | "tokio-multi" | "ThreadingTCPServer io::copy")
    });
    let two_threads = [
        ours("SelectorTCPServer", &["selector", "{address}", "--workers", "2"]),
        rust("tokio-multi", &["tokio-multi", "{address}"]),
        server("c-epoll 2 threads", Program::C("epoll"), &["2", "{address}"]),
    ];
    servers.splice(1..1, two_threads);
    servers
}

pub(crate) fn short() -> Vec<Server> {
    vec![
        server("c-epoll", Program::C("epoll"), &["1", "{address}"]),
        ours("SelectorTCPServer", &["selector", "{address}", "--workers", "1"]),
        rust("tokio-multi", &["tokio-multi", "{address}"]),
        rust("tokio-current", &["tokio-current", "{address}"]),
        ours("ThreadingTCPServer", &["threading", "{address}"]),
        rust("std-thread", &["std-thread", "{address}"]),
        server("c-thread", Program::C("blocking"), &["thread", "{address}"]),
        server("go", Program::Go, &["echo", "{address}"]),
        rust("std-sequential", &["std-sequential", "{address}"]),
        ours("TCPServer", &["tcp", "{address}"]),
        server("python-sync", Program::Python, &["sync", "{address}"]),
        rust("std-pool", &["std-pool", "{address}"]),
        ours("ThreadPoolTCPServer", &["pool", "{address}", "--workers", "64"]),
        server("c-prefork", Program::C("blocking"), &["prefork", "{address}", "8"]),
        ours("PreforkTCPServer", &["prefork", "{address}", "--workers", "8"]),
        server("c-fork", Program::C("blocking"), &["fork", "{address}"]),
        ours("ForkingTCPServer", &["forking", "{address}"]),
        server("python-fork", Program::Python, &["fork", "{address}"]),
        server("python-thread", Program::Python, &["thread", "{address}"]),
        server("python-asyncio", Program::Python, &["asyncio", "{address}"]),
    ]
}

pub(crate) fn unix() -> Vec<Server> {
    vec![
        server("c-epoll", Program::C("epoll"), &["1", "{address}"]),
        ours("SelectorUnixStreamServer", &["selector-unix", "{address}", "--workers", "1"]),
        rust("tokio-current", &["tokio-current", "{address}"]),
        rust("tokio-multi", &["tokio-multi", "{address}"]),
        server("go", Program::Go, &["echo", "{address}"]),
        rust("std-thread", &["std-thread", "{address}"]),
        ours("ThreadingUnixStreamServer", &["threading-unix", "{address}"]),
        server("python-thread", Program::Python, &["unix", "{address}"]),
        rust("std-pool", &["std-pool", "{address}"]),
    ]
}

pub(crate) fn udp() -> Vec<Server> {
    vec![
        server("c-recvfrom", Program::C("udp"), &["plain", "{address}"]),
        ours("UDPServer", &["udp", "{address}"]),
        rust("tokio-udp", &["tokio-udp", "{address}"]),
        server("python-udp", Program::Python, &["udp", "{address}"]),
        server("c-recvmmsg", Program::C("udp"), &["batch", "{address}"]),
        ours("UDPServer max_batch", &["udp-batch", "{address}"]),
        rust("std-udp", &["std-udp", "{address}"]),
        server("c-poll", Program::C("udp"), &["poll", "{address}"]),
        server("go", Program::Go, &["udp", "{address}"]),
    ]
}

pub(crate) fn idle() -> Vec<Server> {
    let alone = Server {
        alone: true,
        ..ours("SelectorTCPServer alone", &["selector", "{address}", "--workers", "1"])
    };
    vec![
        server("c-epoll", Program::C("epoll"), &["1", "{address}"]),
        rust("tokio-current", &["tokio-current", "{address}"]),
        rust("tokio-multi", &["tokio-multi", "{address}"]),
        ours("SelectorTCPServer", &["selector", "{address}", "--workers", "1"]),
        alone,
        ours("ThreadingTCPServer", &["threading", "{address}"]),
        server("go", Program::Go, &["echo", "{address}"]),
        rust("std-thread", &["std-thread", "{address}"]),
        server("python-asyncio", Program::Python, &["asyncio", "{address}"]),
    ]
}

pub(crate) fn bulk() -> Vec<Server> {
    vec![
        server("c-sendfile", Program::C("sendfile"), &["sendfile", "{address}", "{file}"]),
        server("c-copy 1 MiB", Program::C("sendfile"), &["copy", "{address}", "{file}"]),
        ours("handler with sendfile", &["sendfile", "{address}", "--file", "{file}"]),
        ours("handler with io::copy", &["file", "{address}", "--file", "{file}"]),
        rust("std-sendfile", &["std-sendfile", "{address}", "--file", "{file}"]),
        rust("std io::copy", &["std-copy", "{address}", "--file", "{file}"]),
        rust("std 64 KiB", &["std-read-write", "{address}", "--file", "{file}"]),
        rust("tokio io::copy", &["tokio-copy", "{address}", "--file", "{file}"]),
        server("go io.Copy", Program::Go, &["file", "{address}", "{file}"]),
        server("python sendfile", Program::Python, &["file", "{address}", "{file}"]),
    ]
}

pub(crate) fn recv() -> Vec<Server> {
    vec![
        server("recv(2)", Program::Recv, &["plain"]),
        server("Socket", Program::Recv, &["blocking"]),
        server("Socket with timeout", Program::Recv, &["timed"]),
        server("Socket::recv (allocates)", Program::Recv, &["allocating"]),
        server("makefile", Program::Recv, &["makefile"]),
        server("poll(2), recv(2)", Program::Recv, &["poll-first"]),
    ]
}
