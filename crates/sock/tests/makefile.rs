//! A socket as a file: what was received is read once and in order, what was
//! written arrives once and in order, and a buffer only changes in how many
//! calls. With buffer size 0 nothing is read ahead and nothing is held back.
#![cfg_attr(windows, allow(unused, reason = "some tests are not for it"))]

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use sock::{
    DEFAULT_BUFFER_SIZE, ReadBuffer, SHUT_RD, SHUT_WR, SO_SNDBUF, SOL_SOCKET, Shutdown, Socket,
    SocketReader, SocketWriter, StreamSocket, socketpair,
};

/// When a read or write that ought to go on is given up.
const LIMIT: Duration = Duration::from_secs(30);

/// A pair whose reads and writes do not wait for ever.
fn pair() -> (Socket, Socket) {
    let (ours, theirs) = socketpair().unwrap();
    ours.settimeout(LIMIT).unwrap();
    theirs.settimeout(LIMIT).unwrap();
    (ours, theirs)
}

/// A stream that writes down what a file asks of it: `recv 8192`.
struct Witness {
    sock: Socket,
    calls: Mutex<Vec<String>>,
}

impl Witness {
    fn pair() -> (Witness, Socket) {
        let (sock, peer) = pair();
        (Witness { sock, calls: Mutex::default() }, peer)
    }

    fn saw(&self, call: &str, size: usize) {
        self.calls.lock().unwrap().push(format!("{call} {size}"));
    }

    /// The calls since last time, separated by commas.
    fn calls(&self) -> String {
        std::mem::take(&mut *self.calls.lock().unwrap()).join(", ")
    }
}

impl StreamSocket for Witness {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.saw("recv", buffer.len());
        self.sock.recv_into(buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.saw("send", data.len());
        self.sock.send(data)
    }

