//! A table of the system's sockets, like `ss -tan`.
//!
//! Run it:
//!
//! ```text
//! cargo run -p sockdiag --example mini_ss
//! cargo run -p sockdiag --example mini_ss -- --tcp --all --extended state time-wait
//! ```

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("mini_ss: this program needs Linux, because other systems do not have NETLINK_SOCK_DIAG");
    std::process::ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fmt::Write as _;
    use std::io::{self, Write as _};
    use std::net::SocketAddr;
    use std::process::ExitCode;

    use sock::{AF_INET, AF_INET6, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, TcpState, UnixAddress};
    use sockdiag::{Diag, Filter, Protocol, Row, Source, Timer, UnixFilter, UnixRow};

    const HELP: &str = "\
Shows the system's sockets, as ss does.

Usage: mini_ss [OPTIONS] [state STATE]... [port PORT]

Options:
  -t, --tcp        TCP sockets (the default is all three kinds)
  -u, --udp        UDP sockets
  -x, --unix       Unix sockets
  -a, --all        sockets of every state (the default leaves out listeners)
  -l, --listening  listeners only
  -4, -6           IPv4 or IPv6 only
  -e, --extended   also user, inode, cookie, timer, memory, and TCP_INFO
      --procfs     read /proc/net instead of using netlink
  -h, --help       show this text

STATE is a name such as established, time-wait or listening. PORT is the port of one side or of the
other.

