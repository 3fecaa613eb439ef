//! `create_connection`: resolves a host name and connects to it.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::address::{Address, Host, Port};
use crate::call::cancel;
use crate::call::deadline::{POLLOUT, Poll, getdefaulttimeout, poll_until_signal};
use crate::call::to_timeout::{ParsedTimeout, ToTimeout};
use crate::consts::SOCK_STREAM;
use crate::error::{find_error, invalid, timed_out};
use crate::netdb::getaddrinfo::{AddrInfo, Hints, getaddrinfo_with};
use crate::socket::Socket;

/// Options of [`create_connection_with`].
///
/// # Examples
///
/// ```
/// use sock::ConnectionOptions;
/// use std::time::Duration;
///
/// let options = ConnectionOptions::new()
///     .timeout(Duration::from_secs(5)) // for each address, and kept by the socket
///     .deadline(Duration::from_secs(12)) // for all addresses together
///     .happy_eyeballs(true);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConnectionOptions {
    timeout: Option<ParsedTimeout>,
    deadline: ParsedTimeout,
    source_address: Option<Address>,
    happy_eyeballs: bool,
}

/// Delay of RFC 8305 before the next address is tried in parallel (section 5: "Connection Attempt
/// Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

impl ConnectionOptions {
    /// Creates options with Python's defaults: the default timeout, any source address.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ConnectionOptions;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();
    /// let client = sock::create_connection_with(("127.0.0.1", port), &ConnectionOptions::new())?;
    /// assert_eq!(client.gettimeout(), None);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> ConnectionOptions {
        ConnectionOptions::default()
    }

    /// Sets the timeout for each address. The socket keeps it. `None` blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::ConnectionOptions;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();
    /// let options = ConnectionOptions::new().timeout(5);           // timeout=5
    /// let client = sock::create_connection_with(("127.0.0.1", port), &options)?;
    /// assert_eq!(client.gettimeout(), Some(Duration::from_secs(5)));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: impl ToTimeout) -> ConnectionOptions {
        self.timeout = Some(ParsedTimeout::new(timeout));
        self
    }

    /// Sets the time limit for all addresses together.
    ///
    /// Python has no such limit: five addresses take five timeouts. The lookup of the name is not
    /// limited.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ConnectionOptions;
    /// use std::time::Duration;
    ///
    /// let options = ConnectionOptions::new().deadline(Duration::ZERO);
    /// let error = sock::create_connection_with(("127.0.0.1", 1), &options).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    /// ```
    #[must_use]
    pub fn deadline(mut self, deadline: impl ToTimeout) -> ConnectionOptions {
        self.deadline = ParsedTimeout::new(deadline);
        self
    }

    /// Sets the local address to connect from.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, ConnectionOptions, ToAddress};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();
    /// # if cfg!(target_os = "linux") {
    /// let from = ("127.0.0.2", 0).to_address(AF_INET)?;
    /// let client = sock::create_connection_with(("127.0.0.1", port), &ConnectionOptions::new().source_address(from))?;
    /// assert_eq!(client.getsockname()?.ip().unwrap().to_string(), "127.0.0.2");
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn source_address(mut self, address: Address) -> ConnectionOptions {
        self.source_address = Some(address);
        self
    }

    /// Sets whether several addresses are tried in parallel (RFC 8305).
    ///
    /// The families alternate. If an address has not answered after 250 ms, the next one is tried
    /// in parallel. The first connection is used, the others are closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ConnectionOptions;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();
    /// // If the name has an IPv6 address too, the refused connection to it does not matter.
    /// let options = ConnectionOptions::new().happy_eyeballs(true);
    /// let client = sock::create_connection_with(("localhost", port), &options)?;
    /// assert_eq!(client.getpeername()?.port(), Some(port));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn happy_eyeballs(mut self, happy_eyeballs: bool) -> ConnectionOptions {
        self.happy_eyeballs = happy_eyeballs;
        self
    }

    /// The timeout of the connected socket.
    fn mode(&self) -> io::Result<Option<Duration>> {
        self.timeout.as_ref().map_or_else(|| Ok(getdefaulttimeout()), ParsedTimeout::get)
    }
}

