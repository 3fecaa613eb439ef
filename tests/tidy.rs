//! The house rules that can be checked: layers, `unsafe`, file sizes, the index of
//! the examples, and the language of comments, messages and documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/examples.rs"]
mod examples;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the Rust files below a folder, with their path from the root.
fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    files(folder, is_rust)
}

/// Returns the files below a folder that `wanted` selects, with their path from the root.
fn files(folder: &str, wanted: impl Fn(&Path) -> bool) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut paths = vec![root().join(folder)];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            // Build results and the tools' own folders.
            if !["target", "corpus", "artifacts", ".git", "__pycache__"].iter().any(|&other| name == other)
            {
                paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if wanted(&path) {
            files.push((path.strip_prefix(root()).unwrap().to_owned(), read(&path)));
        }
    }
    files.sort();
    files
}

fn is_sys(path: &Path) -> bool {
    ["crates/sock/src/sys", "crates/sockserver/src/os", "crates/socklens/src/sys"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

/// Returns the position of each folder or file of a crate in its line of
/// `docs/architecture.md`.
fn layers(name: &str) -> BTreeMap<String, usize> {
    let page = read("docs/architecture.md");
    let prefix = format!("layers of {name}:");
    let line = page.lines().find_map(|line| line.strip_prefix(&prefix));
    let line = line.unwrap_or_else(|| panic!("docs/architecture.md has no line {prefix:?}"));
    line.split_whitespace().enumerate().map(|(position, folder)| (folder.to_owned(), position)).collect()
}

/// Returns the modules that a file names outside of its tests.
fn used(text: &str) -> Vec<&str> {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect()
}

#[test]
fn a_folder_imports_only_folders_before_it() {
    for name in ["sock", "sockserver", "sockssl", "sockdiag", "socklens"] {
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

/// Returns the names of a manifest's dependencies, without those of its tests and examples.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut is_listed = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_listed = line.ends_with("dependencies]") && !line.ends_with("dev-dependencies]");
        } else if is_listed && line.starts_with(|first: char| first.is_ascii_lowercase()) {
            names.extend(line.split([' ', '.', '=']).next());
        }
    }
    names
}

#[test]
fn sockserver_sockssl_and_sockdiag_do_not_depend_on_each_other() {
    let neighbours = ["sockserver", "sockssl", "sockdiag"];
    for name in neighbours {
        let manifest = read(format!("crates/{name}/Cargo.toml"));
        let dependencies = dependencies(&manifest);
        assert!(dependencies.contains(&"sock"), "{dependencies:?}");
        for other in neighbours.into_iter().filter(|other| *other != name) {
            assert!(!dependencies.contains(&other), "{name} depends on {other}");
        }
    }
}

/// Users of `sockssl` must not depend on the version of its TLS library.
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

/// Otherwise CPython's tests would test the extension and not `sock`.
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

/// In `sock` the documentation of a function that makes a call has an example, and that of
/// a function that can fail has a section on errors.
#[test]
fn every_call_of_sock_has_its_card() {
    let mut cards = 0;
    for (path, text) in rust_files("crates/sock/src") {
        // Examples of functions that exist only on Windows cannot run here.
        if path.ends_with("windows.rs") || path.to_string_lossy().contains("fuzz_invariants") {
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

/// Words and phrases that `docs/style.md` bans, as they are found by [`banned_in`].
const BANNED: &[&str] = &[
    "tell",
    "tells",
    "telling",
    "told",
    "untold",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "whoever",
    "whom",
    "who does",
    "who calls",
    "who asks",
    "who waits",
    "who reads",
    "who wants",
    "who needs",
    "for who",
    "of who",
    "to who",
    "by who",
    "of no more use",
    "of no use",
    "in vain",
    "even so",
    "for good",
    "had better",
    "sees to",
    "see to it",
    "is its right",
    "no news",
    "want of",
    "goes by",
    "the former",
    "moments",
    "goodbye",
    "strangers",
    "hungry",
    "last words",
    "cannot be had",
    "says so",
    "said so",
];

/// Where a banned word is allowed, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    // The lists of banned words.
    ("docs/style.md", "", "lists the banned words"),
    ("tests/tidy.rs", "", "lists the banned words"),
    ("crates/sockdiag/tests/kernel/users.rs", "nobody", "the user of that name"),
];

/// Folders whose language is checked.
const CHECKED: &[&str] =
    &["README.md", ".ci", "benches", "crates", "deny.toml", "docs", "examples", "scripts", "tests"];

fn is_text(path: &Path) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => ["rs", "py", "md", "c", "go", "toml", "sh", "txt"].contains(&extension),
        // Scripts.
        None => fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"#!")),
    }
}

