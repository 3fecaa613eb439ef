//! The promise: callbacks, what they own, and the logger may use the context that calls them, because
//! no code of the program runs while the context is locked.

mod support;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;

use log::{Level, LevelFilter, Log, Metadata, Record};
use sockssl::{SSLContext, SSLSocket, TLSVersion, WrapOptions};
use support::{LIMIT, Pki, wrapped};

/// Runs a call that must return within the limit.
fn within<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(call()));
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{what} blocks"))
}

/// Uses the locks of a context.
fn use_context(context: &SSLContext) {
    let _ = (context.session_stats(), context.failures(), context.keylog_filename());
    context.set_num_tickets(context.num_tickets());
    context.set_minimum_version(TLSVersion::TLSv1_2);
    // The files of another test may be gone.
    let _ = context.reload();
    assert!(format!("{context:?}").contains("SSLContext"));
}

/// A value that a callback owns.
struct Owned(SSLContext);

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Owned {
    fn drop(&mut self) {
        use_context(&self.0);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_sni_callback_may_use_its_context() {
    let pki = Pki::new();
    let (server, client) = (pki.server(), pki.client());
    let own = server.clone();
    server.set_sni_callback(move |_| {
        use_context(&own);
        // It replaces itself.
        own.set_sni_callback(|_| Ok(None));
        Ok(None)
    });
    within("the callback", move || {
        wrapped(&server, &client);
        wrapped(&server, &client);
    });
}

#[test]
fn what_a_replaced_callback_owns_may_use_the_context() {
    let pki = Pki::new();
    let server = pki.server();
    let owned = Owned(server.clone());
    server.set_sni_callback(move |_| {
        let _ = &owned;
        Ok(None)
    });
    within("the setter", move || server.set_sni_callback(|_| Ok(None)));
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
}

const STRANGE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

/// Uses the context for each record.
struct Using;

static CONTEXT: OnceLock<SSLContext> = OnceLock::new();
/// The warnings.
static RECORDS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    /// Whether this thread uses the connection already, which may be logged.
    static USES: Cell<bool> = const { Cell::new(false) };
}

/// A connection that is used in the lines about handshakes, and their number.
static CONNECTION: Mutex<Option<Arc<SSLSocket>>> = Mutex::new(None);
static HANDSHAKES: AtomicUsize = AtomicUsize::new(0);
/// The lines about a key.
static KEYS: AtomicUsize = AtomicUsize::new(0);

impl Log for Using {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sockssl")
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(context) = CONTEXT.get() {
            use_context(context);
            let connection = CONNECTION.lock().unwrap().clone();
            let is_concerned = record.args().to_string().contains("handshake") && !USES.replace(true);
            if let Some(connection) = connection.filter(|_| is_concerned) {
                let _ = (connection.do_handshake(), connection.version(), format!("{connection:?}"));
                HANDSHAKES.fetch_add(1, Ordering::Relaxed);
            }
            if is_concerned {
                USES.set(false);
            }
            RECORDS.fetch_add(usize::from(record.level() == Level::Warn), Ordering::Relaxed);
            let is_about_key = record.args().to_string().contains("strange.key");
            KEYS.fetch_add(usize::from(is_about_key), Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

#[cfg(unix)]
#[test]
fn a_logger_may_use_the_context() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::new();
    log::set_logger(&Using).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let (server, client) = (pki.server(), pki.client());
    CONTEXT.set(server.clone()).unwrap();
    // A key log that others can read is logged, and so is a write that fails.
    let log = pki.write("keys", "");
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o644)).unwrap();
    // The provider's message about a key that it does not support is logged.
    let chain = (pki.path("server.pem"), pki.write("strange.key", STRANGE_KEY));
    let own = server.clone();
    within("the logger of a key", move || own.load_cert_chain(chain.0, chain.1).unwrap_err());
    assert!(KEYS.load(Ordering::Relaxed) > 0);
    // A handshake that succeeds, and one that fails.
    for text in [None, Some("no TLS\r\n\r\n")] {
        let (theirs, ours) = support::connection();
        let lazily = WrapOptions::new().do_handshake_on_connect(false);
        let connection = Arc::new(server.wrap_socket_server_with(theirs, &lazily).unwrap());
        *CONNECTION.lock().unwrap() = Some(Arc::clone(&connection));
        let handshaking = thread::spawn({
            let client = client.clone();
            move || match text {
                None => client.wrap_socket_client(ours, "localhost").map(drop),
                Some(text) => ours.sendall(text.as_bytes()),
            }
        });
        let before = HANDSHAKES.load(Ordering::Relaxed);
        within("the logger of a handshake", move || connection.do_handshake().is_ok());
        handshaking.join().unwrap().unwrap();
        assert!(HANDSHAKES.load(Ordering::Relaxed) > before);
        *CONNECTION.lock().unwrap() = None;
    }
    within("the loggers", move || {
        server.set_keylog_filename(&log).unwrap();
        assert_eq!(RECORDS.load(Ordering::Relaxed), 1);
        if cfg!(target_os = "linux") {
            server.set_keylog_filename("/dev/full").unwrap();
            wrapped(&server, &client);
            assert_eq!(RECORDS.load(Ordering::Relaxed), 2, "one line for a failure that lasts");
        }
    });
}
