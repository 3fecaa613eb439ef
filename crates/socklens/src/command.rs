//! The commands of programs: words as sh(1) splits them, and no shell.

/// Commands that are no program, because they change the shell itself.
const OF_SHELL: [&str; 27] = [
    ".", ":", "alias", "bg", "case", "cd", "eval", "exec", "exit", "export", "fg", "for", "if", "jobs",
    "read", "return", "set", "shift", "source", "trap", "ulimit", "umask", "unset", "until", "wait",
    "while", "{",
];

/// Splits a command as sh(1) does it. What only a shell can do is refused, with what to write instead.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    if let Some(found) = shell_syntax(text) {
        return Err(refusal(text, &found, "; quote what belongs to a word"));
    }
    let words = shlex::split(text).ok_or_else(|| format!("a quote in {text:?} is not closed"))?;
    match words.first().map(String::as_str) {
        None | Some("") => Err("a command needs a program".to_owned()),
        Some(word) if OF_SHELL.contains(&word) => Err(refusal(text, word, "")),
        Some(word) if word.contains('\0') => Err("a command has no NUL byte".to_owned()),
        Some(_) => Ok(words),
    }
}

fn refusal(text: &str, found: &str, hint: &str) -> String {
    let found = if found == "\n" { "a second line".to_owned() } else { format!("`{found}`") };
    let quoted = shlex::try_quote(text).unwrap_or_default();
    format!("{found} is for a shell, and no shell runs. To run one, write sh -c {quoted}{hint}")
}

/// Whether this begins a variable or another expansion after a dollar sign.
fn is_expansion(next: Option<char>) -> bool {
    next.is_some_and(|c| c.is_ascii_alphanumeric() || "_{(@*#?!-$".contains(c))
}

/// The first part of a command that a shell would take for more than a part of a word.
fn shell_syntax(text: &str) -> Option<String> {
    let mut chars = text.chars().peekable();
    let mut quote = None;
    let (mut is_begin, mut is_first, mut word) = (true, true, String::new());
    while let Some(c) = chars.next() {
        let was_begin = std::mem::replace(&mut is_begin, false);
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                chars.next();
            }
            (_, '$') if is_expansion(chars.peek().copied()) => {
                let name: String =
                    std::iter::from_fn(|| chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_'))
                        .collect();
                let next = if name.is_empty() { chars.next().map(String::from) } else { Some(name) };
                return Some(format!("${}", next.unwrap_or_default()));
            }
            (_, '`') => return Some(c.to_string()),
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '&' | '|' | ';' | '<' | '>') => {
                let doubled = chars.next_if_eq(&c).is_some();
                return Some(c.to_string().repeat(1 + usize::from(doubled)));
            }
            (None, '(' | ')' | '*' | '\n') => return Some(c.to_string()),
            (None, '#') if was_begin => return Some(c.to_string()),
            (None, '~') if was_begin && chars.peek().is_none_or(|c| *c == '/' || c.is_whitespace()) => {
                return Some(c.to_string());
            }
            (None, ' ' | '\t') => (is_begin, is_first) = (true, false),
            // An assignment before the program.
            (None, '=') if is_first && is_name(&word) => return Some(format!("{word}=")),
            (None, c) if is_first => word.push(c),
            (None, _) => {}
        }
    }
    None
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (text, words) in [
            ("sleep 1.5", &["sleep", "1.5"][..]),
            ("  python3 -c 'print(\"a b\")' ", &["python3", "-c", "print(\"a b\")"]),
            ("echo \"two words\" and\\ more", &["echo", "two words", "and more"]),
            ("sh -c 'a | b > $c; ~/d && e'", &["sh", "-c", "a | b > $c; ~/d && e"]),
            ("curl 'http://10.0.0.2/?a=1&b=2' -H a:b", &["curl", "http://10.0.0.2/?a=1&b=2", "-H", "a:b"]),
            ("dd if=/dev/zero of=x#1 \"#\" a~ ~b", &["dd", "if=/dev/zero", "of=x#1", "#", "a~", "~b"]),
            ("echo 5$ \"$\" \\$x '$x' \"\\$x\" a\\&b", &["echo", "5$", "$", "$x", "$x", "$x", "a&b"]),
            ("env A=1 program --b=2 ''", &["env", "A=1", "program", "--b=2", ""]),
            (
                "echo {a,b} [x] ? ! % @ ^ = , http://[::1]/",
                &["echo", "{a,b}", "[x]", "?", "!", "%", "@", "^", "=", ",", "http://[::1]/"],
            ),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused_with_what_to_write() {
        for (text, found) in [
            ("cat a | wc", "`|`"),
            ("a && b", "`&&`"),
            ("a || b", "`||`"),
            ("sleep 1 &", "`&`"),
            ("a; b", "`;`"),
            ("echo >x", "`>`"),
            ("echo 2>&1", "`>`"),
            ("cat <<x", "`<<`"),
            ("echo $HOME/x", "`$HOME`"),
            ("echo \"${x}\"", "`${`"),
            ("echo $(x)", "`$(`"),
            ("echo \"`x`\"", "```"),
            ("(a)", "`(`"),
            ("ls *.py", "`*`"),
            ("python3 ~/a.py", "`~`"),
            ("cat ~", "`~`"),
            ("curl x # why", "`#`"),
            ("A=1 program", "`A=`"),
            ("cd x", "`cd`"),
            ("exit 3", "`exit`"),
            ("a\nb", "a second line"),
        ] {
            let problem = split(text).unwrap_err();
            let wanted = format!("{found} is for a shell, and no shell runs. To run one, write sh -c ");
            assert!(problem.starts_with(&wanted), "{text}: {problem}");
            // What is written instead is split into the shell and the command.
            let instead = problem.split_once("write ").unwrap().1.split("; quote what").next().unwrap();
            assert_eq!(split(instead).unwrap(), ["sh", "-c", text], "{instead}");
        }
    }

    #[test]
    fn a_command_without_a_program_or_with_an_open_quote_is_refused() {
        assert_eq!(split(" ").unwrap_err(), "a command needs a program");
        assert_eq!(split("'' a").unwrap_err(), "a command needs a program");
        assert_eq!(split("echo 'a").unwrap_err(), "a quote in \"echo 'a\" is not closed");
    }
}
