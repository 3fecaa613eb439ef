//! Suggestions for a word that is not known.

/// How many characters have to be added, removed, replaced, or exchanged with the next.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.pop().unwrap_or_default()
}

/// Returns `; did you mean WORD` for the known word that is most like this one, or an empty text.
pub(crate) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // A longer word is not compared. It is no slip of the keyboard.
    if word.len() > 40 {
        return String::new();
    }
    let small = word.to_lowercase();
    let near = known.into_iter().map(|known| (distance(&small, &known.to_lowercase()), known));
    let most = 1 + small.len() / 4;
    match near.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance) {
        Some((_, known)) => format!("; did you mean {known}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["listen", "recv", "ECONNRESET", "FIN-WAIT-1"];
        for (word, expected) in [
            ("lisen", "; did you mean listen"),
            ("lsiten", "; did you mean listen"),
            ("Recv", "; did you mean recv"),
            ("ECONRESET", "; did you mean ECONNRESET"),
            ("FIN_WAIT_1", "; did you mean FIN-WAIT-1"),
            ("open", ""),
            ("", ""),
        ] {
            assert_eq!(suggestion(word, known), expected, "{word}");
        }
    }
}
