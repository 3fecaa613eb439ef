//! The promise: no two crates export the same name, so `use sock::*; use sockserver::*;
//! use sockssl::*;` has no ambiguous name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Names of all three crates, through glob imports.
#[deny(warnings)]
mod globs {
    use sock::*;
    use sockserver::*;
    use sockssl::*;

    #[cfg(unix)]
    pub(super) type SockDatagram = Datagram<'static>;
    pub(super) type ServerDatagram = kind::Datagram<kind::Inet>;
    pub(super) type Names =
        (Deadline<'static>, DeadlineKind, Socket, TCPServer, SSLSocket, ReadBuffer, Stats);
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(name).join("src")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the source of a module, such as `api::classes`.
fn module(name: &str, path: &str) -> String {
    let file = source(name).join(path.replace("::", "/"));
    let single = file.with_extension("rs");
    read(&if single.exists() { single } else { file.join("mod.rs") })
}

/// Returns the names that the `pub use` items and the public items of a module export.
fn exported(name: &str, text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in text.split("\npub use ").skip(1) {
        let item: String = item.split(';').next().unwrap().split_whitespace().collect();
        if let Some(path) = item.strip_suffix("::*") {
            names.extend(exported(name, &module(name, path)));
        } else {
            names.extend(
                item.split(['{', ',', '}'])
                    .filter_map(|path| path.rsplit("::").next().filter(|last| !last.is_empty()))
                    .map(str::to_owned),
            );
        }
    }
    for line in text.lines() {
        let declared = ["const ", "fn ", "struct ", "enum ", "trait ", "type "]
            .iter()
            .find_map(|keyword| line.strip_prefix("pub ")?.strip_prefix(keyword));
        // A row of the table of classes: `TCPServer = Stream<Inet>, Sequential;`.
        let row =
            line.strip_prefix("    ").filter(|_| line.ends_with("MixIn;") || line.ends_with("Sequential;"));
        if let Some(rest) = declared.or(row.filter(|row| row.contains(" = "))) {
            let word = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
            names.extend(word.filter(|word| !word.is_empty()).map(str::to_owned));
        }
    }
    names
}

#[test]
fn no_two_crates_export_the_same_name() {
    let mut all = Vec::new();
    for name in ["sock", "sockserver", "sockssl"] {
        let mut names = exported(name, &module(name, "lib"));
        if name == "sock" {
            names.extend(sock::constants().into_iter().map(|(constant, _)| constant.to_owned()));
        }
        all.push((name, names));
    }
    for ((name, names), (expected, least)) in
        all.iter().zip([("Socket", 200), ("ThreadingUDPServer", 45), ("ALERT_DESCRIPTION_UNKNOWN_CA", 40)])
    {
        assert!(names.contains(expected) && names.len() >= least, "{name}: found only {names:?}");
    }
    for (index, (name, names)) in all.iter().enumerate() {
        for (other, others) in &all[index + 1..] {
            let both: Vec<_> = names.intersection(others).collect();
            assert!(both.is_empty(), "{name} and {other} both export {both:?}");
        }
    }
}

#[test]
fn glob_imports_of_all_crates_are_unambiguous() {
    let names = std::any::type_name::<globs::Names>();
    assert!(names.contains("DeadlineKind") && names.contains("SSLSocket"), "{names}");
    assert!(std::any::type_name::<globs::ServerDatagram>().starts_with("sockserver::"));
    #[cfg(unix)]
    assert!(std::any::type_name::<globs::SockDatagram>().starts_with("sock::"));
}