    fn sendall(&self, data: &[u8]) -> io::Result<()> {
        self.saw("sendall", data.len());
        self.sock.sendall(data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.sock.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        &self.sock
    }
}

#[track_caller]
fn read_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

/// What is there to be received, without waiting for more.
#[track_caller]
fn arrived(sock: &Socket) -> Vec<u8> {
    let timeout = sock.gettimeout();
    sock.setblocking(false).unwrap();
    let mut arrived = Vec::new();
    loop {
        match sock.recv(100_000) {
            Ok(data) if data.is_empty() => break,
            Ok(data) => arrived.extend(data),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sock.settimeout(timeout).unwrap();
    arrived
}

/// Bytes of which no part is like another.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 % 251) as u8).collect()
}

#[test]
fn a_reader_reads_lines_to_the_end_of_file() {
    for bufsize in [0, 1, 2, 7, DEFAULT_BUFFER_SIZE] {
        let (ours, theirs) = pair();
        theirs.sendall(b"one\n\nthree\nno newline").unwrap();
        theirs.shutdown(SHUT_WR).unwrap();
        let mut reader = SocketReader::new(&ours, bufsize);
        let lines: Vec<_> = (0..6).map(|_| read_line(&mut reader)).collect();
        assert_eq!(lines, ["one\n", "\n", "three\n", "no newline", "", ""], "buffer size {bufsize}");
    }
}

#[test]
fn a_reader_reads_every_byte_once_whatever_the_sizes() {
    let data = pattern(20_000);
    for bufsize in [0, 1, 100, DEFAULT_BUFFER_SIZE] {
        for size in [1, 99, 100, 101, 10_000] {
            let (ours, theirs) = pair();
            theirs.sendall(&data).unwrap();
            theirs.shutdown(SHUT_WR).unwrap();
            let mut reader = SocketReader::new(&ours, bufsize);
            let (mut received, mut piece) = (Vec::<u8>::new(), vec![0; size]);
            loop {
                match reader.read(&mut piece).unwrap() {
                    0 => break,
                    count => received.extend(&piece[..count]),
                }
            }
            assert!(received == data, "buffer size {bufsize}, reads of {size}");
        }
    }
}

#[test]
fn a_reader_receives_as_much_as_its_buffer_holds() {
    for (bufsize, call) in [(1, "recv 1"), (100, "recv 100"), (DEFAULT_BUFFER_SIZE, "recv 8192")] {
        let (ours, theirs) = Witness::pair();
        theirs.sendall(b"x").unwrap();
        SocketReader::new(&ours, bufsize).fill_buf().unwrap();
        assert_eq!(ours.calls(), call);
    }
    let (ours, theirs) = pair();
    theirs.sendall(&[0; 10_000]).unwrap();
    assert_eq!(ours.makefile_rb().fill_buf().unwrap().len(), DEFAULT_BUFFER_SIZE);
}

#[test]
fn small_reads_share_one_receive() {
    let (ours, theirs) = Witness::pair();
    theirs.sendall(b"one\ntwo\nthree\n").unwrap();
    let mut reader = SocketReader::new(&ours, 100);
    assert_eq!(read_line(&mut reader), "one\n");
    let piece = &mut [0; 4];
    reader.read_exact(piece).unwrap();
    assert_eq!(piece, b"two\n");
    assert_eq!(read_line(&mut reader), "three\n");
    assert_eq!(ours.calls(), "recv 100");
}

#[test]
fn a_read_of_the_buffers_size_or_more_goes_past_it() {
    let (ours, theirs) = Witness::pair();
    let mut reader = SocketReader::new(&ours, 100);
    for (size, call) in [(99, "recv 100"), (100, "recv 100"), (101, "recv 101"), (5000, "recv 5000")] {
        theirs.sendall(b"ten bytes.").unwrap();
        assert_eq!(reader.read(&mut vec![0; size]).unwrap(), 10);
        assert_eq!(ours.calls(), call, "a read of {size}");
        assert_eq!(reader.buffer(), b"");
    }
}

#[test]
fn a_large_read_returns_buffered_bytes_first() {
    let (ours, theirs) = Witness::pair();
    theirs.sendall(b"line\nrest").unwrap();
    let mut reader = SocketReader::new(&ours, 100);
    read_line(&mut reader);
    theirs.sendall(b" and more").unwrap();
    ours.calls();
    let piece = &mut [0; 1000];
    assert_eq!(reader.read(piece).unwrap(), 4);
    assert_eq!((&piece[..4], &*ours.calls()), (&b"rest"[..], ""));
    assert_eq!(reader.read(piece).unwrap(), 9);
    assert_eq!((&piece[..9], &*ours.calls()), (&b" and more"[..], "recv 1000"));
}

#[test]
fn an_unbuffered_reader_receives_exactly_the_requested_size() {
    let (ours, theirs) = Witness::pair();
    theirs.sendall(b"ab\nrest").unwrap();
    let mut reader = SocketReader::new(&ours, 0);
    assert_eq!(read_line(&mut reader), "ab\n");
    assert_eq!(ours.calls(), "recv 1, recv 1, recv 1");
    assert_eq!(reader.read(&mut [0; 3]).unwrap(), 3);
    assert_eq!(ours.calls(), "recv 3");
}

/// Python's http.client relies on it: one file reads the head, another the body.
#[test]
fn a_reader_without_a_buffer_leaves_the_next_line_to_another() {
    let (ours, theirs) = pair();
    theirs.sendall(b"first\nsecond\nthird\nrest").unwrap();
    assert_eq!(read_line(&mut SocketReader::new(&ours, 0)), "first\n");
    assert_eq!(read_line(&mut SocketReader::new(&ours, 0)), "second\n");
    let piece = &mut [0; 2];
    SocketReader::new(&ours, 0).read_exact(piece).unwrap();
    assert_eq!(piece, b"th");
    assert_eq!(read_line(&mut ours.makefile_rb()), "ird\n");
    assert_eq!(arrived(&ours), b"", "a buffered reader reads ahead");
}

#[test]
fn a_buffer_keeps_its_contents_from_reader_to_reader() {
    let (ours, theirs) = Witness::pair();
    theirs.sendall(b"first\nsecond\n").unwrap();
    let mut reader = SocketReader::with_buffer(&ours, ReadBuffer::new(64));
    assert_eq!(read_line(&mut reader), "first\n");
    assert_eq!(reader.buffer(), b"second\n");
    let buffer = reader.into_buffer();
    assert_eq!((buffer.unread(), buffer.size()), (&b"second\n"[..], 64));

    ours.calls();
    let mut reader = SocketReader::with_buffer(&ours, buffer);
    assert_eq!(read_line(&mut reader), "second\n");
    assert_eq!(ours.calls(), "");
    let buffer = reader.into_buffer();
    assert_eq!((buffer.unread(), buffer.size()), (&b""[..], 64));

    let (ours, theirs) = Witness::pair();
    theirs.sendall(b"of another connection\n").unwrap();
    assert_eq!(read_line(&mut SocketReader::with_buffer(&ours, buffer)), "of another connection\n");
    assert_eq!(ours.calls(), "recv 64");
}

#[test]
fn a_reader_whose_buffer_has_no_size_does_not_read_ahead() {
    let (ours, theirs) = pair();
    theirs.sendall(b"first\nsecond\nthird\n").unwrap();
    let mut reader = SocketReader::with_buffer(&ours, ReadBuffer::new(0));
    assert_eq!(read_line(&mut reader), "first\n");
    // Where there is none yet, as a reader leaves it that has read nothing, one is made.
    let none = SocketReader::new(&ours, 100).into_buffer();
    let mut reader = SocketReader::with_buffer(&ours, none);
    assert_eq!(read_line(&mut reader), "second\n");
    assert_eq!(reader.buffer(), b"third\n");
}

#[test]
fn reading_a_line_can_continue_after_a_timeout() {
    for bufsize in [0, 2, DEFAULT_BUFFER_SIZE] {
        let (ours, theirs) = pair();
        let mut reader = SocketReader::new(&ours, bufsize);
        let mut line = Vec::new();
        ours.settimeout(Duration::from_millis(5)).unwrap();
        for piece in [&b"half"[..], b"", b" a line"] {
            theirs.sendall(piece).unwrap();
            let error = reader.read_until(b'\n', &mut line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        assert_eq!(line, b"half a line");
        theirs.sendall(b"\nnext\n").unwrap();
        ours.settimeout(LIMIT).unwrap();
        reader.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line, b"half a line\n", "buffer size {bufsize}");
        assert_eq!(read_line(&mut reader), "next\n", "buffer size {bufsize}");
    }
}

#[test]
fn a_nonblocking_socket_is_read_as_far_as_it_goes() {
    let (ours, theirs) = pair();
    ours.setblocking(false).unwrap();
    let mut reader = ours.makefile_rb();
    assert_eq!(reader.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    theirs.sendall(b"abc").unwrap();
    let mut all = Vec::new();
    assert_eq!(reader.read_to_end(&mut all).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(all, b"abc");
}

/// Python: `rfile.read(0)` is `b""`, with nothing received.
#[test]
fn a_read_of_nothing_waits_for_nothing() {
    let (ours, _theirs) = Witness::pair();
    ours.sock.settimeout(Duration::from_millis(5)).unwrap();
    for bufsize in [0, DEFAULT_BUFFER_SIZE] {
        let outcome = SocketReader::new(&ours, bufsize).read(&mut []);
        assert_eq!(outcome.map_err(|error| error.kind()), Ok(0), "buffer size {bufsize}");
    }
}

#[test]
fn the_end_of_file_can_be_read_again_and_again() {
    let (ours, theirs) = pair();
    drop(theirs);
    let mut reader = ours.makefile_rb();
    for _ in 0..3 {
        assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
        assert_eq!(reader.fill_buf().unwrap(), b"");
    }
}

#[test]
fn a_writer_holds_back_until_it_is_flushed() {
    let (ours, theirs) = Witness::pair();
    let mut writer = SocketWriter::new(&ours, 100);
    for piece in ["one ", "", "two ", "three"] {
        assert_eq!(writer.write(piece.as_bytes()).unwrap(), piece.len());
    }
    assert_eq!(ours.calls(), "");
    writer.flush().unwrap();
    assert_eq!(ours.calls(), "sendall 13");
    writer.flush().unwrap();
    assert_eq!(ours.calls(), "");
    assert_eq!(arrived(&theirs), b"one two three");
}

#[test]
fn dropping_a_writer_sends_its_buffer() {
    let (ours, theirs) = Witness::pair();
    SocketWriter::new(&ours, 100).write_all(b"last line!").unwrap();
    assert_eq!(ours.calls(), "sendall 10");
    assert_eq!(arrived(&theirs), b"last line!");
    drop(SocketWriter::new(&ours, 100));
    assert_eq!(ours.calls(), "");
}

#[test]
fn a_writer_sends_when_its_buffer_would_overflow() {
    let (ours, theirs) = Witness::pair();
    let mut writer = SocketWriter::new(&ours, 10);
    writer.write_all(b"123456").unwrap();
    writer.write_all(b"7890").unwrap();
    assert_eq!(ours.calls(), "", "ten bytes fit");
    writer.write_all(b"abc").unwrap();
    assert_eq!(ours.calls(), "sendall 10");
    drop(writer);
    assert_eq!(ours.calls(), "sendall 3");
    assert_eq!(arrived(&theirs), b"1234567890abc");
}

#[test]
fn a_write_of_at_least_the_buffers_size_flushes_and_bypasses_it() {
    let (ours, theirs) = Witness::pair();
    let mut writer = SocketWriter::new(&ours, 10);
    for size in [10, 11, 1000] {
        writer.write_all(&pattern(size)).unwrap();
        assert_eq!(ours.calls(), format!("sendall {size}"));
        assert_eq!(arrived(&theirs), pattern(size));
    }
    writer.write_all(b"first").unwrap();
    writer.write_all(b" and this second").unwrap();
    assert_eq!(ours.calls(), "sendall 5, sendall 16");
    assert_eq!(arrived(&theirs), b"first and this second");
}

#[test]
fn the_default_buffer_of_a_writer_has_8192_bytes() {
    let (ours, theirs) = pair();
    let mut writer = ours.makefile_wb();
    writer.write_all(&[0; DEFAULT_BUFFER_SIZE - 1]).unwrap();
    writer.write_all(&[0; 1]).unwrap();
    assert_eq!(arrived(&theirs), b"");
    writer.write_all(&[0; 1]).unwrap();
    assert_eq!(arrived(&theirs).len(), DEFAULT_BUFFER_SIZE);
    drop(writer);
    assert_eq!(arrived(&theirs).len(), 1);
}

#[test]
fn a_writer_without_a_buffer_sends_each_write_at_once() {
    let (ours, theirs) = Witness::pair();
    let mut writer = SocketWriter::new(&ours, 0);
    for word in ["one ", "two"] {
        assert_eq!(writer.write(word.as_bytes()).unwrap(), word.len());
        assert_eq!(ours.calls(), format!("sendall {}", word.len()));
        assert_eq!(arrived(&theirs), word.as_bytes());
    }
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(ours.calls(), "");
}

#[test]
fn one_write_sends_all_of_more_than_the_socket_holds() {
    let data = pattern(1 << 20);
    for (bufsize, mode) in [(0, None), (0, Some(LIMIT)), (DEFAULT_BUFFER_SIZE, None)] {
        let (ours, theirs) = pair();
        ours.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096).unwrap();
        ours.settimeout(mode).unwrap();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            theirs.makefile_rb().read_to_end(&mut received).unwrap();
            received
        });
        let mut writer = SocketWriter::new(&ours, bufsize);
        assert_eq!(writer.write(&data).unwrap(), data.len());
        drop(writer);
        drop(ours);
        assert!(reader.join().unwrap() == data, "buffer size {bufsize}, timeout {mode:?}");
    }
}

#[test]
fn a_write_to_a_full_queue_times_out() {
    for bufsize in [0, 100] {
        let (ours, _theirs) = pair();
        ours.settimeout(Duration::from_millis(5)).unwrap();
        let mut writer = SocketWriter::new(&ours, bufsize);
        let error = writer.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::TimedOut, None), "{bufsize}");
    }
}

