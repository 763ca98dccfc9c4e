//! Text that somebody else has written, on its way to a person.
//!
//! File names, arguments of programs, messages of a sandbox's agent and of a registry can hold what a terminal obeys:
//! escape sequences that move the cursor, set the title or answer as if someone typed, and signs that turn the order of
//! letters around.

use std::borrow::Cow;

/// The text with nothing in it that a terminal obeys, on one line: such letters become escapes, as in `\u{1b}`.
///
/// # Examples
///
/// ```
/// use blink_host::terminal::escape_line;
///
/// assert_eq!(escape_line("ls\x1b[2J\n"), "ls\\u{1b}[2J\\n");
/// assert_eq!(escape_line("naïve"), "naïve");
/// ```
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape(text, is_obeyed)
}

/// The same for text of several lines: ends of lines and tabs stay.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    escape(text, |letter| {
        is_obeyed(letter) && !matches!(letter, '\n' | '\t')
    })
}

/// Whether a terminal does something at this letter other than show it: control characters (C0, DEL and C1), separators
/// of lines, and signs that change the direction of what follows.
pub fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn escape(text: &str, must: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&must) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match must(letter) {
            true => escaped.extend(letter.escape_default()),
            false => escaped.push(letter),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_the_rest_stays() {
        for hostile in [
            '\0', '\x07', '\x08', '\r', '\x1b', '\x7f', '\u{80}', '\u{9b}', '\u{9d}', '\u{9f}',
            '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202e}',
            '\u{2066}', '\u{2069}',
        ] {
            let text = format!("a{hostile}b");
            for escaped in [escape_line(&text), escape_text(&text)] {
                assert!(!escaped.contains(hostile), "{escaped:?}");
                assert!(escaped.starts_with('a') && escaped.ends_with('b'));
            }
        }
        assert_eq!(escape_line("a\tb\n"), "a\\tb\\n");
        assert_eq!(escape_text("a\tb\n"), "a\tb\n");
        for plain in ["", "plain", "ünï 漢字 🦀 \u{200d}", "a\\n"] {
            assert!(matches!(escape_line(plain), Cow::Borrowed(same) if same == plain));
        }
    }
}
