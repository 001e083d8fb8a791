//! Cutting text to a length in bytes, at characters.

/// The beginning of the text.
#[must_use]
pub fn head(text: &str, bytes: usize) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=bytes.min(text.len())).rev().find(fits).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Its end.
#[must_use]
pub fn tail(text: &str, bytes: usize) -> &str {
    let fits = |start: &usize| text.is_char_boundary(*start);
    let start = (text.len().saturating_sub(bytes)..=text.len()).find(fits);
    start.and_then(|it| text.get(it..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_characters() {
        assert_eq!((head("abc", 5), tail("abc", 5)), ("abc", "abc"));
        assert_eq!((head("abc", 2), tail("abc", 2)), ("ab", "bc"));
        assert_eq!((head("aéb", 2), tail("aéb", 2)), ("a", "b"));
        assert_eq!((head("é", 1), tail("é", 1)), ("", ""));
    }
}
