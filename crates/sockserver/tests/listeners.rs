//! The promise: a server listens on one or several addresses, with sockets that it created or
//! adopted. If one listener fails, the others go on. A server creates and removes the path of its
//! Unix socket, and never removes that of another server.

mod support;

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use sock::{AF_INET6, Address, IPPROTO_IPV6, IPV6_V6ONLY, SHUT_RDWR, SOCK_DGRAM, SOCK_STREAM, Socket};
use sockserver::{
    Server, StreamContext, TCPServer, ThreadingTCPServer, ThreadingUDPServer, UDPServer,
    datagram_handler_fn, handler_fn, testing,
};

use support::{
    LIMIT, LOOPBACK, connect_to, datagram_client, has_ipv6, read_to_end, sleep_briefly, wait_for_stats,
    wait_until,
};

fn greet(cx: &mut StreamContext<'_>) -> io::Result<()> {
    write!(cx.wfile, "hello {}", cx.client_address.ip().map_or(String::new(), |ip| ip.to_string()))
}

#[test]
fn a_server_listens_on_several_addresses() {
    let mut bound = vec![("127.0.0.1", 0), ("127.0.0.2", 0)];
    if has_ipv6() {
        bound.push(("::1", 0));
    }
    let server = ThreadingTCPServer::builder(handler_fn(greet)).bind_all(bound.clone()).unwrap();
    let addresses = server.server_addresses().to_vec();
    assert_eq!(addresses.len(), bound.len());
    assert_eq!(*server.server_address(), addresses[0]);
    let server = testing::serve(server);
    for address in addresses.iter().chain(&addresses) {
        let expected = if address.family() == AF_INET6 { "hello ::1" } else { "hello 127.0.0.1" };
        assert_eq!(read_to_end(&connect_to(address)), expected);
    }
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(stats.finished, 2 * bound.len() as u64);
}

#[test]
fn a_datagram_server_receives_on_several_addresses() {
    let server = ThreadingUDPServer::builder(datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet)));
    let server = server.bind_all([LOOPBACK, LOOPBACK]).unwrap();
    let addresses = server.server_addresses().to_vec();
    let _server = testing::serve(server);
    let client = datagram_client(sock::AF_INET);
    for address in &addresses {
        client.sendto(b"hello", address).unwrap();
        let (answer, from) = client.recvfrom(100).unwrap();
        assert_eq!((&answer[..], &from), (&b"hello"[..], address), "the answer came from another socket");
    }
}

#[test]
fn a_busy_listener_does_not_starve_another() {
    let order = |serve: &dyn Fn(&TCPServer)| {
        let (sender, receiver) = mpsc::channel();
        let server = TCPServer::builder(handler_fn(move |cx| {
            let _ = sender.send(cx.request.socket().getsockname()?);
            if cx.server.stats().accepted == 4 { cx.server.request_shutdown() } else { Ok(()) }
        }));
        let server = server.bind_all([LOOPBACK, LOOPBACK]).unwrap();
        let addresses = server.server_addresses().to_vec();
        let crowd: Vec<Socket> = (0..20).map(|_| connect_to(&addresses[0])).collect();
        let others = [connect_to(&addresses[1]), connect_to(&addresses[1])];
        serve(&server);
        drop((crowd, others));
        receiver.try_iter().map(|address| address == addresses[1]).collect::<Vec<_>>()
    };
    let loops = order(&|server| server.serve_forever().unwrap());
    assert_eq!(loops, [false, true, false, true], "in turns");
    let singles = order(&|server| (0..4).for_each(|_| server.handle_request().unwrap()));
    assert_eq!(singles, [false, true, false, true], "handle_request starved a listener");
}

