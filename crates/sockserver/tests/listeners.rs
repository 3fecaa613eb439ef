//! The promise: a server listens where it is told to, on one address or several, on
//! sockets it made or was given; the death of one listener is not that of the others;
//! and the paths of Unix sockets come and go with their server, never with another's.

mod support;

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use sock::{AF_INET6, Address, IPPROTO_IPV6, IPV6_V6ONLY, SHUT_RDWR, SOCK_DGRAM, SOCK_STREAM, Socket};
use sockserver::{
    Server, StreamContext, TCPServer, ThreadingTCPServer, ThreadingUDPServer, UDPServer,
    datagram_handler_fn, handler_fn, testing,
};

use support::{LIMIT, LOOPBACK, client_of, moment, rest_of, until_stats};

fn who(cx: &mut StreamContext<'_>) -> io::Result<()> {
    write!(cx.wfile, "hello {}", cx.client_address.ip().map_or(String::new(), |ip| ip.to_string()))
}

#[test]
fn several_addresses_are_one_server() {
    let server = ThreadingTCPServer::builder(handler_fn(who))
        .bind_all([("127.0.0.1", 0), ("127.0.0.2", 0), ("::1", 0)])
        .unwrap();
    let addresses = server.server_addresses().to_vec();
    assert_eq!(addresses.len(), 3);
    assert_eq!(*server.server_address(), addresses[0]);
    let server = testing::serve(server);
    for address in addresses.iter().chain(&addresses) {
        let expected = if address.family() == AF_INET6 { "hello ::1" } else { "hello 127.0.0.1" };
        assert_eq!(rest_of(&client_of(address)), expected);
    }
    let stats = until_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(stats.finished, 6);
}

#[test]
fn datagrams_come_from_several_addresses_too() {
    let server = ThreadingUDPServer::builder(datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet)));
    let server = server.bind_all([LOOPBACK, LOOPBACK]).unwrap();
    let addresses = server.server_addresses().to_vec();
    let _server = testing::serve(server);
    let client = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    for address in &addresses {
        client.sendto(b"hello", address).unwrap();
        let (answer, from) = client.recvfrom(100).unwrap();
        assert_eq!((&answer[..], &from), (&b"hello"[..], address), "through the socket it came by");
    }
}

#[test]
fn no_listener_starves_beside_a_busy_one() {
    let order = |serve: &dyn Fn(&TCPServer)| {
        let (tell, told) = mpsc::channel();
        let server = TCPServer::builder(handler_fn(move |cx| {
            let _ = tell.send(cx.request.socket().getsockname()?);
            if cx.server.stats().accepted == 4 { cx.server.request_shutdown() } else { Ok(()) }
        }));
        let server = server.bind_all([LOOPBACK, LOOPBACK]).unwrap();
        let addresses = server.server_addresses().to_vec();
        let crowd: Vec<Socket> = (0..20).map(|_| client_of(&addresses[0])).collect();
        let others = [client_of(&addresses[1]), client_of(&addresses[1])];
        serve(&server);
        drop((crowd, others));
        told.try_iter().map(|address| address == addresses[1]).collect::<Vec<_>>()
    };
    let loops = order(&|server| server.serve_forever().unwrap());
    assert_eq!(loops, [false, true, false, true], "in turns");
    let singles = order(&|server| (0..4).for_each(|_| server.handle_request().unwrap()));
    assert_eq!(singles, [false, true, false, true], "by single requests too");
}

#[test]
fn an_address_that_fails_closes_those_before_it() {
    let taken = sock::create_server(LOOPBACK).unwrap();
    let taken = taken.getsockname().unwrap();
    let free = Socket::new(sock::AF_INET, SOCK_STREAM, 0).unwrap();
    free.bind(LOOPBACK).unwrap();
    let address = free.getsockname().unwrap();
    drop(free);
    let server = TCPServer::builder(handler_fn(who)).bind_all([&address, &taken]);
    let error = server.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    TCPServer::new(&address, handler_fn(who)).expect("free again");
    let none = TCPServer::builder(handler_fn(who)).bind_all(Vec::<Address>::new());
    assert_eq!(none.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn one_listener_dies_and_the_others_go_on() {
    let server = ThreadingTCPServer::builder(handler_fn(who)).bind_all([LOOPBACK, LOOPBACK]).unwrap();
    let addresses = server.server_addresses().to_vec();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let _stop = support::StopAtEnd(server.handle());
        scope.spawn(|| {
            let _ = tell.send(server.serve_forever());
        });
        for address in &addresses {
            assert_eq!(rest_of(&client_of(address)), "hello 127.0.0.1");
        }
        server.socket().shutdown(SHUT_RDWR).unwrap();
        for _ in 0..5 {
            assert_eq!(rest_of(&client_of(&addresses[1])), "hello 127.0.0.1");
        }
        assert!(told.try_recv().is_err(), "it serves");
        #[cfg(target_os = "linux")]
        does_not_spin();
        server.shutdown().unwrap();
        told.recv_timeout(LIMIT).unwrap().unwrap();
    });
}

