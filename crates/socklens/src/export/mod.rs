//! The calls of a recording as a program: in Python, Rust or C, or as strace(1) prints them.

mod c;
mod c_helpers;
mod python;
mod rust;
mod session;
mod strace;
mod words;

use session::Session;

/// A language in which a recording can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Rust,
    C,
    Strace,
}

impl Language {
    pub(crate) const ALL: [Language; 4] = [Language::Python, Language::Rust, Language::C, Language::Strace];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Language::Python => "python",
            Language::Rust => "rust",
            Language::C => "c",
            Language::Strace => "strace",
        }
    }

    /// The end of the name of a file.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Language::Python => "py",
            Language::Rust => "rs",
            Language::C => "c",
            Language::Strace => "strace",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Language> {
        Language::ALL.into_iter().find(|language| language.name() == name)
    }

    /// The language of a file with this extension.
    pub(crate) fn of_extension(extension: &str) -> Option<Language> {
        Language::ALL.into_iter().find(|language| language.extension() == extension)
    }
}

/// Writes the calls of a recording, given as JSON lines, as a program.
///
/// # Errors
///
/// Returns an error if a line is not an event of a recording.
pub(crate) fn export(recording: &str, language: Language) -> Result<String, String> {
    let session = Session::read(recording)?;
    Ok(match language {
        Language::Python => python::program(&session),
        Language::Rust => rust::program(&session),
        Language::C => c::program(&session),
        Language::Strace => strace::text(&session),
    })
}

/// The programs in all languages, by their extensions.
pub(crate) fn all(recording: &str) -> Vec<(&'static str, String)> {
    // A recording without a call has no program. The page shows the reason instead of it.
    let text = |language| export(recording, language).unwrap_or_else(|problem| problem);
    Language::ALL.map(|language| (language.extension(), text(language))).to_vec()
}
