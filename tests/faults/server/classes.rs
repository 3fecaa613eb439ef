//! The classes, by name.

use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use sock::Address;
use sockserver::kind::{Datagram, Family, Inet, Kind, Stream, Unix};
use sockserver::{
    Builder, DatagramServer, ForkingMixIn, MixIn, PreforkMixIn, SelectorMixIn, Sequential, StreamServer,
    ThreadPoolMixIn, ThreadingMixIn, WhenFull, WhenQueueFull,
};

use crate::commands::{Lines, Packets};
use crate::options::Options;
use crate::report::{self, FailingStart, Plain};

pub(crate) fn run(options: &Options) -> io::Result<ExitCode> {
    let forking = || {
        let mixin = ForkingMixIn::new();
        options.number("max_children").map_or(mixin, |number| ForkingMixIn::new().max_children(number))
    };
    match options.class.as_str() {
        "tcp" => stream::<Inet, _>(options, Sequential),
        "threading" => stream::<Inet, _>(options, ThreadingMixIn::new()),
        "forking" => stream::<Inet, _>(options, forking()),
        "selector" => stream::<Inet, _>(options, selector(options)),
        "pool" => stream::<Inet, _>(options, pool(options)),
        "prefork" => stream::<Inet, _>(options, prefork(options)),
        "unix" => stream::<Unix, _>(options, Sequential),
        "threading-unix" => stream::<Unix, _>(options, ThreadingMixIn::new()),
        "forking-unix" => stream::<Unix, _>(options, forking()),
        "udp" => datagram::<Inet, _>(options, Sequential),
        "threading-udp" => datagram::<Inet, _>(options, ThreadingMixIn::new()),
        "forking-udp" => datagram::<Inet, _>(options, forking()),
        "unix-dgram" => datagram::<Unix, _>(options, Sequential),
        other => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no class {other}"))),
    }
}

fn selector(options: &Options) -> SelectorMixIn {
    let mut mixin = SelectorMixIn::new();
    if let Some(workers) = options.number("workers") {
        mixin = mixin.workers(workers);
    }
    if let Some(number) = options.number("max_workers") {
        mixin = mixin.max_workers(number);
    }
    mixin
}

fn pool(options: &Options) -> ThreadPoolMixIn {
    let mixin = ThreadPoolMixIn::new().workers(options.number("workers").unwrap_or(20));
    let when_full = if options.flag("refuse") { WhenQueueFull::Refuse } else { WhenQueueFull::Wait };
    match options.number("jobs") {
        Some(length) => mixin.queue(length, when_full),
        None => mixin,
    }
}

fn prefork(options: &Options) -> PreforkMixIn {
    let mut mixin = PreforkMixIn::new().workers(options.number("workers").unwrap_or(20));
    if let Some(number) = options.number("max_requests") {
        mixin = mixin.max_requests(number as u64, options.number("jitter").unwrap_or(0) as u64);
    }
    if let Some(Some(heartbeat)) = options.deadline("heartbeat") {
        mixin = mixin.heartbeat(heartbeat);
    }
    mixin
}

fn stream<F: Family, M: MixIn + Default>(options: &Options, mixin: M) -> io::Result<ExitCode> {
    let mut builder = StreamServer::<F, M>::builder(Lines::default);
    if let Some(deadline) = options.deadline("wrap") {
        builder = builder.wrap_timeout(deadline);
    }
    if let Some(deadline) = options.deadline("first_byte") {
        builder = builder.first_byte_timeout(deadline);
    }
    if let Some(deadline) = options.deadline("idle") {
        builder = builder.idle_timeout(deadline);
    }
    if let Some(deadline) = options.deadline("read") {
        builder = builder.read_timeout(deadline);
    }
    if let Some(deadline) = options.deadline("write") {
        builder = builder.write_timeout(deadline);
    }
    if let Some(deadline) = options.deadline("request") {
        builder = builder.request_timeout(deadline);
    }
    if let Some(Some(limit)) = options.deadline("linger") {
        builder = builder.linger_timeout(limit);
    }
    if let Some(size) = options.number("queue") {
        builder = builder.request_queue_size(i32::try_from(size).expect("a queue"));
    }
    builder = builder.max_connections_per_ip(options.number("per_ip"));
    if options.flag("handshake") {
        builder = builder.wrap_request(report::handshake);
    }
    builder = common::<Stream<F>, M>(builder, options, mixin);
    serve(builder, options)
}

fn datagram<F: Family, M: MixIn + Default>(options: &Options, mixin: M) -> io::Result<ExitCode> {
    let mut builder = DatagramServer::<F, M>::builder(|| Packets);
    if let Some(size) = options.number("packet") {
        builder = builder.max_packet_size(size);
    }
    builder = common::<Datagram<F>, M>(builder, options, mixin);
    serve(builder, options)
}

fn common<K: Kind, M: MixIn>(mut builder: Builder<K, M>, options: &Options, mixin: M) -> Builder<K, M> {
    let forks = mixin.forks();
    builder = builder.mixin(mixin).allow_reuse_address(true);
    builder = if forks {
        builder
            .hooks(FailingStart::new(options.text("boot")))
            .service_actions(|_| report::print_stats_if_requested())
            .poll_interval(Duration::from_millis(100))
    } else {
        builder.hooks(Plain)
    };
    if let Some(number) = options.number("max") {
        builder = builder.max_connections(number);
    }
    if options.flag("refuse") {
        builder = builder.when_full(WhenFull::Refuse);
    }
    if let Some(Some(limit)) = options.deadline("close") {
        builder = builder.close_timeout(limit);
    }
    match options.deadline("drain") {
        Some(Some(limit)) => builder.drain_on_signals(limit),
        _ => builder,
    }
}

fn serve<K: Kind, M: MixIn>(builder: Builder<K, M>, options: &Options) -> io::Result<ExitCode> {
    let address = address::<K::Family>(&options.address)?;
    let server = builder.bind_all(vec![address; options.number("listeners").unwrap_or(1)])?;
    // A child of the program itself, which the server must not reap.
    let own = options.flag("own_child").then(|| Command::new("true").spawn()).transpose()?;
    if let Some(child) = &own {
        println!("child pid={}", child.id());
    }
    report::ready(&server, options)?;
    let served = server.serve_forever();
    let drained = server.drained();
    let handle = server.handle();
    if let Err(error) = &served {
        println!("failed kind={:?} error={error}", error.kind());
    }
    if let Some(report) = &drained {
        report::drained(report);
    }
    let closed = server.server_close();
    report::stats(&handle);
    if let Some(mut child) = own {
        println!("own status={}", child.wait()?.code().unwrap_or(-1));
    }
    served.and(closed)?;
    let aborted = drained.is_some_and(|report| !report.aborted.is_empty());
    Ok(if aborted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Parses `HOST:PORT` or a path.
fn address<F: Family>(text: &str) -> io::Result<Address> {
    match text.rsplit_once(':') {
        Some((host, port)) => F::address(&(host, port.parse::<u16>().expect("a port"))),
        None => F::address(&std::path::Path::new(text)),
    }
}