// On Windows the pair is over TCP, which reports it only for the second write.
#[cfg(unix)]
#[test]
fn a_peer_that_is_gone_is_an_error_of_the_write_or_of_the_flush() {
    let (ours, theirs) = pair();
    drop(theirs);
    let error = SocketWriter::new(&ours, 0).write(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    let mut writer = ours.makefile_wb();
    writer.write_all(b"held back").unwrap();
    let error = writer.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    let mut writer = ours.makefile_wb();
    writer.write_all(b"dropped without a word").unwrap();
}

/// How much of it went is unknown, and a part of it twice would be worse.
#[test]
fn data_of_a_failed_flush_is_not_sent_again() {
    let (ours, theirs) = Witness::pair();
    ours.sock.setblocking(false).unwrap();
    while ours.sock.send(&[0; 4096]).is_ok() {}
    let mut writer = SocketWriter::new(&ours, 100);
    writer.write_all(b"lost").unwrap();
    assert_eq!(writer.flush().unwrap_err().kind(), ErrorKind::WouldBlock);
    arrived(&theirs);
    writer.write_all(b"next").unwrap();
    ours.calls();
    writer.flush().unwrap();
    assert_eq!(ours.calls(), "sendall 4");
    assert_eq!(arrived(&theirs), b"next");
}

#[test]
fn a_buffer_larger_than_memory_is_an_error_of_the_first_call_and_no_panic() {
    let (ours, theirs) = Witness::pair();
    theirs.sendall(b"hello").unwrap();
    for bufsize in [usize::MAX, isize::MAX as usize] {
        let mut reader = SocketReader::new(&ours, bufsize);
        for _ in 0..2 {
            let error = reader.read(&mut [0; 5]).unwrap_err();
            assert_eq!(error.to_string(), format!("no memory for {bufsize} bytes"));
        }
        let error = SocketWriter::new(&ours, bufsize).write(b"hello").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        let error = ours.recv(bufsize).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    }
    assert_eq!(ours.recv(5).unwrap(), b"hello");
}

#[test]
fn the_two_directions_of_a_pair_have_a_buffer_each() {
    let (ours, theirs) = pair();
    let mut file = ours.makefile_rwb();
    theirs.sendall(b"question\nanother\n").unwrap();
    assert_eq!(read_line(&mut file), "question\n");
    write!(file, "answer {}", 42).unwrap();
    assert_eq!(file.reader.buffer(), b"another\n");
    assert_eq!(arrived(&theirs), b"");
    file.flush().unwrap();
    assert_eq!(arrived(&theirs), b"answer 42");
    assert_eq!(read_line(&mut file), "another\n");
    file.writer.write_all(b"end").unwrap();
    drop(file);
    assert_eq!(arrived(&theirs), b"end");
}

#[test]
fn a_pair_holds_a_conversation() {
    let (ours, theirs) = pair();
    let server = thread::spawn(move || {
        let mut file = theirs.makefile_rwb();
        let mut line = String::new();
        while file.read_line(&mut line).unwrap() > 0 {
            file.write_all(line.to_uppercase().as_bytes()).unwrap();
            file.flush().unwrap();
            line.clear();
        }
    });
    let mut file = ours.makefile_rwb();
    for word in ["one\n", "two\n", "three\n"] {
        file.write_all(word.as_bytes()).unwrap();
        file.flush().unwrap();
        assert_eq!(read_line(&mut file), word.to_uppercase());
    }
    drop(file);
    ours.shutdown(SHUT_WR).unwrap();
    server.join().unwrap();
}

#[test]
fn a_file_leaves_its_socket_open() {
    let (ours, theirs) = pair();
    drop((ours.makefile_rb(), ours.makefile_wb(), ours.makefile_rwb()));
    ours.sendall(b"still here").unwrap();
    assert_eq!(theirs.recv(100).unwrap(), b"still here");
}

/// Set for the run of this file that has the signal blocked.
const SIGPIPE_IS_BLOCKED: &str = "SOCK_TEST_SIGPIPE_IS_BLOCKED";

/// A signal that is blocked stays pending even while it is ignored, as Rust's
/// runtime ignores this one: so the kernel is queried whether there was any. A
/// program that has the default action would have been killed by it.
#[cfg(target_os = "linux")]
#[test]
fn no_write_to_a_peer_that_is_gone_raises_sigpipe() {
    let name = "no_write_to_a_peer_that_is_gone_raises_sigpipe";
    if std::env::var_os(SIGPIPE_IS_BLOCKED).is_none() {
        let this = std::env::current_exe().unwrap();
        let mut again = Command::new("env");
        again.arg("--block-signal=PIPE").arg(this).args(["--exact", name, "--nocapture"]);
        let output = again.env(SIGPIPE_IS_BLOCKED, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if text.contains("unrecognized option") {
            let _ = writeln!(io::stderr(), "SKIPPED {name}: this env(1) has no --block-signal");
            return;
        }
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let sigpipe = 1 << (13 - 1);
    assert_ne!(signals("SigBlk:") & sigpipe, 0, "SIGPIPE is not blocked");

    let (ours, theirs) = pair();
    let (one, _other) = pair();
    one.shutdown(SHUT_WR).unwrap();
    theirs.shutdown(SHUT_RD).unwrap();
    drop(theirs);
    for sock in [&ours, &one] {
        for error in [
            sock.send(b"x").unwrap_err(),
            sock.sendall(b"x").unwrap_err(),
            sock.send_with_flags(b"x", sock::MSG_DONTWAIT).unwrap_err(),
            SocketWriter::new(sock, 0).write(b"x").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        }
    }
    assert_eq!((signals("SigPnd:") | signals("ShdPnd:")) & sigpipe, 0, "SIGPIPE was raised");
}

/// A set of signals of this thread, as the kernel shows it.
#[cfg(target_os = "linux")]
fn signals(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap()
}
