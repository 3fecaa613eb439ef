//! Writes the generated parts of `docs/performance.md` and `docs/performance/figures.md`,
//! which are between markers.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::modes::MODES;
use crate::results::Results;
use crate::{chart, machine, table, targets};

/// Writes the summary into `page`, and the tables of all modes with their charts into the
/// folder of the same name.
pub(crate) fn write(page: &Path, all: &BTreeMap<String, Results>) -> Result<(), Box<dyn Error>> {
    let folder = page.with_extension("");
    let mut modes = String::new();
    for mode in MODES {
        let Some(results) = all.get(mode.name) else { continue };
        let name = format!("{}.svg", mode.name);
        chart::draw(mode, results, &folder.join(&name))?;
        write!(modes, "### {}\n\n", mode.title)?;
        write!(modes, "`benches/run {}`: {}\n\n", mode.name, table::legend(results))?;
        write!(modes, "{}\n![{}]({name})\n\n", table::of(mode, results), mode.title)?;
    }
    let (machine, targets) = (machine::describe(), targets::table(all, None));
    update(page, &[("machine", &machine), ("targets", &targets)])?;
    update(&folder.join("figures.md"), &[("figures", &modes)])
}

fn update(page: &Path, parts: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    let mut text = fs::read_to_string(page)?;
    for (name, with) in parts {
        replace(&mut text, name, with).map_err(|error| format!("{}: {error}", page.display()))?;
    }
    fs::write(page, text)?;
    Ok(())
}

fn replace(text: &mut String, name: &str, with: &str) -> Result<(), Box<dyn Error>> {
    let (begin, end) =
        (format!("<!-- {name}: written by benches/run -->"), format!("<!-- {name}: end -->"));
    let missing = || format!("no {begin} … {end}");
    let from = text.find(&begin).ok_or_else(missing)? + begin.len();
    let to = from + text[from..].find(&end).ok_or_else(missing)?;
    text.replace_range(from..to, &format!("\n\n{}\n\n", with.trim()));
    Ok(())
}