#[test]
fn a_failed_bind_closes_the_listeners_before_it() {
    let taken = sock::create_server(LOOPBACK).unwrap();
    let taken = taken.getsockname().unwrap();
    let free = Socket::new(sock::AF_INET, SOCK_STREAM, 0).unwrap();
    free.bind(LOOPBACK).unwrap();
    let address = free.getsockname().unwrap();
    drop(free);
    let server = TCPServer::builder(handler_fn(greet)).bind_all([&address, &taken]);
    let error = server.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    TCPServer::new(&address, handler_fn(greet)).expect("free again");
    let none = TCPServer::builder(handler_fn(greet)).bind_all(Vec::<Address>::new());
    assert_eq!(none.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_failed_listener_does_not_stop_the_others() {
    let server = ThreadingTCPServer::builder(handler_fn(greet)).bind_all([LOOPBACK, LOOPBACK]).unwrap();
    let addresses = server.server_addresses().to_vec();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let _stop = support::StopOnDrop(server.handle());
        scope.spawn(|| {
            let _ = sender.send(server.serve_forever());
        });
        for address in &addresses {
            assert_eq!(read_to_end(&connect_to(address)), "hello 127.0.0.1");
        }
        server.socket().shutdown(SHUT_RDWR).unwrap();
        for _ in 0..5 {
            assert_eq!(read_to_end(&connect_to(&addresses[1])), "hello 127.0.0.1");
        }
        assert!(receiver.try_recv().is_err(), "it serves");
        #[cfg(target_os = "linux")]
        does_not_spin();
        server.shutdown().unwrap();
        receiver.recv_timeout(LIMIT).unwrap().unwrap();
    });
}

/// Checks that the process uses no CPU time while it is idle: a disabled listener is not polled.
#[cfg(target_os = "linux")]
fn does_not_spin() {
    let busiest = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let time = |task: io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            if !stat.contains("(one_listener_d") {
                return None;
            }
            let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
            Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?)
        };
        tasks.filter_map(time).sum::<u64>()
    };
    let before = busiest();
    (0..300).for_each(|_| sleep_briefly());
    let ticks = busiest() - before;
    assert!(ticks < 15, "{ticks} ticks of CPU time while idle");
}

#[test]
fn the_last_listener_ends_the_loop_with_its_error() {
    let server = ThreadingTCPServer::builder(handler_fn(greet)).bind_all([LOOPBACK, LOOPBACK]).unwrap();
    let second = server.server_addresses()[1].clone();
    // The server owns the socket, so it is shut down through another descriptor.
    server.socket().shutdown(SHUT_RDWR).unwrap();
    let client = connect_to(&second);
    server.handle_request().unwrap();
    assert_eq!(read_to_end(&client), "hello 127.0.0.1");

    let one = TCPServer::new(LOOPBACK, handler_fn(greet)).unwrap();
    one.socket().shutdown(SHUT_RDWR).unwrap();
    let error = one.serve_forever().unwrap_err();
    assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EINVAL"));
    assert!(error.to_string().contains(&one.server_address().to_string()), "{error}");
}

#[test]
fn a_bound_socket_is_adopted() {
    let (first, second) = (sock::create_server(LOOPBACK).unwrap(), sock::create_server(LOOPBACK).unwrap());
    let other = first.dup().unwrap();
    let addresses = [first.getsockname().unwrap(), second.getsockname().unwrap()];
    // A client that was queued before the server existed is served.
    let early = connect_to(&addresses[0]);
    let server = ThreadingTCPServer::builder(handler_fn(greet)).adopt([first, second]).unwrap();
    assert_eq!(server.server_addresses(), addresses);
    let server = testing::serve(server);
    assert_eq!(read_to_end(&early), "hello 127.0.0.1");
    assert_eq!(read_to_end(&connect_to(&addresses[1])), "hello 127.0.0.1");
    drop(server);
    // The server is drained and closed, but the other descriptor of the socket still listens.
    let late = connect_to(&addresses[0]);
    other.settimeout(LIMIT).unwrap();
    other.accept().unwrap().0.sendall(b"still here").unwrap();
    assert_eq!(read_to_end(&late), "still here");
}

