//! The page with the figures: what stands between its markers is written here, the
//! rest by people.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::modes::MODES;
use crate::results::Results;
use crate::{chart, machine, table, targets};

/// Puts all results into the page, and their charts beside it.
pub(crate) fn write(page: &Path, all: &BTreeMap<String, Results>) -> Result<(), Box<dyn Error>> {
    let charts = page.with_extension("");
    fs::create_dir_all(&charts)?;
    let mut modes = String::new();
    for mode in MODES {
        let Some(results) = all.get(mode.name) else { continue };
        let name = format!("{}.svg", mode.name);
        chart::draw(mode, results, &charts.join(&name))?;
        let folder = charts.file_name().unwrap_or_default().to_string_lossy();
        write!(modes, "### {}\n\n", mode.title)?;
        write!(modes, "`benches/run {}`: {}\n\n", mode.name, table::legend(results))?;
        write!(modes, "{}\n![{}]({folder}/{name})\n\n", table::of(mode, results), mode.title)?;
    }
    let mut text = fs::read_to_string(page)?;
    replace(&mut text, "machine", &machine::describe())?;
    replace(&mut text, "targets", &targets::table(all, None))?;
    replace(&mut text, "figures", modes.trim_end())?;
    fs::write(page, text)?;
    Ok(())
}

fn replace(text: &mut String, name: &str, with: &str) -> Result<(), Box<dyn Error>> {
    let (begin, end) =
        (format!("<!-- {name}: written by benches/run -->"), format!("<!-- {name}: end -->"));
    let missing = || format!("the page lacks {begin} … {end}");
    let from = text.find(&begin).ok_or_else(missing)? + begin.len();
    let to = from + text[from..].find(&end).ok_or_else(missing)?;
    text.replace_range(from..to, &format!("\n\n{}\n\n", with.trim()));
    Ok(())
}