/// Connects to a TCP service, trying each address of the host in order.
///
/// Python: `socket.create_connection((host, port))`. System calls: getaddrinfo(3), then socket(2)
/// and connect(2) for each address.
///
/// # Errors
///
/// Returns a [`ConnectError`] if no address accepts the connection. It has the error of every
/// address that was tried, and the kind and errno of the last one. Returns a
/// [`GaiError`](crate::GaiError) if the host has no address.
///
/// # Examples
///
/// ```
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let port = server.getsockname()?.port().unwrap();
/// let client = sock::create_connection(("localhost", port))?;
/// client.sendall(b"hello")?;
/// # std::io::Result::Ok(())
/// ```
pub fn create_connection<H, P>(address: (H, P)) -> io::Result<Socket>
where
    H: Host,
    P: Port,
{
    create_connection_with(address, &ConnectionOptions::new())
}

/// Connects to a TCP service with options.
///
/// Python: `socket.create_connection(address, timeout, source_address)`. System calls: as
/// [`create_connection`].
///
/// # Errors
///
/// Returns an error if [`create_connection`] does, or if the timeout of the last address or the
/// deadline expires (`TimedOut`).
///
/// # Examples
///
/// ```
/// use sock::ConnectionOptions;
/// use std::time::Duration;
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let port = server.getsockname()?.port().unwrap();
/// let options = ConnectionOptions::new().deadline(Duration::from_secs(10)).happy_eyeballs(true);
/// let client = sock::create_connection_with(("localhost", port), &options)?;
/// # std::io::Result::Ok(())
/// ```
pub fn create_connection_with<H, P>((host, port): (H, P), options: &ConnectionOptions) -> io::Result<Socket>
where
    H: Host,
    P: Port,
{
    options.mode()?;
    let deadline = options.deadline.get()?;
    let host = host.as_text();
    let number = port.to_port(&host)?;
    let hints = Hints::new().kind(SOCK_STREAM);
    let answers = getaddrinfo_with(&*host, number, &hints)?;
    let until = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
    let mut attempts = Attempts { options, until, failed: Vec::new() };
    let connected = if options.happy_eyeballs {
        attempts.race(interleave_families(answers))?
    } else {
        attempts.connect_in_order(answers)?
    };
    connected.ok_or_else(|| match attempts.failed.is_empty() {
        true => invalid(format!("host {host:?} has no address")),
        false => ConnectError::error(attempts.failed),
    })
}

/// Alternates the families, starting with the first result's (RFC 8305, section 4).
fn interleave_families(answers: Vec<AddrInfo>) -> Vec<AddrInfo> {
    let first = answers.first().map(|answer| answer.family);
    let (one, other): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| Some(answer.family) == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut interleaved = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair.iter().all(Option::is_none) {
            return interleaved;
        }
        interleaved.extend(pair.into_iter().flatten());
    }
}

struct Attempts<'a> {
    options: &'a ConnectionOptions,
    until: Option<Instant>,
    failed: Vec<(Address, io::Error)>,
}

/// A connect in progress.
struct Attempt {
    sock: Socket,
    address: Address,
    /// When the attempt times out.
    until: Option<Instant>,
}

