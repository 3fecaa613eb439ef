//! The house rules that can be checked: layers, `unsafe`, file sizes, the
//! examples' index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder, with their path from the root.
fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = read(&path);
                files.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    files
}

fn is_sys(path: &Path) -> bool {
    path.starts_with("crates/sock/src/sys") || path.starts_with("crates/sockserver/src/os")
}

/// Position of each folder or file of a crate in its line of `docs/architecture.md`.
fn layers(name: &str) -> BTreeMap<String, usize> {
    let page = read("docs/architecture.md");
    let prefix = format!("layers of {name}:");
    let line = page.lines().find_map(|line| line.strip_prefix(&prefix));
    let line = line.unwrap_or_else(|| panic!("docs/architecture.md has no line {prefix:?}"));
    line.split_whitespace().enumerate().map(|(position, folder)| (folder.to_owned(), position)).collect()
}

/// Modules a file uses, wherever it names them; its tests may use what they like.
fn used(text: &str) -> Vec<&str> {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect()
}

#[test]
fn a_folder_imports_only_folders_before_it() {
    for name in ["sock", "sockserver", "sockssl"] {
        let layers = layers(name);
        let source = format!("crates/{name}/src");
        let mut imports = 0;
        for (path, text) in rust_files(&source) {
            let inside = path.strip_prefix(&source).unwrap();
            let folder = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            if folder == "lib" {
                continue;
            }
            let position =
                layers.get(folder).unwrap_or_else(|| panic!("{}: {folder} has no layer", path.display()));
            for other in used(&text) {
                let Some(other_position) = layers.get(other) else { continue };
                imports += 1;
                assert!(
                    other_position <= position,
                    "{}: {folder} imports {other}, a later layer",
                    path.display()
                );
            }
        }
        assert!(imports > 20, "{name}: only {imports} imports found");
    }
}

#[test]
fn the_neighbours_never_meet() {
    for (name, other) in [("sockserver", "sockssl"), ("sockssl", "sockserver")] {
        let manifest = read(format!("crates/{name}/Cargo.toml"));
        assert!(!manifest.lines().any(|line| line.starts_with(other)), "{name} depends on {other}");
    }
}

/// Whoever uses `sockssl` may not have to know, or to update, its TLS library.
#[test]
fn no_type_of_the_tls_library_is_public() {
    for (path, text) in rust_files("crates/sockssl/src") {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if !line.starts_with("pub ") || line.starts_with("pub use") {
                continue;
            }
            // The whole signature, over several lines.
            let mut signature = line.to_owned();
            while !signature.contains(['{', ';']) {
                match lines.next() {
                    Some(next) => signature += next.trim(),
                    None => break,
                }
            }
            for word in [
                "rustls",
                "CertificateDer",
                "Connection",
                "ServerConfig",
                "ClientConfig",
                "x509_cert",
                "pkcs8",
            ] {
                assert!(!signature.contains(word), "{}: {word} in {signature}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_and_libc_stay_in_sys_and_os() {
    for (path, text) in rust_files("crates").into_iter().filter(|(path, _)| !is_sys(path)) {
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let before_tests = code.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["unsafe ", "libc::"] {
            assert!(!before_tests.contains(word), "{} has {word:?}", path.display());
        }
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_safe() {
    for (path, text) in rust_files("crates").into_iter().filter(|(path, _)| is_sys(path)) {
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if line.contains("unsafe {") {
                let reasons = &lines[number.saturating_sub(6)..=number];
                let given = reasons.iter().any(|line| line.contains("SAFETY:"));
                assert!(given, "{}:{}: an unsafe block without SAFETY:", path.display(), number + 1);
            }
        }
    }
}

/// What makes CPython's tests a proof of `sock` and not of the extension.
#[test]
fn the_python_extension_only_converts() {
    let files = rust_files("tests/cpython/src");
    assert!(files.len() > 5, "{} files", files.len());
    for (path, text) in files {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = code.flat_map(|line| [line, "\n"]).collect();
        for word in ["loop {", "while ", "poll(", "sleep", "EINTR", "EAGAIN", "EINPROGRESS", ".parse("] {
            assert!(!code.contains(word), "{} has {word:?}", path.display());
        }
        let is_raw = path.ends_with("raw.rs");
        assert!(is_raw || !code.contains("unsafe "), "{} has unsafe code", path.display());
        let blocks = text.lines().filter(|line| line.contains("unsafe {")).count();
        let reasons = text.lines().filter(|line| line.contains("// SAFETY:")).count();
        assert!(reasons >= blocks, "{}: {blocks} unsafe blocks, {reasons} reasons", path.display());
    }
}

/// What a public function's page has in `sock`: whatever makes a call has an example,
/// and whatever can fail says with what.
#[test]
fn every_call_of_sock_has_its_card() {
    let mut cards = 0;
    for (path, text) in rust_files("crates/sock/src") {
        // No example of Windows' own functions can run here.
        if path.ends_with("windows.rs") || path.ends_with("fuzz_invariants.rs") {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let mut card = String::new();
        let mut lines = text.lines().map(str::trim_start).peekable();
        while let Some(line) = lines.next() {
            if let Some(doc) = line.strip_prefix("///") {
                card += doc;
                card.push('\n');
            } else if line.starts_with("pub fn ") {
                let mut signature = line.to_owned();
                while !signature.contains('{') && !signature.ends_with(';') {
                    signature += lines.next().unwrap();
                }
                let pythons = |line: &str| line.starts_with(" Python: `") && line.contains('(');
                let calls = card.lines().any(pythons)
                    || card.contains("ystem call")
                    || card.contains("ibrary call");
                let has = |part: &str| card.contains(part);
                assert!(!calls || has("# Examples"), "{}: no example: {line}", path.display());
                let fails = signature.contains("io::Result<");
                assert!(!fails || has("# Errors"), "{}: no errors: {line}", path.display());
                cards += usize::from(calls);
                card.clear();
            } else if !line.starts_with('#') {
                card.clear();
            }
        }
    }
    assert!(cards > 50, "{cards} cards");
}

#[test]
fn no_file_is_longer_than_1000_lines() {
    for folder in ["crates", "examples", "tests", "docs"] {
        for (path, text) in rust_files(folder) {
            let lines = text.lines().count();
            if lines > 700 {
                eprintln!("{} has {lines} lines: consider splitting it", path.display());
            }
            assert!(lines <= 1000, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn every_example_is_in_the_index_and_has_its_twin() {
    let index = read("examples/README.md");
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "rs") {
            assert!(index.contains(&format!("({name}.rs)")), "{name} is not in examples/README.md");
            assert!(root().join(format!("examples/python/{name}.py")).exists(), "{name} has no twin");
            let text = read(&path);
            let run = format!("cargo run --example {name}");
            assert!(text.contains(&run), "{name} does not say how to run it");
        }
    }
}

#[test]
fn both_licences_are_there() {
    assert!(read("LICENSE-MIT").contains("MIT License"));
    assert!(read("LICENSE-APACHE").contains("Apache License"));
}
