//! The compiler's messages for the first mistakes of a new user: they name the right form.
//!
//! Each program is compiled with the crates that this test is linked with. Only the texts of the
//! crates are compared, because the compiler's own differ between its versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

/// Compiles programs against the newest build of each crate in this target directory.
struct Compiler {
    directory: tempfile::TempDir,
    dependencies: PathBuf,
    libraries: Vec<(&'static str, PathBuf)>,
}

impl Compiler {
    fn new() -> Compiler {
        let dependencies = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let mut compiler =
            Compiler { directory: tempfile::tempdir().unwrap(), dependencies, libraries: Vec::new() };
        // Features and compilers leave several builds there. One set of them fits together.
        for sock in compiler.builds("sock") {
            for sockserver in compiler.builds("sockserver") {
                compiler.libraries = vec![("sock", sock.clone()), ("sockserver", sockserver)];
                let uses_both = "fn main() { let _ = sockserver::TCPServer::builder(sockserver::handler_fn(|cx| { \
                                 let _: &sock::Socket = cx.request.socket(); Ok(()) })); }";
                if compiler.compile(uses_both).status.success() {
                    return compiler;
                }
            }
        }
        panic!("no build of the crates in {}", compiler.dependencies.display());
    }

    /// Libraries of a crate, the newest first.
    fn builds(&self, name: &str) -> Vec<PathBuf> {
        let is_library = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
        };
        let mut builds: Vec<_> = fs::read_dir(&self.dependencies)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(is_library)
            .collect();
        let modified = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
        builds.sort_by_key(|path| modified(path).unwrap_or(SystemTime::UNIX_EPOCH));
        builds.reverse();
        builds
    }

    fn compile(&self, program: &str) -> Output {
        let source = self.directory.path().join("program.rs");
        fs::write(&source, program).unwrap();
        let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        command.args(["--edition", "2024", "--emit", "metadata", "--crate-name", "program"]);
        command.arg("--out-dir").arg(self.directory.path());
        command.arg("-L").arg(dependency(&self.dependencies));
        for (name, path) in &self.libraries {
            command.arg("--extern").arg(format!("{name}={}", path.display()));
        }
        command.arg(source).output().expect("rustc runs")
    }

    /// Compiles statements of a `main`, which must fail with these texts.
    #[track_caller]
    fn refuses(&self, statements: &str, texts: &[&str]) {
        let output = self.compile(&format!("{statements}\n"));
        let messages = String::from_utf8_lossy(&output.stderr);
        // The compiler wraps long notes.
        let messages =
            messages.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
        assert!(!output.status.success(), "this compiles: {statements}");
        for text in texts {
            assert!(messages.contains(text), "{text:?} is not in {messages}");
        }
    }
}

fn dependency(path: &Path) -> String {
    format!("dependency={}", path.display())
}

#[test]
fn messages_name_the_right_form() {
    let compiler = Compiler::new();
    compiler.refuses(
        "fn f(sock: &sock::Socket) { sock.settimeout(\"2.5\").unwrap(); } fn main() {}",
        &["`&str` is not a timeout", "a timeout is a number of seconds such as `2.5` or `5`, a `Duration`"],
    );
    compiler.refuses(
        "fn f(server: &sockserver::TCPServer) { server.drain(None).unwrap(); } fn main() {}",
        &["is not a duration", "a duration is a number of seconds such as `2.5` or `5`, or a `Duration`"],
    );
    compiler.refuses(
        "fn f(set: &mut [sock::Poll]) { sock::poll(set, \"1\").unwrap(); } fn main() {}",
        &["`&str` is not a timeout"],
    );
    compiler.refuses(
        "fn f(sock: &sock::Socket) { sock.connect(9999).unwrap(); } fn main() {}",
        &["is not a socket address", "a tuple such as `(\"127.0.0.1\", 9999)`"],
    );
    compiler.refuses(
        "fn f(sock: &sock::Socket) { sock.connect((9999, 1)).unwrap(); } fn main() {}",
        &["`{integer}` is not a host", "such as `\"localhost\"`, or an IP address"],
    );
    compiler.refuses(
        "fn f(sock: &sock::Socket) { sock.connect((\"127.0.0.1\", 80.0)).unwrap(); } fn main() {}",
        &["`{float}` is not a port", "such as `8000`, a number as text, or the name of a service"],
    );
    compiler.refuses(
        "fn f(sock: &sock::Socket) { sock.setsockopt(sock::SOL_SOCKET, sock::SO_REUSEADDR, 1.0).unwrap(); } \
         fn main() {}",
        &["is not the value of a socket option", "an option is an `i32`, a `bool`, a `Linger`"],
    );
    compiler.refuses(
        "fn main() { sock::selectors::DefaultSelector::new().unwrap().register(5, 1, ()).unwrap(); }",
        &["cannot be registered in a selector", "for another type implement `FileObject`"],
    );
    compiler.refuses(
        "struct Echo; fn main() { sockserver::TCPServer::new((\"\", 0), || Echo).unwrap(); }",
        &["`Echo` is not a handler for connections", "implement `StreamRequestHandler`"],
    );
    compiler.refuses(
        "struct Echo; fn main() { sockserver::UDPServer::new((\"\", 0), || Echo).unwrap(); }",
        &["`Echo` is not a handler for datagrams", "implement `DatagramRequestHandler`"],
    );
    compiler.refuses(
        "struct Mine; fn f<M: sockserver::MixIn>(_: M) {} fn main() { f(Mine); }",
        &["`Mine` is not a concurrency model", "the models are `Sequential`, `ThreadingMixIn`"],
    );
}

/// What the messages name.
#[test]
fn the_right_forms_compile() {
    let output = Compiler::new().compile(
        "fn f(sock: &sock::Socket) -> std::io::Result<()> {
             sock.settimeout(2.5)?;
             sock.settimeout(5)?;
             sock.settimeout(None)?;
             sock.settimeout(std::time::Duration::from_secs(1))?;
             sock.settimeout(Some(std::time::Duration::from_secs(1)))?;
             sock::setdefaulttimeout(None)?;
             sock::poll(&mut [], 100)?;
             sock::poll(&mut [], None)?;
             sock::poll(&mut [], Some(std::time::Duration::ZERO))?;
             sock.linger_for(2.5)?;
             sock.connect((\"127.0.0.1\", 9999))
         }
         fn main() {}",
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