impl Attempts<'_> {
    fn connect_in_order(&mut self, answers: Vec<AddrInfo>) -> io::Result<Option<Socket>> {
        for answer in answers {
            if self.until.is_none() {
                // As in Python, the connect itself waits, in the mode of the socket.
                match self.open(&answer).and_then(|sock| sock.connect(&answer.address).map(|()| sock)) {
                    Ok(sock) => return Ok(Some(sock)),
                    Err(error) => self.failed.push((answer.address, error)),
                }
            } else if let Some(sock) = self.race(vec![answer])? {
                return Ok(Some(sock));
            }
        }
        Ok(None)
    }

    /// Creates a socket for an address, with the options' mode and source address.
    fn open(&self, answer: &AddrInfo) -> io::Result<Socket> {
        let sock = Socket::new(answer.family, SOCK_STREAM, answer.proto)?;
        if let Some(timeout) = &self.options.timeout {
            sock.settimeout(timeout.get()?)?;
        }
        if let Some(source) = &self.options.source_address {
            sock.bind(source)?;
        }
        Ok(sock)
    }

    /// Connects to several addresses in parallel, each started a delay after the one before.
    fn race(&mut self, answers: Vec<AddrInfo>) -> io::Result<Option<Socket>> {
        let mut waiting = answers.into_iter().peekable();
        let mut running: Vec<Attempt> = Vec::new();
        let mut next_start = Instant::now();
        loop {
            let now = Instant::now();
            // Without a delay if no other attempt is in progress.
            if waiting.peek().is_some() && (running.is_empty() || now >= next_start) {
                next_start = now + ATTEMPT_DELAY;
                let answer = waiting.next().expect("peek returned an address");
                match self.start(&answer, now) {
                    Ok((sock, true)) => return self.take(sock).map(Some),
                    Ok((sock, false)) => running.push(self.attempt(sock, answer.address, now)),
                    Err(error) => self.failed.push((answer.address, error)),
                }
                continue;
            }
            if running.is_empty() {
                return Ok(None);
            }
            let start = waiting.peek().map(|_| next_start);
            let wake = running.iter().filter_map(|attempt| attempt.until).chain(start).min();
            let left = wake.map(|wake| wake.saturating_duration_since(now));
            let mut set: Vec<Poll<'_>> =
                running.iter().map(|attempt| Poll::new(&attempt.sock, POLLOUT)).collect();
            match poll_until_signal(&mut set, left) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => cancel::check_interrupt_hook()?,
                Err(error) => return Err(error),
            }
            let ready: Vec<bool> = set.iter().map(|poll| poll.revents() != 0).collect();
            let now = Instant::now();
            let mut in_progress = Vec::new();
            for (attempt, ready) in running.into_iter().zip(ready) {
                match attempt.outcome(ready, now) {
                    Some(Ok(())) => return self.take(attempt.sock).map(Some),
                    Some(Err(error)) => self.failed.push((attempt.address, error)),
                    None => in_progress.push(attempt),
                }
            }
            running = in_progress;
        }
    }

    /// Starts to connect. Returns true if the connection is already established.
    fn start(&self, answer: &AddrInfo, now: Instant) -> io::Result<(Socket, bool)> {
        if self.until.is_some_and(|until| now >= until) {
            return Err(timed_out());
        }
        let sock = self.open(answer)?;
        sock.setblocking(false)?;
        match sock.connect(&answer.address) {
            Ok(()) => Ok((sock, true)),
            Err(error) if Socket::connect_in_progress(&error) => Ok((sock, false)),
            Err(error) => Err(error),
        }
    }

    fn attempt(&self, sock: Socket, address: Address, now: Instant) -> Attempt {
        let own = self.options.mode().ok().flatten().and_then(|timeout| now.checked_add(timeout));
        Attempt { sock, address, until: own.into_iter().chain(self.until).min() }
    }

    /// Sets the mode of the first socket that connected.
    fn take(&self, sock: Socket) -> io::Result<Socket> {
        sock.settimeout(self.options.mode()?)?;
        Ok(sock)
    }
}

impl Attempt {
    /// Returns the result, or `None` while the connect is in progress.
    fn outcome(&self, ready: bool, now: Instant) -> Option<io::Result<()>> {
        if ready {
            return Some(match self.sock.pending_error() {
                Ok(None) => Ok(()),
                Ok(Some(error)) | Err(error) => Err(error),
            });
        }
        self.until.is_some_and(|until| now >= until).then(|| Err(timed_out()))
    }
}

/// Every address that [`create_connection`] tried, with its error.
///
/// Python: the exceptions of `create_connection(…, all_errors=True)`. It is the source of an
/// [`io::Error`] with the kind of the last address. [`ConnectError::of`] returns it.
///
/// # Examples
///
/// ```
/// let error = sock::create_connection(("127.0.0.1", 1)).unwrap_err();
/// let attempts = sock::ConnectError::of(&error).unwrap().attempts();
/// assert_eq!(attempts[0].0.to_string(), "127.0.0.1:1");
/// assert!(error.to_string().starts_with("connect 127.0.0.1:1: "));
/// ```
pub struct ConnectError(Vec<(Address, io::Error)>);

impl ConnectError {
    /// Returns the `ConnectError` in an error or its sources.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ConnectError;
    ///
    /// let error = sock::create_connection(("127.0.0.1", 1)).unwrap_err();
    /// assert_eq!(ConnectError::of(&error).unwrap().attempts().len(), 1);
    /// assert!(ConnectError::of(&std::io::Error::other("another error")).is_none());
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&ConnectError> {
        find_error(error)
    }

    /// Returns the addresses and their errors in the order of failure, at least one.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = sock::create_connection(("127.0.0.1", 1)).unwrap_err();
    /// for (address, cause) in sock::ConnectError::of(&error).unwrap().attempts() {
    ///     println!("{address}: {cause}");
    ///     assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
    /// }
    /// ```
    #[must_use]
    pub fn attempts(&self) -> &[(Address, io::Error)] {
        &self.0
    }

