//! Normalizes transcripts.

/// The number of columns of the pseudo-terminals.
pub(crate) const WIDTH: u16 = 80;

/// Replaces the server's port by `SERVER` and other ports by `PORT`.
pub(crate) fn normal(text: &str, server_port: &str) -> String {
    let mut normal = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|char: char| char.is_ascii_digit()) {
        let digits = rest[start..].bytes().take_while(u8::is_ascii_digit).count();
        let number = &rest[start..start + digits];
        normal.push_str(&rest[..start]);
        normal.push_str(match number {
            _ if number == server_port => "SERVER",
            _ if normal.ends_with("127.0.0.1:") => "PORT",
            _ => number,
        });
        rest = &rest[start + digits..];
    }
    normal.push_str(rest);
    // A prompt without an answer ends in a space, which is not visible on a screen.
    let lines: Vec<&str> = normal.split('\n').map(str::trim_end).collect();
    lines.join("\n")
}

/// Returns the lines that a terminal shows after these bytes.
///
/// It supports what prompts and progress bars need: carriage return, line feed, wrapping at the right
/// edge, and the control sequences to move up and to erase. Other sequences are ignored.
pub(crate) fn screen(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<Vec<char>> = Vec::new();
    let (mut row, mut column) = (0, 0);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                // A control sequence: parameters, then a letter for the function.
                let mut parameter = String::new();
                let deed = loop {
                    match chars.next() {
                        Some('[') => {}
                        Some(char) if !char.is_ascii_alphabetic() => parameter.push(char),
                        Some(char) => break char,
                        None => break ' ',
                    }
                };
                match (deed, lines.get_mut(row)) {
                    ('A', _) => row = row.saturating_sub(parameter.parse().unwrap_or(1)),
                    ('K', Some(line)) if parameter == "2" => line.clear(),
                    ('K', Some(line)) => line.truncate(column),
                    _ => {}
                }
            }
            _ => {
                if column == usize::from(WIDTH) {
                    (row, column) = (row + 1, 0);
                }
                if lines.len() <= row {
                    lines.resize_with(row + 1, Vec::new);
                }
                let line = &mut lines[row];
                if line.len() <= column {
                    line.resize(column + 1, ' ');
                }
                line[column] = char;
                column += 1;
            }
        }
    }
    // The cursor's line counts even if it is empty, because a newline created it.
    lines.resize_with(lines.len().max(row + 1), Vec::new);
    let lines: Vec<String> = lines.iter().map(|line| line.iter().collect()).collect();
    lines.join("\n")
}

#[test]
fn ports_are_replaced_and_other_numbers_are_kept() {
    let text = "listening on 127.0.0.1:4000\n127.0.0.1:40001 sent 4000 of 40002 > \nend";
    let named = "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT sent SERVER of 40002 >\nend";
    assert_eq!(normal(text, "4000"), named);
}

#[test]
fn a_screen_shows_what_was_drawn_last() {
    assert_eq!(screen(b"> typed\r\nanswer\r\n"), "> typed\nanswer\n");
    assert_eq!(screen(b"\r10 bytes |\r20 bytes /\r30 bytes  \r\nend\r\n"), "30 bytes  \nend\n");
    assert_eq!(screen(b"long line\r\x1b[2Kbar\n\x1b[1Ax\x1b[K"), "barx");
    // A full line is continued in the next one.
    let full = "x".repeat(80);
    assert_eq!(screen(format!("{full}end").as_bytes()), format!("{full}\nend"));
}
