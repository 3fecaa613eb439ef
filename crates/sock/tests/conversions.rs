//! The promise: a socket plugs into std's types and comes back, on the same descriptor.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use sock::{AF_INET, AF_INET6, AsRawFd, SOCK_DGRAM, SOCK_STREAM, Socket, create_server, socketpair};

#[test]
fn listeners_and_streams_there_and_back() {
    let listener = create_server(("127.0.0.1", 0)).unwrap();
    let number = listener.fileno();
    let theirs = TcpListener::from(listener);
    assert_eq!(theirs.as_raw_fd(), number);
    let mut client = TcpStream::connect(theirs.local_addr().unwrap()).unwrap();
    let listener = Socket::try_from(theirs).unwrap();
    assert_eq!((listener.family(), listener.kind()), (AF_INET, SOCK_STREAM));
    let (connection, _) = listener.accept().unwrap();
    client.write_all(b"there").unwrap();
    let mut stream = TcpStream::from(connection);
    let mut data = [0; 5];
    stream.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"there");
    Socket::try_from(stream).unwrap().sendall(b"back").unwrap();
    let client = Socket::try_from(client).unwrap();
    assert_eq!(client.recv(10).unwrap(), b"back");
}

#[test]
fn datagrams() {
    let Ok(theirs) = UdpSocket::bind("[::1]:0") else { return eprintln!("no IPv6 on this machine") };
    let sock = Socket::try_from(theirs).unwrap();
    assert_eq!((sock.family(), sock.kind()), (AF_INET6, SOCK_DGRAM));
    let theirs = UdpSocket::from(sock);
    theirs.send_to(b"x", theirs.local_addr().unwrap()).unwrap();
    assert_eq!(theirs.recv(&mut [0; 2]).unwrap(), 1);
}

#[cfg(unix)]
#[test]
fn unix_streams() {
    use std::os::unix::net::UnixStream;

    let (one, mut other) = UnixStream::pair().unwrap();
    let sock = Socket::try_from(one).unwrap();
    assert_eq!(sock.family(), sock::AF_UNIX);
    sock.sendall(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
    UnixStream::from(sock).write_all(b"y").unwrap();
    other.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_descriptor_that_is_no_socket_comes_back_with_the_error() {
    let file = tempfile::tempfile().unwrap();
    #[cfg(unix)]
    {
        let number = file.as_raw_fd();
        let failed = Socket::from_fd(file.into(), None, None, None).unwrap_err();
        assert_eq!(failed.fd.as_raw_fd(), number);
        assert_eq!(sock::errno_name(failed.error.raw_os_error().unwrap()), Some("ENOTSOCK"));
    }
    #[cfg(not(unix))]
    drop(file);
}

#[test]
fn given_arguments_are_not_checked() {
    let (ours, _theirs) = socketpair().unwrap();
    let unknown = sock::AddressFamily::from(999);
    let sock = Socket::from_fd(ours.detach(), Some(unknown), Some(SOCK_DGRAM), Some(7)).unwrap();
    assert_eq!((sock.family(), sock.kind(), sock.proto()), (unknown, SOCK_DGRAM, 7));
}

#[test]
fn reading_and_writing_through_std_traits() {
    let (mut ours, theirs) = socketpair().unwrap();
    ours.write_all(b"one").unwrap();
    write!(&ours, " {}", 2).unwrap();
    drop(ours);
    let mut text = String::new();
    (&theirs).read_to_string(&mut text).unwrap();
    assert_eq!(text, "one 2");
}

/// On a socket that keeps messages apart each send is one message.
#[cfg(target_os = "linux")]
#[test]
fn a_formatted_text_is_sent_once() {
    use sock::{AF_UNIX, SOCK_SEQPACKET, SocketWriter};
    use std::time::Duration;

    fn through(way: &str, write: impl Fn(Socket, usize)) {
        for length in [0, 10, 300, 20_000] {
            let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_SEQPACKET, 0).unwrap();
            theirs.settimeout(Duration::from_secs(20)).unwrap();
            write(ours, length);
            let expected = format!("<{:>length$}> of {} and {}\n", 1, 2, 3);
            assert!(theirs.recv(100_000).unwrap() == expected.as_bytes(), "{way}, {length} digits");
            assert_eq!(theirs.recv(100_000).unwrap(), b"", "{way}, {length} digits: more than one send");
        }
    }
    /// What `write!` does with it, whatever stands between.
    fn line(mut to: impl Write, length: usize) {
        writeln!(to, "<{:>length$}> of {} and {}", 1, 2, 3).unwrap();
        to.flush().unwrap();
    }
    through("Socket", line);
    through("&Socket", |sock, length| line(&sock, length));
    through("&mut dyn Write", |mut sock, length| line(&mut sock as &mut dyn Write, length));
    through("Box<dyn Write>", |sock, length| line(Box::new(sock) as Box<dyn Write>, length));
    through("BufWriter", |sock, length| line(std::io::BufWriter::with_capacity(100_000, sock), length));
    for bufsize in [0, 1, 20, 100_000] {
        let name = format!("SocketWriter of {bufsize}");
        through(&name, |sock, length| line(SocketWriter::new(&sock, bufsize), length));
        through(&name, |sock, length| line(&mut SocketWriter::new(&sock, bufsize), length));
    }
    through("SocketPair", |sock, length| line(sock.makefile_rwb(), length));
    // No text is no message.
    let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_SEQPACKET, 0).unwrap();
    write!(&ours, "").unwrap();
    write!(&ours, "{}", String::new()).unwrap();
    write!(&ours, "text").unwrap();
    assert_eq!(theirs.recv(100).unwrap(), b"text");
}
