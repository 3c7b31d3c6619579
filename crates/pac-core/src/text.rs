//! Text of others on its way to a terminal or a log.
//!
//! A message of a server, a record in a store, a name in a manifest or a value of the settings may
//! hold escape sequences that move the cursor or set the title of a window, line breaks that forge
//! lines of a log, marks that turn the order of the letters round, and megabytes. [`one_line`]
//! makes it fit to be shown. [`Error`](crate::Error) does so with its message and its causes; a
//! program does it where it prints, or logs, what it got from elsewhere.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The most bytes that a text has afterwards: a screenful. What is cut is told.
pub const LONGEST: usize = 2_048;

/// Bytes that are kept free for the words that tell what was cut.
const FOR_THE_REST: usize = 48;

/// The text on one line of at most [`LONGEST`] bytes. Characters that are not
/// [`plain`](is_plain) are written as Rust writes them (`\n`, `\u{1b}`). A text without them that
/// is short enough comes back as it is; so does one that has been through here before.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut line = String::new();
    // What is there when no more may come; from there on it is cut if more does come.
    let mut fits = 0;
    let mut rest = 0;
    for (at, character) in text.char_indices() {
        append(&mut line, character);
        if line.len() <= LONGEST - FOR_THE_REST {
            fits = line.len();
            rest = at + character.len_utf8();
        } else if line.len() > LONGEST {
            line.truncate(fits);
            let more = text.len() - rest;
            // Writing to a string does not fail.
            let _ = write!(line, "… ({more} more bytes)");
            break;
        }
    }
    Cow::Owned(line)
}

/// The text with its lines, and with every other character that is not [plain](is_plain) written
/// as Rust writes it. Of any length: for what a program says itself with words of others in it,
/// each of which went through [`one_line`].
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain_or_end) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' {
            escaped.push('\n');
        } else {
            append(&mut escaped, character);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character shows itself, and does nothing else: no control character (C0, C1, DEL), no
/// mark that changes the direction of writing, no separator of lines, no other character of a
/// format or without a meaning, no space that is wider or narrower than a space, and none that
/// is not seen at all.
#[must_use]
pub fn is_plain(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\u{9f}' => false,
        // Fillers, joiners and selectors that the standard library counts as letters and marks.
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}' => false,
        _ => is_printable(character),
    }
}

/// As the standard library decides it for `Debug`, which escapes control characters, formats,
/// separators, private and unassigned characters. A mark that stands on a letter, as in a
/// decomposed `é`, is printable behind that letter.
fn is_printable(character: char) -> bool {
    let mut behind_a_letter = String::from("a");
    behind_a_letter.push(character);
    behind_a_letter.escape_debug().count() == 2
}

fn is_plain_or_end(character: char) -> bool {
    character == '\n' || is_plain(character)
}

fn append(text: &mut String, character: char) {
    if is_plain(character) {
        text.push(character);
    } else {
        text.extend(character.escape_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_letters_round_is_written_out() {
        for (text, shown) in [
            (
                "plain, ünïcode 日本 🙂 \\ \" '",
                "plain, ünïcode 日本 🙂 \\ \" '",
            ),
            (
                "\u{1b}[2J\u{1b}]0;title\u{7}",
                "\\u{1b}[2J\\u{1b}]0;title\\u{7}",
            ),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\u{0}"),
            ("\u{7f}\u{9b}2J\u{85}", "\\u{7f}\\u{9b}2J\\u{85}"),
            ("user\u{202e}txt.exe", "user\\u{202e}txt.exe"),
            (
                "\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}",
                "\\u{2066}\\u{2069}\\u{200e}\\u{200f}\\u{61c}",
            ),
            (
                "\u{2028}\u{2029}\u{feff}\u{200b}\u{ad}",
                "\\u{2028}\\u{2029}\\u{feff}\\u{200b}\\u{ad}",
            ),
            (
                "\u{e0041}\u{e000}\u{3164}\u{a0}",
                "\\u{e0041}\\u{e000}\\u{3164}\\u{a0}",
            ),
            ("e\u{301}", "e\u{301}"),
        ] {
            assert_eq!(one_line(text), shown);
        }
        assert_eq!(lines("a\nb\r\n\u{1b}"), "a\nb\\r\n\\u{1b}");
    }

    #[test]
    fn what_is_too_long_is_cut_and_how_much_is_told() {
        let just = "x".repeat(LONGEST);
        assert_eq!(one_line(&just), just);
        let megabytes = "é".repeat(1 << 20);
        let shown = one_line(&megabytes);
        assert!(shown.len() <= LONGEST, "{}", shown.len());
        let (kept, told) = shown.split_once('…').unwrap();
        let more = megabytes.len() - kept.len();
        assert_eq!(told, format!(" ({more} more bytes)"));
        let escapes = "\u{1b}".repeat(LONGEST);
        assert!(one_line(&escapes).len() <= LONGEST);
    }

    /// Any characters, most of them such as have to be written out.
    fn texts() -> impl Strategy<Value = String> {
        let hostile = "\0\n\r\t\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200d}\u{202e}\u{2028}\u{2066}\u{feff}\u{e0001}";
        let hostile: Vec<char> = hostile.chars().collect();
        let character = prop_oneof![any::<char>(), select(hostile), Just('a')];
        vec(character, 0..900).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_plain_line_and_stays_it(text in texts()) {
            let shown = one_line(&text);
            prop_assert!(shown.chars().all(is_plain));
            prop_assert!(shown.len() <= LONGEST);
            prop_assert_eq!(&one_line(&shown), &shown);
            let shown = lines(&text);
            prop_assert!(shown.chars().all(is_plain_or_end));
            prop_assert_eq!(shown.matches('\n').count(), text.matches('\n').count());
            prop_assert_eq!(&lines(&shown), &shown);
        }
    }
}