/// Returns the banned words of a text with their line numbers. Words are separated by
/// anything but letters, so names in snake case are searched too, and a phrase may
/// continue in the next line.
fn banned_in(text: &str) -> Vec<(usize, &'static str)> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        words.extend(
            line.split(|c: char| !c.is_alphabetic())
                .filter(|word| !word.is_empty())
                .map(|word| (number + 1, word.to_owned())),
        );
    }
    let mut by_first_word: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    for phrase in BANNED {
        by_first_word.entry(phrase.split(' ').next().unwrap()).or_default().push(phrase);
    }
    let mut found = Vec::new();
    for (index, (line, word)) in words.iter().enumerate() {
        for phrase in by_first_word.get(word.as_str()).into_iter().flatten() {
            let mut following = words[index..].iter().map(|(_, word)| word);
            if phrase.split(' ').all(|word| following.next().is_some_and(|next| next == word)) {
                found.push((*line, *phrase));
            }
        }
    }
    found.sort();
    found
}

/// Returns the banned words of a folder as lines of a report.
fn banned_below(folder: &str) -> Vec<String> {
    let mut report = Vec::new();
    for (path, text) in files(folder, is_text) {
        let allowed = |word: &str| {
            ALLOWED.iter().any(|(file, one, _)| path == Path::new(file) && (one.is_empty() || *one == word))
        };
        for (line, word) in banned_in(&text).into_iter().filter(|(_, word)| !allowed(word)) {
            report.push(format!("{}:{line}: {word:?}", path.display()));
        }
    }
    report
}

#[test]
fn no_text_contains_a_banned_word() {
    let report: Vec<_> = CHECKED.iter().flat_map(|folder| banned_below(folder)).collect();
    assert!(report.is_empty(), "see docs/style.md:\n{}", report.join("\n"));
}

#[test]
fn banned_words_are_found() {
    assert_eq!(banned_in("Fine.\n// It is of no\n// more use."), [(2, "of no more use")]);
    assert_eq!(banned_in("fn a_stop_is_told() {}\nA teller."), [(1, "told")]);
}

/// A new folder must be checked too.
#[test]
fn the_language_of_every_folder_is_checked() {
    let listed: Vec<_> = CHECKED.iter().map(Path::new).collect();
    for (path, _) in files("", is_text) {
        let known = listed.iter().any(|folder| path.starts_with(folder));
        assert!(
            known
                || path.ends_with("Cargo.toml")
                || ["rustfmt.toml", "deny.toml"].contains(&path.to_string_lossy().as_ref()),
            "{}",
            path.display()
        );
    }
}