/// The process sleeps while nothing happens: a listener that is gone is not looked at.
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
    (0..300).for_each(|_| moment());
    let ticks = busiest() - before;
    assert!(ticks < 15, "{ticks} ticks of CPU for nothing");
}

#[test]
fn the_last_listener_ends_the_loop_with_its_error() {
    let server = ThreadingTCPServer::builder(handler_fn(who)).bind_all([LOOPBACK, LOOPBACK]).unwrap();
    let second = server.server_addresses()[1].clone();
    // Of the second only its number is known: another descriptor of it does.
    server.socket().shutdown(SHUT_RDWR).unwrap();
    let client = client_of(&second);
    server.handle_request().unwrap();
    assert_eq!(rest_of(&client), "hello 127.0.0.1");

    let one = TCPServer::new(LOOPBACK, handler_fn(who)).unwrap();
    one.socket().shutdown(SHUT_RDWR).unwrap();
    let error = one.serve_forever().unwrap_err();
    assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EINVAL"));
    assert!(error.to_string().contains(&one.server_address().to_string()), "{error}");
}

#[test]
fn sockets_that_are_bound_already_are_taken_over() {
    let (first, second) = (sock::create_server(LOOPBACK).unwrap(), sock::create_server(LOOPBACK).unwrap());
    let other = first.dup().unwrap();
    let addresses = [first.getsockname().unwrap(), second.getsockname().unwrap()];
    // A client that came before the server is served by it.
    let early = client_of(&addresses[0]);
    let server = ThreadingTCPServer::builder(handler_fn(who)).adopt([first, second]).unwrap();
    assert_eq!(server.server_addresses(), addresses);
    let server = testing::serve(server);
    assert_eq!(rest_of(&early), "hello 127.0.0.1");
    assert_eq!(rest_of(&client_of(&addresses[1])), "hello 127.0.0.1");
    drop(server);
    // Drained and closed, and yet the other holder of the socket still listens.
    let late = client_of(&addresses[0]);
    other.settimeout(LIMIT).unwrap();
    other.accept().unwrap().0.sendall(b"still here").unwrap();
    assert_eq!(rest_of(&late), "still here");
}

#[test]
fn a_bound_socket_that_does_not_listen_yet_is_made_to() {
    let bound = Socket::new(sock::AF_INET, SOCK_STREAM, 0).unwrap();
    bound.bind(LOOPBACK).unwrap();
    let server = testing::serve(TCPServer::builder(handler_fn(who)).adopt([bound]).unwrap());
    assert_eq!(rest_of(&client_of(server.address())), "hello 127.0.0.1");
}

