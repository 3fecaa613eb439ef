//! The promise: a file arrives whole and in order, its position shows how much
//! went, and the timeout is for each wait.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sock::{AF_INET, SOCK_DGRAM, Socket, create_connection, socketpair};

/// A connected pair over loopback, the other end as another library has it.
fn connected() -> (Socket, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let ours = create_connection(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
    (ours, listener.accept().unwrap().0)
}

/// A file of the size, whose bytes depend on their offset, open at its start; it has no name.
fn file(size: usize) -> (File, Vec<u8>) {
    let data: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&data).unwrap();
    file.rewind().unwrap();
    (file, data)
}

/// What arrives of what `send` sends.
#[track_caller]
fn arrives(send: impl FnOnce(&Socket) -> io::Result<u64> + Send) -> (u64, Vec<u8>) {
    let (ours, mut theirs) = connected();
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut data = Vec::new();
            theirs.read_to_end(&mut data).unwrap();
            data
        });
        let sent = send(&ours).unwrap();
        drop(ours);
        (sent, reading.join().unwrap())
    })
}

#[test]
fn all_of_it_in_every_mode() {
    for timeout in [None, Some(Duration::from_secs(60))] {
        let (mut file, data) = file(10 << 20);
        let (sent, arrived) = arrives(|sock| {
            sock.settimeout(timeout)?;
            sock.sendfile(&file, 0, None)
        });
        assert_eq!(sent, data.len() as u64);
        assert!(arrived == data, "{timeout:?}");
        assert_eq!(file.stream_position().unwrap(), sent);
    }
}

#[test]
fn a_part_of_it() {
    let (mut file, data) = file(100_000);
    for (offset, count, part) in [
        (0, Some(5000), &data[..5000]),
        (70_000, None, &data[70_000..]),
        (5, Some(80_000), &data[5..80_005]),
        (99_000, Some(5000), &data[99_000..]),
    ] {
        file.rewind().unwrap();
        let (sent, arrived) = arrives(|sock| sock.sendfile(&file, offset, count));
        assert!(sent == part.len() as u64 && arrived == part, "{offset} {count:?}");
        assert_eq!(file.stream_position().unwrap(), offset + sent);

        let mut reader = Cursor::new(&data);
        let (sent, arrived) = arrives(|sock| sock.sendfile_from(&mut reader, offset, count));
        assert!(sent == part.len() as u64 && arrived == part, "{offset} {count:?} by send");
        assert_eq!(reader.position(), offset + sent);
    }
}

#[test]
fn nothing_of_an_empty_file_and_behind_the_end() {
    let (mut file, _) = file(10);
    file.seek(SeekFrom::Start(3)).unwrap();
    assert_eq!(arrives(|sock| sock.sendfile(&file, 10, None)), (0, Vec::new()));
    assert_eq!(file.stream_position().unwrap(), 3);
    let empty = tempfile::tempfile().unwrap();
    assert_eq!(arrives(|sock| sock.sendfile(&empty, 0, None)), (0, Vec::new()));
}

#[cfg(unix)]
#[test]
fn files_that_sendfile_cannot_read_are_read_and_sent() {
    let (reader, writer) = socketpair().unwrap();
    writer.sendall(b"through a pipe").unwrap();
    drop(writer);
    let pipe = File::from(reader.detach());
    assert_eq!(arrives(|sock| sock.sendfile(&pipe, 0, None)), (14, b"through a pipe".to_vec()));
}

#[test]
fn bad_arguments_are_named_and_nothing_is_sent() {
    let (file, _) = file(10);
    let (ours, _theirs) = socketpair().unwrap();
    let datagrams = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    let error = datagrams.sendfile(&file, 0, None).unwrap_err();
    assert_eq!(error.to_string(), "sendfile requires a SOCK_STREAM socket, not SOCK_DGRAM");
    assert!(
        ours.sendfile(&file, 0, 0).unwrap_err().to_string().contains("count must be a positive integer")
    );
    ours.setblocking(false).unwrap();
    assert!(ours.sendfile(&file, 0, None).unwrap_err().to_string().contains("non-blocking"));
    assert_eq!(ours.sendfile_from(&mut io::empty(), 0, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_peer_that_does_not_read_is_a_timeout_and_the_position_is_the_bytes_sent() {
    let (mut file, data) = file(32 << 20);
    let (ours, mut theirs) = connected();
    ours.settimeout(Duration::from_millis(100)).unwrap();
    assert_eq!(ours.sendfile(&file, 0, None).unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(ours);
    let position = file.stream_position().unwrap();
    let mut arrived = Vec::new();
    theirs.read_to_end(&mut arrived).unwrap();
    assert!(position > 0 && arrived == data[..position as usize]);
}

/// The whole takes longer than the timeout, each wait is shorter. Not over TCP, where a
/// window that is full may open again only seconds after there is room.
#[test]
fn the_timeout_is_for_each_wait() {
    let timeout = Duration::from_secs(2);
    let (file, data) = file(16 << 20);
    let (ours, theirs) = socketpair().unwrap();
    ours.settimeout(timeout).unwrap();
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            // Slow for as long as one deadline would last, then as fast as it goes.
            while let Ok(1..) = theirs.recv_into(&mut buffer) {
                if begin.elapsed() < timeout + timeout / 2 {
                    sock::poll(&mut [], Some(Duration::from_millis(30))).unwrap();
                }
            }
        });
        assert_eq!(ours.sendfile(&file, 0, None).unwrap(), data.len() as u64);
        drop(ours);
    });
    assert!(begin.elapsed() > timeout, "it was too quick to show anything");
}

#[test]
fn a_peer_that_is_gone_is_an_error_and_no_signal() {
    let (file, _) = file(8 << 20);
    let (ours, theirs) = connected();
    drop(theirs);
    let error = loop {
        match ours.sendfile(&file, 0, None) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}