#[test]
fn markdown_is_wrapped_at_100_columns() {
    let pages = files("", |path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(pages.len() > 15, "only {} pages", pages.len());
    let mut report = Vec::new();
    for (path, text) in pages {
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            let content = line.trim_start();
            is_code ^= content.starts_with("```");
            let is_exempt =
                is_code || ["|", "```", "![", "<!--"].iter().any(|start| content.starts_with(start));
            // A link that does not fit on a line cannot be wrapped.
            let has_long_word = content.split(' ').any(|word| word.chars().count() > 96);
            let columns = line.chars().count();
            if columns > 100 && !is_exempt && !has_long_word {
                report.push(format!("{}:{}: {columns} columns", path.display(), number + 1));
            }
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

/// The folders with examples that have a Python twin, the command that runs one, and the folder as
/// `examples/README.md` names it.
const EXAMPLES: [(&str, &str, &str); 2] = [
    ("examples", "cargo run --example", ""),
    ("crates/sockssl/examples", "cargo run -p sockssl --example", "../crates/sockssl/examples/"),
];

/// A client that sends no newline must not fill the memory: `readline(limit)`, `for line in`, or
/// `take(limit)`.
#[test]
fn no_server_of_the_examples_and_the_guide_reads_a_line_without_a_limit() {
    let is_shown = |path: &Path| path.extension().is_some_and(|suffix| suffix == "rs" || suffix == "md");
    let mut unlimited = Vec::new();
    for folder in [
        "examples",
        "docs",
        "crates/sockssl/examples",
        "crates/sock",
        "crates/sockserver",
        "crates/sockssl",
    ] {
        for (path, text) in files(folder, is_shown) {
            // In the crates only what is shown, not the code and the tests.
            let is_package = folder.starts_with("crates") && !folder.ends_with("examples");
            if is_package && path.extension().is_some_and(|suffix| suffix == "rs") {
                continue;
            }
            for (index, line) in text.lines().enumerate() {
                if ["rfile.read_line(", "rfile.read_until(", "rfile.lines()"]
                    .iter()
                    .any(|call| line.contains(call))
                {
                    unlimited.push(format!("{}:{}: {line}", path.display(), index + 1));
                }
            }
        }
    }
    assert!(unlimited.is_empty(), "{unlimited:#?}");
}

#[test]
fn every_example_is_in_the_index_and_has_its_twin() {
    let index = read("examples/README.md");
    for (folder, command, link) in EXAMPLES {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_some_and(|extension| extension == "rs") {
                assert!(
                    index.contains(&format!("({link}{name}.rs)")),
                    "{name} is not in examples/README.md"
                );
                assert!(root().join(format!("examples/python/{name}.py")).exists(), "{name} has no twin");
                let run = format!("{command} {name}");
                assert!(read(&path).contains(&run), "{name} does not say how to run it");
            }
        }
    }
}

/// The first command of the README compiles all that the root package needs.
#[test]
#[cfg(unix)] // The tests for Windows run where cargo is not available.
fn the_plain_examples_need_neither_tls_nor_a_c_compiler() {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["tree", "-p", "sock-examples", "--edges", "normal,build,dev", "--prefix", "none"]);
    cargo.args(["--format", "{p}", "--locked", "--offline"]).current_dir(root());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<_> = lines.lines().filter_map(|line| line.split(' ').next()).collect();
    for name in ["sock", "sockserver", "env_logger"] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    for name in ["sockssl", "rustls", "cc", "cmake", "regex"] {
        assert!(!names.contains(name), "an example needs {name}");
    }
    assert!(names.len() <= 26, "{} crates: {names:?}", names.len());
}

#[test]
fn both_licences_are_there() {
    assert!(read("LICENSE-MIT").contains("MIT License"));
    assert!(read("LICENSE-APACHE").contains("Apache License"));
}

/// The crates that are published.
const PACKAGES: [&str; 5] = ["sock", "sockserver", "sockssl", "sockdiag", "socklens"];

#[test]
fn the_manifest_of_a_published_crate_is_complete() {
    for name in PACKAGES {
        let manifest = read(format!("crates/{name}/Cargo.toml"));
        for key in [
            "description = ",
            "keywords = ",
            "categories = ",
            "rust-version.workspace = true",
            "license.workspace = true",
            "readme = \"README.md\"",
            &format!("documentation = \"https://docs.rs/{name}\""),
            "include = ",
            "rustdoc-args = [\"--cfg\", \"docsrs\"]",
        ] {
            assert!(manifest.lines().any(|line| line.starts_with(key)), "{name}: no {key}");
        }
        assert!(read(format!("crates/{name}/src/lib.rs")).contains("feature(doc_cfg)"), "{name}");
    }
    for manifest in ["Cargo.toml", "docs/Cargo.toml", "tests/Cargo.toml", "benches/Cargo.toml"] {
        assert!(read(manifest).lines().any(|line| line == "publish = false"), "{manifest}");
    }
}

/// A package contains only files of its folder. Links to files of other folders are followed.
#[test]
fn a_package_contains_licences_changelog_and_guide() {
    let same = |copy: String, original: &str| {
        assert!(read(&copy) == read(original), "{copy} is not a link to {original}");
    };
    for name in PACKAGES {
        same(format!("crates/{name}/LICENSE-MIT"), "LICENSE-MIT");
        same(format!("crates/{name}/LICENSE-APACHE"), "LICENSE-APACHE");
        same(format!("crates/{name}/CHANGELOG.md"), "docs/changelog.md");
    }
    let mut pages = 0;
    for line in read("crates/sock/src/guide.rs").lines().filter(|line| line.starts_with("page!(")) {
        let page = line.rsplit('"').nth(1).unwrap();
        same(format!("crates/sock/guide/{page}"), &format!("docs/{page}"));
        // The reference replaces definitions of links, and cannot replace a link in the text.
        let text = read(format!("docs/{page}"));
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links {
            let works = link.starts_with("http") || link.starts_with('#');
            assert!(works, "docs/{page}: define the link to {link} at the end of the page");
        }
        pages += 1;
    }
    assert!(pages >= 7, "{pages} pages");
}

/// Returns whether a path with `..` leads out of a folder that is `depth` folders above the file.
fn leaves(path: &str, depth: usize) -> bool {
    path.split('/').take_while(|&part| part == "..").count() > depth
}

#[test]
fn a_package_compiles_without_the_repository() {
    for name in PACKAGES {
        let folder = format!("crates/{name}");
        let manifest = read(format!("{folder}/Cargo.toml"));
        for (path, text) in rust_files(&folder) {
            let inside = path.strip_prefix(&folder).unwrap();
            if !inside.starts_with("src") && !inside.starts_with("examples") {
                continue; // Not in the package.
            }
            let depth = inside.components().count() - 1;
            for line in text.lines().filter(|line| line.contains("path = \"") || line.contains("include_"))
            {
                let paths = line.split('"').filter(|part| part.starts_with("../"));
                for used in paths {
                    assert!(!leaves(used, depth), "{}: {used}", path.display());
                    let (above, file) = used.split_at(used.rfind("../").unwrap() + 3);
                    // From the folder of the package.
                    if above.len() / 3 == depth {
                        let included =
                            manifest.lines().find(|line| line.starts_with("include = ")).unwrap();
                        let top = file.split_once('/').map_or(file, |(folder, _)| folder);
                        assert!(included.contains(&format!("\"/{top}")), "{name}: {file} is not included");
                    }
                }
            }
        }
    }
    assert!(leaves("../../../examples/common/mod.rs", 1) && !leaves("../README.md", 1));
}

#[test]
fn a_front_page_links_to_the_other_crates_and_the_guide() {
    for name in PACKAGES {
        let mut page = read(format!("crates/{name}/src/lib.rs"));
        if page.contains("include_str!(\"../README.md\")") {
            page += &read(format!("crates/{name}/README.md"));
        }
        for other in PACKAGES.iter().filter(|other| **other != name) {
            assert!(page.contains(&format!("[`{other}`]")), "{name} does not link to {other}");
        }
        assert!(page.contains("guide::"), "{name} does not link to the guide");
        let manifest = read(format!("crates/{name}/Cargo.toml"));
        let features = manifest.split_once("\n[features]\n").map(|(_, rest)| rest);
        let features = features.map_or("", |rest| rest.split("\n[").next().unwrap());
        for line in features.lines().filter(|line| !line.starts_with('#') && !line.starts_with("default")) {
            let Some((feature, _)) = line.split_once(" = ") else { continue };
            assert!(page.contains(&format!("| `{feature}` | o")), "{name} does not show {feature}");
        }
    }
}

/// Returns the setters of `sockserver::Builder`: functions that take and return the builder, and
/// the names in the macros that define such functions.
fn setters() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (path, text) in rust_files("crates/sockserver/src/api") {
        if !path.to_string_lossy().contains("builder") {
            continue;
        }
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            if let Some(declared) = line.strip_prefix("pub fn ") {
                let end = lines[number..].iter().position(|line| line.ends_with('{')).unwrap();
                let signature = lines[number..=number + end].join(" ");
                let name = declared.split(['(', '<']).next().unwrap();
                if signature.contains("-> Self {") && signature.contains("self") && !name.starts_with('$') {
                    names.insert(name.to_owned());
                }
            }
            // A line of `mixin_options!`, or a name in `deadlines!`.
            let follows_doc = number > 0 && lines[number - 1].starts_with("///");
            let end = line.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(line.len());
            let rest = &line[end..];
            if follows_doc && end > 0 && (rest.is_empty() || rest.starts_with('(') && rest.ends_with(");"))
            {
                names.insert(line[..end].to_owned());
            }
        }
    }
    names
}

#[test]
fn the_table_of_the_builder_lists_every_setter() {
    let setters = setters();
    for name in ["hooks", "wrap_request", "idle_timeout", "max_children", "unix_mode"] {
        assert!(setters.contains(name), "{name} is not in {setters:?}");
    }
    let page = read("crates/sockserver/src/api/builder.rs");
    let rows = page.lines().filter_map(|line| line.strip_prefix("/// | "));
    let names = rows.filter_map(|row| row.trim_start_matches('[').strip_prefix('`'));
    let listed: BTreeSet<_> = names.map(|row| row.split('`').next().unwrap().to_owned()).collect();
    assert_eq!(listed, setters);
}