#[test]
fn a_socket_of_another_kind_is_refused() {
    let refused = |made: io::Result<()>| {
        let error = made.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    let datagrams = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    let text = refused(TCPServer::builder(handler_fn(who)).adopt([datagrams]).map(drop));
    assert!(text.contains("SOCK_DGRAM") && text.contains("SOCK_STREAM"), "{text}");
    let stream = sock::create_server(LOOPBACK).unwrap();
    refused(UDPServer::builder(datagram_handler_fn(|_| Ok(()))).adopt([stream]).map(drop));
    refused(TCPServer::builder(handler_fn(who)).adopt([]).map(drop));
}

#[test]
fn a_server_for_any_address_takes_both_families_unless_told_not_to() {
    let port = |server: &TCPServer| server.server_address().port().unwrap();
    let both = TCPServer::new(("::", 0), handler_fn(who)).unwrap();
    assert_eq!(both.socket().getsockopt(IPPROTO_IPV6, IPV6_V6ONLY).unwrap(), 0);
    let at = port(&both);
    let both = testing::serve(both);
    let ask = |host: &str| sock::create_connection((host, at)).map(|client| rest_of(&client));
    assert_eq!(ask("::1").unwrap(), "hello ::1");
    assert_eq!(ask("127.0.0.1").unwrap(), "hello ::ffff:127.0.0.1");
    drop(both);

    let one = TCPServer::builder(handler_fn(who)).ipv6_only(true).bind(("::", 0)).unwrap();
    let at = port(&one);
    let _one = testing::serve(one);
    let ask = |host: &str| sock::create_connection((host, at)).map(|client| rest_of(&client));
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
        rest_of(&client_of(server.address()))
    }

    /// A socket whose server has been killed: nobody has unlinked its path.
    fn stale(path: &Path, kind: sock::SocketKind) {
        let dead = Socket::new(AF_UNIX, kind, 0).unwrap();
        dead.bind(path).unwrap();
        drop(dead);
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_socket());
    }

    #[test]
    fn a_path_goes_with_its_server() {
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
    fn its_mode_is_set_before_anybody_is_served() {
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

    /// Binds, and has a link in the place of the socket before anything else happens.
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
    fn its_mode_is_not_given_to_what_has_taken_the_place_of_the_socket() {
        let folder = folder();
        let (path, private) = (folder.path().join("socket"), folder.path().join("private"));
        fs::write(&private, "private").unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
        let server = UnixStreamServer::builder(handler_fn(|_| Ok(()))).hooks(Swapped(private.clone()));
        let error = server.unix_mode(0o666).bind(&path).unwrap_err();
        assert!(error.to_string().contains("another process has taken the name"), "{error}");
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "it is left where it is");
    }

    #[test]
    fn a_mode_that_cannot_be_had_is_an_error() {
        let folder = folder();
        // An override that opens the path wider than asked for.
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
    fn a_fifo_for_a_directory_is_an_error_at_once() {
        let folder = folder();
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(server_at(&fifo.join("socket")).map(drop)));
        let error = told.recv_timeout(LIMIT).expect("it does not wait for a writer").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{error}");
    }

    #[test]
    fn the_place_of_a_dead_server_is_taken() {
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
    fn of_servers_that_start_at_once_on_a_dead_ones_path_one_has_it() {
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

    /// Starts another server when its own is bound and does not listen yet.
    struct InBetween(std::path::PathBuf);

    impl sockserver::ServerHooks for InBetween {
        fn server_activate(&self, socket: &Socket, request_queue_size: i32) -> io::Result<()> {
            let error = server_at(&self.0).expect_err("taken");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
            socket.listen(request_queue_size)
        }
    }

    #[test]
    fn a_server_that_is_about_to_listen_is_alive() {
        let folder = folder();
        let path = folder.path().join("socket");
        let server = UnixStreamServer::builder(handler_fn(|cx| cx.wfile.write_all(b"served")));
        let server = server.hooks(InBetween(path.clone())).bind(&path).unwrap();
        assert_eq!(served_by(server), "served");
    }

    #[test]
    fn a_server_that_ends_leaves_its_successors_path() {
        let folder = folder();
        let path = folder.path().join("socket");
        for round in 0..400 {
            let last = server_at(&path).unwrap();
            let next = thread::scope(|scope| {
                scope.spawn(|| {
                    // One that has been drained listens no more, and may lose its path before
                    // it is closed.
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
            assert!(path.exists(), "the one that ended has taken the other's");
            drop(next);
        }
    }

    #[test]
    fn the_place_of_a_live_server_is_not() {
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
        assert_eq!(rest_of(&client_of(first.address())), "first", "and is not disturbed");
    }

    #[test]
    fn a_server_whose_queue_is_full_is_alive() {
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
            "both are left"
        );
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert_eq!(server_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_has_become_anothers_is_left_to_it() {
        let folder = folder();
        let path = folder.path().join("socket");
        let first = server_at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = testing::serve(server_at(&path).unwrap());
        drop(first);
        assert_eq!(rest_of(&client_of(second.address())), "served", "the second is still there");
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
    fn a_server_that_cannot_be_made_leaves_no_path() {
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
    fn the_context_knows_who_is_there() {
        let folder = folder();
        let (tell, told) = mpsc::channel();
        let handler = handler_fn(move |cx| {
            let _ = tell.send(cx.peer_credentials());
            Ok(())
        });
        let server = testing::serve(UnixStreamServer::new(folder.path().join("socket"), handler).unwrap());
        drop(client_of(server.address()));
        let peer = told.recv_timeout(LIMIT).unwrap().unwrap();
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
fn a_deadline_of_zero_for_a_call_is_refused_by_name() {
    let builder = || TCPServer::builder(sockserver::handler_fn(|_| Ok(())));
    let zero = std::time::Duration::ZERO;
    let error = builder().read_timeout(zero).bind(("127.0.0.1", 0)).unwrap_err();
    assert_eq!(error.to_string(), "read_timeout must not be zero (None disables it)");
    let error = builder().write_timeout(zero).bind(("127.0.0.1", 0)).unwrap_err();
    assert_eq!(error.to_string(), "write_timeout must not be zero (None disables it)");
}

#[test]
fn a_client_that_waited_before_its_listener_was_adopted_has_the_deadlines_too() {
    let listener = sock::create_server(LOOPBACK).unwrap();
    let client = client_of(&listener.getsockname().unwrap());
    client.sendall(b"half a line").unwrap();
    let builder =
        ThreadingTCPServer::builder(handler_fn(|cx| io::copy(&mut cx.rfile, &mut cx.wfile).map(drop)));
    let builder = builder.read_timeout(std::time::Duration::from_millis(100));
    let server = testing::serve(builder.adopt([listener]).unwrap());
    assert_eq!(rest_of(&client), "half a line");
    let stats = until_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(stats.timed_out.read, 1, "{stats}");
}
