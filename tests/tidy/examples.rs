//! Counts the examples of public items, by the rules of `docs/style.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::{read, rust_files};

const CRATES: [&str; 4] = ["sock", "sockserver", "sockssl", "sockdiag"];

/// Items whose example compiles but does not run, and why it cannot.
const NO_RUN: &[(&str, &str)] = &[];

/// Items that need no example, and why.
const EXEMPT: &[(&str, &str)] = &[
    ("sockserver::Processes", "has no public path"),
    ("sockserver::Sealed", "has no public path"),
    ("sock::Interface", "has no public path"),
    ("sock::FillBuffer", "is hidden from the documentation"),
    ("sock::ReadBuffer", "is hidden from the documentation"),
];

/// Macros with a row for each item, and what they define: functions of a type, types, or types whose
/// example is in the macro.
const ROWS: &[(&str, Rows)] = &[
    ("deadlines", Rows::Functions("Builder")),
    ("mixin_options", Rows::Functions("Builder")),
    ("number", Rows::Types),
    ("server_classes", Rows::TypesWithExample),
];

#[derive(Clone, Copy, PartialEq)]
enum Rows {
    Functions(&'static str),
    Types,
    TypesWithExample,
}

/// A public function or type, and its documentation.
#[derive(Debug)]
struct Item {
    /// With the crate and the type, such as `sock::Socket::bind`.
    path: String,
    is_function: bool,
    docs: String,
    /// The file and the line.
    place: String,
}

impl Item {
    fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap()
    }

    fn owner(&self) -> &str {
        self.path.rsplit_once("::").unwrap().0
    }

    fn file(&self) -> &str {
        self.place.split(':').next().unwrap()
    }

    /// Returns the code of the examples that run, or of those that only compile.
    fn code(&self, runs: bool) -> String {
        let mut code = String::new();
        let (mut is_fenced, mut is_wanted) = (false, false);
        for line in self.docs.lines() {
            if let Some(info) = line.trim().strip_prefix("```") {
                is_fenced = !is_fenced;
                let has = |words: &[&str]| info.split(',').any(|word| words.contains(&word));
                let is_rust = info.is_empty() || has(&["rust", "no_run", "should_panic"]);
                is_wanted = is_fenced && is_rust && !has(&["ignore", "text"]) && has(&["no_run"]) != runs;
            } else if is_fenced && is_wanted {
                code += line;
                code.push('\n');
            }
        }
        code
    }

    /// Returns whether it has an example that runs. That of a function has to call the function.
    fn has_example(&self) -> bool {
        let has = |code: &str| !code.is_empty() && (!self.is_function || mentions(code, self.name()));
        let cannot_run = NO_RUN.iter().any(|(path, _)| *path == self.path);
        has(&self.code(true)) || cannot_run && has(&self.code(false))
    }

    /// Returns the item named in "See the example of [`Type::function`]".
    fn link(&self) -> Option<String> {
        let docs: Vec<_> = self.docs.split_whitespace().collect();
        let docs = docs.join(" ");
        let (_, link) = docs.split_once("See the example of [`")?;
        let link = link.split('`').next()?;
        Some(match link.strip_prefix("Self::") {
            Some(function) => format!("{}::{function}", self.owner().rsplit("::").next().unwrap()),
            None => link.to_owned(),
        })
    }
}

fn mentions(code: &str, name: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Returns the name of the type of `impl<T> Name<T> {`, without generics.
fn impl_type(line: &str) -> &str {
    let mut rest = line.strip_prefix("impl").unwrap();
    if rest.starts_with('<') {
        let mut depth = 0;
        // The `>` of `->` does not close a bracket.
        let end = rest.char_indices().find(|(index, c)| {
            depth += i32::from(*c == '<') - i32::from(*c == '>' && !rest[..*index].ends_with('-'));
            depth == 0
        });
        rest = &rest[end.map_or(0, |(index, _)| index + 1)..];
    }
    let name = rest.trim_start();
    identifier(name.strip_prefix("dyn ").unwrap_or(name))
}

/// Returns the public items of a file. Those of Windows and hidden ones are left out.
fn items(crate_name: &str, file: &str, text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut docs, mut attributes) = (String::new(), String::new());
    let mut is_attribute = false;
    let mut owner = "";
    // The ends of the trait and of the macro call that the line is in.
    let mut public_trait: Option<String> = None;
    let mut rows: Option<(Rows, String)> = None;
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = &line[..line.len() - content.len()];
        if let Some(doc) = content.strip_prefix("///") {
            docs += doc.strip_prefix(' ').unwrap_or(doc);
            docs.push('\n');
            continue;
        }
        if is_attribute || content.starts_with("#[") {
            attributes += content;
            is_attribute = !content.ends_with(']');
            continue;
        }
        if content.starts_with("//") {
            continue;
        }
        let (docs, attributes) = (std::mem::take(&mut docs), std::mem::take(&mut attributes));
        if public_trait.as_deref() == Some(line) {
            public_trait = None;
        }
        if rows.as_ref().is_some_and(|(_, end)| end == line) {
            rows = None;
        }
        let call = content.split_once("! {").filter(|(_, rest)| rest.is_empty());
        if let Some((_, defines)) =
            ROWS.iter().find(|(name, _)| call.is_some_and(|(call, _)| call == *name))
        {
            rows = Some((*defines, format!("{indent}}}")));
            continue;
        }
        if content.starts_with("impl") {
            owner = if content.contains(" for ") { "" } else { impl_type(content) };
            continue;
        }
        if content.starts_with("mod ") && content.ends_with('{') {
            owner = "";
        }
        let mut declared = content.strip_prefix("pub ").unwrap_or_default();
        for word in ["const ", "unsafe ", "async "] {
            declared = declared.strip_prefix(word).unwrap_or(declared);
        }
        let kinds = ["fn ", "struct ", "enum ", "union ", "trait ", "type "];
        let mut found = kinds.iter().find_map(|kind| {
            let name = identifier(declared.strip_prefix(kind)?);
            let name = (!name.is_empty()).then_some(name)?;
            Some((name, *kind == "fn "))
        });
        let mut parent = if indent.is_empty() { "" } else { owner };
        if declared.starts_with("trait ") {
            owner = found.unwrap().0;
            public_trait = Some(format!("{indent}}}"));
            parent = "";
        } else if public_trait.is_some() {
            parent = owner;
            found = content.strip_prefix("fn ").map(|rest| (identifier(rest), true));
        } else if let Some((defines, _)) = rows.as_ref().filter(|_| !docs.is_empty()) {
            if let Rows::Functions(of) = defines {
                parent = of;
            }
            found = Some((identifier(content), matches!(defines, Rows::Functions(_))));
        }
        let Some((name, is_function)) = found else { continue };
        let is_hidden =
            ["doc(hidden)", "cfg(windows)", "cfg(test)"].iter().any(|gate| attributes.contains(gate));
        let in_macro = matches!(rows, Some((Rows::TypesWithExample, _)));
        if is_hidden || in_macro {
            continue;
        }
        if !is_function {
            parent = "";
        }
        let path = [crate_name, parent, name].into_iter().filter(|part| !part.is_empty());
        items.push(Item {
            path: path.collect::<Vec<_>>().join("::"),
            is_function,
            docs,
            place: format!("{file}:{}", number + 1),
        });
    }
    items
}