Exit status: 0 if the table was printed, 1 if the system refused, 2 for wrong arguments.
";

    /// What the arguments ask for.
    #[derive(Default)]
    struct Options {
        tcp: bool,
        udp: bool,
        unix: bool,
        all: bool,
        listening: bool,
        extended: bool,
        procfs: bool,
        family: Option<sock::AddressFamily>,
        states: Vec<TcpState>,
        port: Option<u16>,
    }

    pub(super) fn main() -> ExitCode {
        // What is not UTF-8 is no option.
        let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
        let options = match parse(arguments) {
            Ok(Some(options)) => options,
            // The macros that print panic if the reader has gone.
            Ok(None) => {
                let _ = write!(io::stdout(), "{HELP}");
                return ExitCode::SUCCESS;
            }
            Err(error) => {
                let _ = writeln!(io::stderr(), "mini_ss: {error}; see mini_ss --help");
                return ExitCode::from(2);
            }
        };
        match show(&options) {
            Ok(()) => ExitCode::SUCCESS,
            // The reader, for example head(1), has what it needs.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "mini_ss: cannot show the sockets: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// `None` for `--help`.
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options::default();
        let mut arguments = arguments.flat_map(split_letters);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "-h" | "--help" => return Ok(None),
                "-t" | "--tcp" => options.tcp = true,
                "-u" | "--udp" => options.udp = true,
                "-x" | "--unix" => options.unix = true,
                "-a" | "--all" => options.all = true,
                "-l" | "--listening" => options.listening = true,
                "-e" | "--extended" => options.extended = true,
                "-4" => options.family = Some(AF_INET),
                "-6" => options.family = Some(AF_INET6),
                "--procfs" => options.procfs = true,
                "state" => {
                    let name = arguments.next().ok_or("the name of a state is missing")?;
                    options.states.push(name.parse().map_err(|error| format!("{error}"))?);
                }
                "port" => {
                    let port = arguments.next().ok_or("the number of a port is missing")?;
                    options.port = Some(port.parse().map_err(|_| format!("{port} is not a port"))?);
                }
                other => return Err(format!("{other} is not an option")),
            }
        }
        if !(options.tcp || options.udp || options.unix) {
            // Unix sockets have neither ports nor families.
            let of_inet = options.port.is_some() || options.family.is_some();
            (options.tcp, options.udp, options.unix) = (true, true, !of_inet);
        }
        Ok(Some(options))
    }

    /// `-tan` is `-t -a -n`, and `-n` is what this program always does.
    fn split_letters(argument: String) -> Vec<String> {
        match argument.strip_prefix('-') {
            Some(letters) if !letters.starts_with('-') && letters.len() > 1 => {
                letters.chars().filter(|letter| *letter != 'n').map(|letter| format!("-{letter}")).collect()
            }
            _ if argument == "-n" => Vec::new(),
            _ => vec![argument],
        }
    }

    impl Options {
        /// The states to show: those that were named, listeners, all, or all but listeners.
        fn states(&self, protocol: Protocol) -> Vec<TcpState> {
            if !self.states.is_empty() {
                return self.states.clone();
            }
            // A UDP socket without a peer is what a TCP listener is.
            let listening = match protocol {
                Protocol::Udp => TcpState::Close,
                _ => TcpState::Listen,
            };
            let states = (1..=11).map(TcpState::from_number);
            let wanted = |state: &TcpState| match (self.listening, self.all) {
                (true, _) => *state == listening,
                (_, true) => true,
                _ => ![TcpState::Listen, TcpState::Close].contains(state),
            };
            states.filter(wanted).collect()
        }
    }

    fn show(options: &Options) -> io::Result<()> {
        let mut diag = if options.procfs { Diag::procfs()? } else { Diag::new()? };
        if diag.source() == Source::Procfs {
            eprintln!("mini_ss: /proc/net has no queue limits, cookies or memory, so these are missing");
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        writeln!(
            out,
            "{:<5} {:<10} {:>6} {:>6} {:>25} {:>25}",
            "Netid", "State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"
        )?;
        let mut filter = Filter::new().details(options.extended);
        if let Some(family) = options.family {
            filter = filter.family(family);
        }
        if let Some(port) = options.port {
            filter = filter.either_port(port);
        }
        // The first error of the output, since the rows come through a closure.
        let mut written = Ok(());
        let mut write = |line: String| {
            if written.is_ok() {
                written = writeln!(out, "{line}");
            }
        };
        if options.unix {
            let filter = UnixFilter::new().states(options.states(Protocol::Tcp));
            diag.each_unix(&filter, |row| write(unix_line(&row, options.extended)))?;
        }
        if options.udp {
            let filter = filter.clone().states(options.states(Protocol::Udp));
            diag.each_udp(&filter, |row| write(line(&row, options.extended)))?;
        }
        if options.tcp {
            let filter = filter.clone().states(options.states(Protocol::Tcp));
            diag.each_tcp(&filter, |row| write(line(&row, options.extended)))?;
        }
        written?;
        out.flush()
    }

    fn line(row: &Row, extended: bool) -> String {
        let netid = if row.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        // The columns of a listener show its queue, as in ss.
        let (recv_queue, send_queue) = match row.accept_queue {
            Some(queue) => (queue.waiting, queue.limit.unwrap_or_default()),
            None => (row.recv_queue, row.send_queue),
        };
        let mut line = format!(
            "{netid:<5} {:<10} {recv_queue:>6} {send_queue:>6} {:>25} {:>25}",
            row.state.ss_name(),
            address(row.local, row.interface),
            address(row.peer, None),
        );
        if extended {
            if let Some(Timer { kind, left, retransmits, .. }) = row.timer {
                let _ = write!(line, " timer:({},{},{retransmits})", kind.ss_name(), seconds(left));
            }
            let _ = write!(line, " uid:{} ino:{}", row.uid.unwrap_or_default(), row.inode);
            if let Some(cookie) = row.cookie {
                let _ = write!(line, " sk:{cookie:x}");
            }
            if let Some(shutdown) = row.shutdown {
                let arrow = match (shutdown.recv, shutdown.send) {
                    (false, false) => "<->",
                    (true, false) => "-->",
                    (false, true) => "<--",
                    (true, true) => "---",
                };
                let _ = write!(line, " {arrow}");
            }
            if row.v6only == Some(true) {
                line += " v6only:1";
            }
            if let Some(memory) = row.memory {
                let _ = write!(line, " {}", skmem(&memory));
            }
            if let Some(congestion) = &row.congestion {
                let _ = write!(line, " {congestion}");
            }
            if let Some(info) = &row.info {
                if let (Some(rtt), Some(rttvar)) = (info.rtt, info.rttvar) {
                    let (rtt, rttvar) = (rtt.as_secs_f64() * 1e3, rttvar.as_secs_f64() * 1e3);
                    let _ = write!(line, " rtt:{rtt:.3}/{rttvar:.3}");
                }
                if let Some(mss) = info.snd_mss {
                    let _ = write!(line, " mss:{mss} cwnd:{}", info.snd_cwnd);
                }
            }
        }
        line
    }

    fn unix_line(row: &UnixRow, extended: bool) -> String {
        let netid = match row.kind {
            SOCK_STREAM => "u_str",
            SOCK_DGRAM => "u_dgr",
            SOCK_SEQPACKET => "u_seq",
            _ => "u_???",
        };
        let (recv_queue, send_queue) = match row.accept_queue {
            Some(queue) => (queue.waiting, queue.limit.unwrap_or_default()),
            None => (row.recv_queue.unwrap_or_default(), row.send_queue.unwrap_or_default()),
        };
        let name = match &row.address {
            UnixAddress::Path(path) => path.display().to_string(),
            UnixAddress::Abstract(name) => format!("@{}", String::from_utf8_lossy(name)),
            _ => "*".to_owned(),
        };
        let local = format!("{} {}", name.escape_debug(), row.inode);
        let peer = format!("* {}", row.peer.unwrap_or_default());
        let mut line = format!(
            "{netid:<5} {:<10} {recv_queue:>6} {send_queue:>6} {local:>25} {peer:>25}",
            row.state.ss_name()
        );
        if extended {
            if let Some(uid) = row.uid {
                let _ = write!(line, " uid:{uid}");
            }
            if let Some(cookie) = row.cookie {
                let _ = write!(line, " sk:{cookie:x}");
            }
            if let Some(memory) = row.memory {
                let _ = write!(line, " {}", skmem(&memory));
            }
        }
        line
    }

    /// `*` for no port, and the interface as in `0.0.0.0%eth0:80`.
    fn address(address: SocketAddr, interface: Option<u32>) -> String {
        let port = match address.port() {
            0 => "*".to_owned(),
            port => port.to_string(),
        };
        let device = match interface.unwrap_or_default() {
            0 => String::new(),
            // It may have gone.
            number => format!("%{}", sock::if_indextoname(number).unwrap_or_else(|_| number.to_string())),
        };
        match address {
            SocketAddr::V4(address) => format!("{}{device}:{port}", address.ip()),
            SocketAddr::V6(address) => format!("[{}]{device}:{port}", address.ip()),
        }
    }

    fn seconds(time: std::time::Duration) -> String {
        format!("{:.2}s", time.as_secs_f64())
    }

    fn skmem(memory: &sock::MemInfo) -> String {
        format!(
            "skmem:(r{},rb{},t{},tb{},f{},w{},o{},bl{},d{})",
            memory.rmem_alloc,
            memory.rcvbuf,
            memory.wmem_alloc,
            memory.sndbuf,
            memory.fwd_alloc,
            memory.wmem_queued,
            memory.optmem,
            memory.backlog,
            memory.drops.unwrap_or_default(),
        )
    }
}