    fn error(failed: Vec<(Address, io::Error)>) -> io::Error {
        let kind = failed.last().map_or(io::ErrorKind::Other, |(_, error)| error.kind());
        io::Error::new(kind, ConnectError(failed))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}connect {address}: {error}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.last().map(|(_, error)| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ToAddress;
    use crate::consts::{AF_INET, AF_INET6};
    use crate::create::create_server::create_server;

    fn answer(address: Address) -> AddrInfo {
        AddrInfo { family: address.family(), kind: SOCK_STREAM, proto: 0, canonname: None, address }
    }

    /// Returns an address that does not answer because its queue is full, and the sockets that fill
    /// it.
    fn silent() -> (AddrInfo, Vec<Socket>) {
        let listener = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        listener.bind(("127.0.0.1", 0)).unwrap();
        listener.listen(0).unwrap();
        let address = listener.getsockname().unwrap();
        let mut held = vec![listener];
        loop {
            let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
            client.settimeout(Duration::from_millis(100)).unwrap();
            let connected = client.connect(&address).is_ok();
            held.push(client);
            if !connected {
                return (answer(address), held);
            }
        }
    }

    /// Returns an address without a listener.
    fn refusing() -> AddrInfo {
        answer(create_server(("127.0.0.1", 0)).unwrap().getsockname().unwrap())
    }

    fn attempts(options: &ConnectionOptions) -> Attempts<'_> {
        let until = options.deadline.get().unwrap().map(|deadline| Instant::now() + deadline);
        Attempts { options, until, failed: Vec::new() }
    }

    #[test]
    fn an_unresponsive_address_does_not_delay_the_next() {
        let (silent, _held) = silent();
        let server = create_server(("127.0.0.1", 0)).unwrap();
        let good = server.getsockname().unwrap();
        let options = ConnectionOptions::new().happy_eyeballs(true);
        let begin = Instant::now();
        let sock = attempts(&options).race(vec![silent, answer(good.clone())]).unwrap().unwrap();
        assert_eq!(sock.getpeername().unwrap(), good);
        assert!(begin.elapsed() >= ATTEMPT_DELAY, "the second starts after the delay");
        assert_eq!(sock.gettimeout(), None, "the socket has the requested mode");
    }

    #[test]
    fn a_refusal_starts_the_next_attempt_immediately() {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        let options = ConnectionOptions::new().timeout(Duration::from_secs(20)).happy_eyeballs(true);
        let mut attempts = attempts(&options);
        let answers = vec![refusing(), answer(server.getsockname().unwrap())];
        let sock = attempts.race(answers).unwrap().unwrap();
        assert_eq!(sock.gettimeout(), Some(Duration::from_secs(20)));
        assert_eq!(attempts.failed.len(), 1);
        assert_eq!(attempts.failed[0].1.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_deadline_applies_to_all_addresses_together() {
        let (silent, _held) = silent();
        for happy_eyeballs in [false, true] {
            let deadline = Duration::from_millis(400);
            let options = ConnectionOptions::new().deadline(deadline).timeout(Duration::from_secs(60));
            let mut attempts = attempts(&options);
            let answers = vec![silent.clone(), silent.clone(), silent.clone()];
            let begin = Instant::now();
            let sock = match happy_eyeballs {
                true => attempts.race(answers),
                false => attempts.connect_in_order(answers),
            };
            assert!(sock.unwrap().is_none());
            assert!(begin.elapsed() >= deadline && begin.elapsed() < Duration::from_secs(30));
            assert_eq!(attempts.failed.len(), 3, "each is reported");
            assert!(attempts.failed.iter().all(|(_, error)| error.kind() == io::ErrorKind::TimedOut));
        }
    }

    #[test]
    fn families_alternate() {
        let address = |text: &str, family| answer((text, 1).to_address(family).unwrap());
        let [one, two] = ["::1", "::2"].map(|text| address(text, AF_INET6));
        let [three, four] = ["127.0.0.1", "127.0.0.2"].map(|text| address(text, AF_INET));
        let answers = vec![one.clone(), two.clone(), three.clone(), four.clone()];
        assert_eq!(interleave_families(answers), [one, three, two, four]);
        assert_eq!(interleave_families(Vec::new()), []);
    }

    #[test]
    fn an_error_contains_every_address_and_has_the_kind_of_the_last() {
        let options = ConnectionOptions::new();
        let mut attempts = attempts(&options);
        assert!(attempts.connect_in_order(vec![refusing(), refusing()]).unwrap().is_none());
        let error = ConnectError::error(attempts.failed);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(crate::errno(&error).is_some());
        assert_eq!(error.to_string().matches("connect 127.0.0.1:").count(), 2);
    }
}