fn items_of(crate_name: &str) -> Vec<Item> {
    let mut all = Vec::new();
    for (path, text) in rust_files(&format!("crates/{crate_name}/src")) {
        let path = path.to_string_lossy();
        // Their examples cannot run here, or they are hidden.
        if !path.ends_with("windows.rs") && !path.contains("fuzz_invariants") {
            all.extend(items(crate_name, &path, &text));
        }
    }
    all.retain(|item| !EXEMPT.iter().any(|(path, _)| item.path == *path || item.owner() == *path));
    all
}

/// Returns the places of items without an example, by path.
fn missing(items: &[Item]) -> BTreeMap<&str, &str> {
    let mut missing = BTreeMap::new();
    // Each function can be the example of one other function.
    let mut pairs = BTreeSet::new();
    for item in items {
        let of_a_function = || items.iter().any(|other| other.owner() == item.path && other.has_example());
        let link = item.link();
        let end = link.map(|link| format!("::{link}")).unwrap_or_default();
        let linked = items.iter().find(|other| !end.is_empty() && other.path.ends_with(&end));
        let is_linked = linked.is_some_and(|other| match item.is_function {
            true => {
                other.is_function
                    && other.file() == item.file()
                    && other.has_example()
                    && mentions(&other.code(true), item.name())
                    && pairs.insert(&other.path)
            }
            false => other.has_example(),
        });
        let has_one = item.has_example() || is_linked || !item.is_function && of_a_function();
        if !has_one {
            missing.insert(&*item.path, &*item.place);
        }
    }
    missing
}

#[test]
fn every_public_item_has_an_example_that_runs() {
    let listed = read("tests/tidy/without_example.txt");
    let listed: BTreeSet<_> =
        listed.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut report = Vec::new();
    let mut without = BTreeSet::new();
    for name in CRATES {
        let items = items_of(name);
        let missing = missing(&items);
        eprintln!("{name}: {} of {} items have an example", items.len() - missing.len(), items.len());
        assert!(items.len() > 30, "{name}: only {} items found", items.len());
        for (path, place) in missing {
            if !listed.contains(path) {
                report.push(format!("{place}: {path} has no example that runs: see docs/style.md"));
            }
            without.insert(path.to_owned());
        }
    }
    let done = listed.iter().filter(|path| !without.contains(**path));
    report.extend(done.map(|path| format!("remove {path} from tests/tidy/without_example.txt")));
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[test]
fn items_without_an_example_are_found() {
    let text = "\
/// A type with an example for a function.
#[derive(Debug)]
pub struct Plug(i32);

impl<F: Fn() -> i32> Plug<F> {
    /// Creates it.
    ///
    /// ```
    /// let plug = Plug::new();
    /// assert_eq!(plug.len(), 0);
    /// ```
    pub const fn new() -> Plug {
        Plug(0)
    }

    /// Returns the length. See the example of [`Self::new`].
    pub fn len(&self) -> usize {
        0
    }

    /// The second function that refers to the same example.
    /// See the example of [`Plug::new`].
    pub fn new_plug(&self) {}

    /// An example that does not call it.
    ///
    /// ```
    /// let other = 1;
    /// ```
    pub fn drop_it(self) {}

    /// An example that does not run.
    ///
    /// ```no_run
    /// plug.wait();
    /// ```
    pub fn wait(&self) {}

    #[doc(hidden)]
    pub fn hidden(&self) {}

    pub(crate) fn inner(&self) {}
}

pub trait Fit {
    /// Fits.
    fn fit(&self);
}
";
    let items = items("sock", "plug.rs", text);
    let missing: Vec<_> = missing(&items).into_keys().collect();
    assert_eq!(
        missing,
        ["sock::Fit", "sock::Fit::fit", "sock::Plug::drop_it", "sock::Plug::new_plug", "sock::Plug::wait"]
    );
    assert_eq!(items.len(), 8);
}