#[test]
fn adopt_makes_a_bound_socket_listen() {
    let bound = Socket::new(sock::AF_INET, SOCK_STREAM, 0).unwrap();
    bound.bind(LOOPBACK).unwrap();
    let server = testing::serve(TCPServer::builder(handler_fn(greet)).adopt([bound]).unwrap());
    assert_eq!(read_to_end(&connect_to(server.address())), "hello 127.0.0.1");
}

#[test]
fn a_socket_of_another_kind_is_refused() {
    let refused = |made: io::Result<()>| {
        let error = made.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    let datagrams = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    let text = refused(TCPServer::builder(handler_fn(greet)).adopt([datagrams]).map(drop));
    assert!(text.contains("SOCK_DGRAM") && text.contains("SOCK_STREAM"), "{text}");
    let stream = sock::create_server(LOOPBACK).unwrap();
    refused(UDPServer::builder(datagram_handler_fn(|_| Ok(()))).adopt([stream]).map(drop));
    refused(TCPServer::builder(handler_fn(greet)).adopt([]).map(drop));
}

#[test]
fn a_server_on_the_unspecified_ipv6_address_accepts_ipv4_by_default() {
    if !has_ipv6() {
        return;
    }
    let port = |server: &TCPServer| server.server_address().port().unwrap();
    let both = TCPServer::new(("::", 0), handler_fn(greet)).unwrap();
    assert_eq!(both.socket().getsockopt(IPPROTO_IPV6, IPV6_V6ONLY).unwrap(), 0);
    let at = port(&both);
    let both = testing::serve(both);
    let ask = |host: &str| sock::create_connection((host, at)).map(|client| read_to_end(&client));
    assert_eq!(ask("::1").unwrap(), "hello ::1");
    assert_eq!(ask("127.0.0.1").unwrap(), "hello ::ffff:127.0.0.1");
    drop(both);

    let one = TCPServer::builder(handler_fn(greet)).ipv6_only(true).bind(("::", 0)).unwrap();
    let at = port(&one);
    let _one = testing::serve(one);
    let ask = |host: &str| sock::create_connection((host, at)).map(|client| read_to_end(&client));
    assert_eq!(ask("::1").unwrap(), "hello ::1");
    assert_eq!(ask("127.0.0.1").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use sock::AF_UNIX;
    use sockserver::{ThreadingUnixStreamServer, UnixDatagramServer, UnixStreamServer};
    use tempfile::TempDir;

    use super::*;

    fn folder() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn server_at(path: &Path) -> io::Result<UnixStreamServer> {
        UnixStreamServer::new(path, handler_fn(|cx| cx.wfile.write_all(b"served")))
    }

    fn served_by<K: sockserver::kind::Kind, M: sockserver::MixIn>(server: Server<K, M>) -> String {
        let server = testing::serve(server);
        read_to_end(&connect_to(server.address()))
    }

    /// Creates a socket file whose server has died without unlinking it.
    fn stale(path: &Path, kind: sock::SocketKind) {
        let dead = Socket::new(AF_UNIX, kind, 0).unwrap();
        dead.bind(path).unwrap();
        drop(dead);
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_socket());
    }

    #[test]
    fn a_path_is_removed_with_its_server() {
        let folder = folder();
        let path = folder.path().join("socket");
        assert_eq!(served_by(server_at(&path).unwrap()), "served");
        assert!(!path.exists());
        drop(server_at(&path).unwrap());
        assert!(!path.exists(), "dropped");
        server_at(&path).unwrap().server_close().unwrap();
        assert!(!path.exists(), "closed");
    }

    #[test]
    fn the_mode_is_set_before_the_first_client_is_served() {
        let folder = folder();
        for mode in [0o600, 0o660, 0o777] {
            let path = folder.path().join(format!("{mode:o}"));
            let server =
                UnixStreamServer::builder(handler_fn(|_| Ok(()))).unix_mode(mode).bind(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            drop(server);
            let handler = datagram_handler_fn(|_| Ok(()));
            let server = UnixDatagramServer::builder(handler).unix_mode(mode).bind(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            drop(server);
        }
    }

    /// Binds the socket and replaces it by a symbolic link at once.
    struct Swapped(std::path::PathBuf);

    impl sockserver::ServerHooks for Swapped {
        fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
            socket.bind(address)?;
            let path = address.path().expect("a path");
            fs::remove_file(path)?;
            symlink(&self.0, path)
        }
    }

    #[test]
    fn a_file_that_replaces_the_socket_does_not_get_the_mode() {
        let folder = folder();
        let (path, private) = (folder.path().join("socket"), folder.path().join("private"));
        fs::write(&private, "private").unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
        let server = UnixStreamServer::builder(handler_fn(|_| Ok(()))).hooks(Swapped(private.clone()));
        let error = server.unix_mode(0o666).bind(&path).unwrap_err();
        assert!(error.to_string().contains("another process has replaced the new socket"), "{error}");
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "the link was removed");
    }

    #[test]
    fn a_mode_that_cannot_be_set_is_an_error() {
        let folder = folder();
        // A hook that gives the path more permissions than requested.
        struct Wider;
        impl sockserver::ServerHooks for Wider {
            fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
                socket.bind(address)?;
                fs::set_permissions(address.path().expect("a path"), fs::Permissions::from_mode(0o666))
            }
        }
        let path = folder.path().join("socket");
        let server = UnixStreamServer::builder(handler_fn(|_| Ok(()))).hooks(Wider).unix_mode(0o600);
        let error = server.bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        assert!(!path.exists());

        let make = || UnixStreamServer::builder(handler_fn(|_| Ok(()))).unix_mode(0o600);
        let bound = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
        bound.bind(&path).unwrap();
        assert_eq!(make().adopt([bound]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        #[cfg(target_os = "linux")]
        {
            let name = format!("\0sockserver-{}-mode", std::process::id());
            assert_eq!(make().bind(name.as_bytes()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_fifo_in_place_of_the_directory_is_an_error_at_once() {
        let folder = folder();
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(server_at(&fifo.join("socket")).map(drop)));
        let error = receiver.recv_timeout(LIMIT).expect("bind blocks on the FIFO").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{error}");
    }

    #[test]
    fn a_stale_path_is_replaced() {
        let folder = folder();
        let path = folder.path().join("socket");
        stale(&path, SOCK_STREAM);
        assert_eq!(served_by(server_at(&path).unwrap()), "served");
        assert!(!path.exists());
        stale(&path, SOCK_DGRAM);
        let server = UnixDatagramServer::new(&path, datagram_handler_fn(|_| Ok(()))).unwrap();
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn one_of_several_servers_that_start_at_once_gets_a_stale_path() {
        const STARTING: usize = 4;
        let folder = folder();
        for round in 0..100 {
            let path = folder.path().join(format!("socket {round}"));
            stale(&path, SOCK_STREAM);
            let start = std::sync::Barrier::new(STARTING);
            let mut servers: Vec<UnixStreamServer> = thread::scope(|scope| {
                let starting = [(); STARTING].map(|()| {
                    scope.spawn(|| {
                        start.wait();
                        server_at(&path)
                    })
                });
                let made = starting.map(|starting| starting.join().unwrap());
                let others = made.iter().filter_map(|made| made.as_ref().err());
                assert!(others.clone().all(|error| error.kind() == io::ErrorKind::AddrInUse), "{made:?}");
                made.into_iter().filter_map(Result::ok).collect()
            });
            assert_eq!(servers.len(), 1, "round {round}");
            assert_eq!(served_by(servers.remove(0)), "served");
            assert!(!path.exists());
        }
    }

    /// A lock that another program holds on a directory or a file.
    fn flock(path: &Path, operation: rustix::fs::FlockOperation) -> fs::File {
        let file = fs::File::open(path).unwrap();
        rustix::fs::flock(&file, operation).unwrap();
        file
    }

    #[test]
    fn a_lock_on_the_directory_does_not_keep_a_stale_path() {
        const STARTING: usize = 4;
        let folder = folder();
        for operation in [rustix::fs::FlockOperation::LockExclusive, rustix::fs::FlockOperation::LockShared]
        {
            let _lock = flock(folder.path(), operation);
            // Each round would wait so long for the lock.
            let lock_timeout = std::time::Duration::from_secs(1);
            let mut late = 0;
            for round in 0..50 {
                let path = folder.path().join(format!("socket {round}"));
                stale(&path, SOCK_STREAM);
                let start = std::sync::Barrier::new(STARTING);
                let begin = std::time::Instant::now();
                let mut servers: Vec<UnixStreamServer> = thread::scope(|scope| {
                    let starting = [(); STARTING].map(|()| {
                        scope.spawn(|| {
                            start.wait();
                            server_at(&path).ok()
                        })
                    });
                    starting.into_iter().filter_map(|starting| starting.join().unwrap()).collect()
                });
                assert_eq!(servers.len(), 1, "round {round}");
                assert_eq!(served_by(servers.remove(0)), "served");
                // A busy machine delays some rounds, but not all.
                late += usize::from(begin.elapsed() >= lock_timeout);
                assert!(late < 10, "{late} of {} rounds waited for the lock", round + 1);
                assert!(!path.exists());
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a file was left");
    }

    #[test]
    fn a_file_in_place_of_the_lock_file_does_not_keep_a_stale_path() {
        let folder = folder();
        let path = folder.path().join("socket");
        let lock = folder.path().join(format!(".sockserver-{}.lock", rustix::process::geteuid().as_raw()));
        let private = folder.path().join("private");
        fs::write(&private, "private").unwrap();
        type Make = fn(&Path, &Path) -> io::Result<Option<fs::File>>;
        let obstacles: [(&str, Make); 6] = [
            ("a link", |lock, private| symlink(private, lock).map(|()| None)),
            ("a link to nothing", |lock, _| symlink("/absent/file", lock).map(|()| None)),
            ("a directory", |lock, _| fs::create_dir(lock).map(|()| None)),
            ("a FIFO", |lock, _| {
                assert!(std::process::Command::new("mkfifo").arg(lock).status()?.success());
                Ok(None)
            }),
            ("a file of all users", |lock, _| {
                fs::write(lock, "")?;
                fs::set_permissions(lock, fs::Permissions::from_mode(0o666))?;
                Ok(Some(flock(lock, rustix::fs::FlockOperation::LockExclusive)))
            }),
            // Like a server that was stopped in the middle.
            ("a locked file", |lock, _| {
                fs::write(lock, "")?;
                fs::set_permissions(lock, fs::Permissions::from_mode(0o600))?;
                Ok(Some(flock(lock, rustix::fs::FlockOperation::LockExclusive)))
            }),
        ];
        for (what, make) in obstacles {
            let held = make(&lock, &private).unwrap();
            stale(&path, SOCK_STREAM);
            let begin = std::time::Instant::now();
            assert_eq!(served_by(server_at(&path).expect(what)), "served", "{what}");
            assert!(begin.elapsed() < LIMIT, "{what}: {:?}", begin.elapsed());
            assert!(!path.exists());
            drop(held);
            assert!(fs::symlink_metadata(&lock).is_ok(), "{what} was removed");
            let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
        }
        // A file that a killed server has left is used and removed.
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
        stale(&path, SOCK_STREAM);
        assert_eq!(served_by(server_at(&path).unwrap()), "served");
        assert!(!lock.exists());
        assert_eq!(fs::read_to_string(&private).unwrap(), "private");
    }

    #[test]
    fn the_path_of_a_server_that_drains_is_not_taken_over() {
        let folder = folder();
        let path = folder.path().join("socket");
        let (entered, entries) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let left = std::sync::Mutex::new(left);
        let handler = handler_fn(move |cx| {
            entered.send(()).unwrap();
            let _ = left.lock().unwrap().recv_timeout(LIMIT);
            cx.wfile.write_all(b"last")
        });
        let first = testing::serve(ThreadingUnixStreamServer::new(&path, handler).unwrap());
        let client = connect_to(first.address());
        entries.recv_timeout(LIMIT).unwrap();
        assert_eq!(server_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let handle = first.handle().clone();
        let drain = thread::spawn(move || handle.drain(LIMIT));
        let connects = || Socket::new(AF_UNIX, SOCK_STREAM, 0).and_then(|late| late.connect(&path));
        wait_until("new clients are refused", || connects().is_err());
        assert_eq!(connects().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(server_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(leave);
        assert_eq!(read_to_end(&client), "last");
        assert!(drain.join().unwrap().unwrap().aborted.is_empty());
        drop(first);
        assert_eq!(served_by(server_at(&path).unwrap()), "served");
    }

    #[test]
    fn a_start_on_the_path_of_a_running_server_makes_no_connection() {
        let folder = folder();
        let path = folder.path().join("socket");
        let first = server_at(&path).unwrap();
        for _ in 0..3 {
            assert_eq!(server_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
        assert_eq!(served_by(first), "served");
        let datagrams = UnixDatagramServer::new(&path, datagram_handler_fn(|_| Ok(()))).unwrap();
        assert_eq!(server_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(datagrams);
    }

    #[test]
    fn a_path_that_ends_with_a_slash_removes_nothing() {
        let folder = folder();
        let path = folder.path().join("socket");
        stale(&path, SOCK_STREAM);
        for end in ["socket/", "socket/."] {
            server_at(&folder.path().join(end)).unwrap_err();
            assert!(path.exists(), "{end}");
        }
    }

    /// Starts another server while its own socket is bound and does not listen yet.
    struct InBetween(std::path::PathBuf);

    impl sockserver::ServerHooks for InBetween {
        fn server_activate(&self, socket: &Socket, request_queue_size: i32) -> io::Result<()> {
            let error = server_at(&self.0).expect_err("taken");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
            socket.listen(request_queue_size)
        }
    }

    #[test]
    fn a_bound_socket_that_does_not_listen_yet_is_not_stale() {
        let folder = folder();
        let path = folder.path().join("socket");
        let server = UnixStreamServer::builder(handler_fn(|cx| cx.wfile.write_all(b"served")));
        let server = server.hooks(InBetween(path.clone())).bind(&path).unwrap();
        assert_eq!(served_by(server), "served");
    }

    #[test]
    fn a_server_does_not_remove_its_successors_path() {
        let folder = folder();
        let path = folder.path().join("socket");
        for round in 0..400 {
            let last = server_at(&path).unwrap();
            let next = thread::scope(|scope| {
                scope.spawn(|| {
                    // A drained server no longer listens, but its path belongs to it until it is
                    // closed.
                    if round % 2 == 0 {
                        let _ = last.drain(std::time::Duration::ZERO).unwrap();
                    }
                    drop(last);
                });
                let mut next = server_at(&path);
                while next.is_err() {
                    next = server_at(&path);
                }
                next.unwrap()
            });
            assert!(path.exists(), "the closed server removed the path of the other");
            drop(next);
        }
    }

    #[test]
    fn the_path_of_a_running_server_is_not_replaced() {
        let folder = folder();
        let path = folder.path().join("socket");
        let first = testing::serve(
            ThreadingUnixStreamServer::new(&path, handler_fn(|cx| cx.wfile.write_all(b"first"))).unwrap(),
        );
        let before = fs::metadata(&path).unwrap().ino();
        let error = server_at(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EADDRINUSE"));
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
        assert_eq!(
            read_to_end(&connect_to(first.address())),
            "first",
            "the running server does not answer"
        );
    }

    #[test]
    fn a_server_with_a_full_queue_is_not_stale() {
        let folder = folder();
        let path = folder.path().join("socket");
        let busy = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
        busy.bind(&path).unwrap();
        busy.listen(0).unwrap();
        let mut clients = Vec::new();
        loop {
            let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
            client.setblocking(false).unwrap();
            if client.connect(&path).is_err() {
                break;
            }
            clients.push(client);
        }
        assert_eq!(server_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let folder = folder();
        let (path, link) = (folder.path().join("socket"), folder.path().join("link"));
        stale(&path, SOCK_STREAM);
        symlink(&path, &link).unwrap();
        assert_eq!(server_at(&link).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(
            fs::symlink_metadata(&path).is_ok() && fs::symlink_metadata(&link).is_ok(),
            "a file was removed"
        );
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_not_replaced() {
        let folder = folder();
        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert_eq!(server_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_belongs_to_another_file_is_not_removed() {
        let folder = folder();
        let path = folder.path().join("socket");
        let first = server_at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = testing::serve(server_at(&path).unwrap());
        drop(first);
        assert_eq!(read_to_end(&connect_to(second.address())), "served", "the second socket was removed");
        drop(second);
        assert!(!path.exists());

        let third = server_at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(third);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        let fourth = server_at(&folder.path().join("other")).unwrap();
        fs::remove_file(folder.path().join("other")).unwrap();
        drop(fourth);
    }

    #[test]
    fn a_server_that_cannot_be_created_leaves_no_path() {
        let folder = folder();
        let path = folder.path().join("socket");
        let taken = folder.path().join("file");
        fs::write(&taken, "precious").unwrap();
        let made = UnixStreamServer::builder(handler_fn(|_| Ok(()))).bind_all([&path, &taken]);
        assert_eq!(made.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(!path.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_names_have_no_path() {
        let name = format!("\0sockserver-{}-abstract", std::process::id());
        let handler = || handler_fn(|cx| cx.wfile.write_all(b"served"));
        let server = UnixStreamServer::new(name.as_bytes(), handler()).unwrap();
        let again = UnixStreamServer::new(name.as_bytes(), handler()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(served_by(server), "served");
        drop(UnixStreamServer::new(name.as_bytes(), handler()).expect("free again"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_context_has_the_peers_credentials() {
        let folder = folder();
        let (sender, receiver) = mpsc::channel();
        let handler = handler_fn(move |cx| {
            let _ = sender.send(cx.peer_credentials());
            Ok(())
        });
        let server = testing::serve(UnixStreamServer::new(folder.path().join("socket"), handler).unwrap());
        drop(connect_to(server.address()));
        let peer = receiver.recv_timeout(LIMIT).unwrap().unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        assert_eq!(peer.pid.map(|pid| pid as u32), Some(std::process::id()));
        assert_eq!((peer.uid, peer.gid), (uid, gid));
    }
}

#[cfg(unix)]
#[test]
fn a_socket_of_another_family_is_not_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let unix = Socket::new(sock::AF_UNIX, sock::SOCK_STREAM, 0).unwrap();
    unix.bind(folder.path().join("socket")).unwrap();
    let error = TCPServer::builder(sockserver::handler_fn(|_| Ok(()))).adopt([unix]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
}

#[test]
fn a_read_or_write_timeout_of_zero_is_an_error() {
    let builder = || TCPServer::builder(sockserver::handler_fn(|_| Ok(())));
    let zero = std::time::Duration::ZERO;
    let error = builder().read_timeout(zero).bind(("127.0.0.1", 0)).unwrap_err();
    assert_eq!(error.to_string(), "read_timeout must not be zero (None disables it)");
    let error = builder().write_timeout(zero).bind(("127.0.0.1", 0)).unwrap_err();
    assert_eq!(error.to_string(), "write_timeout must not be zero (None disables it)");
}

#[test]
fn deadlines_apply_to_a_client_queued_before_its_listener_was_adopted() {
    let listener = sock::create_server(LOOPBACK).unwrap();
    let client = connect_to(&listener.getsockname().unwrap());
    client.sendall(b"half a line").unwrap();
    let builder =
        ThreadingTCPServer::builder(handler_fn(|cx| io::copy(&mut cx.rfile, &mut cx.wfile).map(drop)));
    let builder = builder.read_timeout(std::time::Duration::from_millis(100));
    let server = testing::serve(builder.adopt([listener]).unwrap());
    assert_eq!(read_to_end(&client), "half a line");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(stats.timed_out.read, 1, "{stats}");
}
