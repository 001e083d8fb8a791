//! Tables as kubectl prints them: columns three spaces apart, no lines.
//!
//! A few lines of our own: kubectl's look is padding and nothing else, and table crates bring frames.

use std::io::{self, Write};

use crate::output::{Colour, Style};

/// Between two columns.
const GAP: &str = "   ";

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) colour: Option<Colour>,
}

impl Cell {
    /// A field in a colour.
    pub(crate) fn new(text: impl Into<String>, colour: Colour) -> Self {
        Self {
            text: text.into(),
            colour: Some(colour),
        }
    }
}

/// What is not there is `<none>`, as everywhere in kubectl.
impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.map_or_else(|| Self::new("<none>", Colour::Dim), Self::from)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, colour: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// Rows under headers.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) headers: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Each column as wide as its widest field.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.headers.iter().map(|header| header.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        widths
    }

    /// Prints it; the last column is cut where the terminal ends.
    pub(crate) fn print(
        &self,
        out: &mut impl Write,
        style: Style,
        headers: bool,
    ) -> io::Result<()> {
        let widths = self.widths();
        if headers {
            let header: Vec<Cell> = self.headers.iter().map(|it| Cell::from(*it)).collect();
            line(out, &header, &widths, style)?;
        }
        self.rows
            .iter()
            .try_for_each(|row| line(out, row, &widths, style))
    }
}

fn line(out: &mut impl Write, row: &[Cell], widths: &[usize], style: Style) -> io::Result<()> {
    let mut left = style.width.unwrap_or(usize::MAX);
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        let last = at + 1 == row.len();
        let text = cut(&cell.text, left);
        let length = text.chars().count();
        match cell.colour {
            Some(colour) => write!(out, "{}", colour.paint(&text, style))?,
            None => write!(out, "{text}")?,
        }
        if last {
            break;
        }
        let pad = width.saturating_sub(length) + GAP.len();
        write!(out, "{:pad$}", "")?;
        left = left.saturating_sub(length + pad);
    }
    writeln!(out)
}

/// The text in so many columns.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let head: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{head}…")
}

/// The text in lines of so many columns, broken where there is a space.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + length <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_broken_between_words() {
        assert_eq!(wrap("a bc def ghij", 6), ["a bc", "def", "ghij"]);
        assert_eq!(wrap("a bc", 4), ["a bc"]);
        assert_eq!(wrap("longer than that", 4), ["longer", "than", "that"]);
        assert_eq!(wrap("", 4), [""]);
    }

    fn printed(style: Style) -> String {
        let mut table = Table::new(&["NODE", "STATE"]);
        table.rows = vec![
            vec!["w1".into(), Cell::new("Idle", Colour::Good)],
            vec!["worker-10".into(), None.into()],
        ];
        let mut out = Vec::new();
        table.print(&mut out, style, true).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let wanted = "NODE        STATE\nw1          Idle\nworker-10   <none>\n";
        assert_eq!(printed(Style::default()), wanted);
    }

    #[test]
    fn colours_take_no_room_and_the_last_column_ends_with_the_terminal() {
        let style = Style {
            colour: true,
            width: Some(14),
            height: None,
        };
        let text = printed(style);
        assert!(text.contains("w1          \x1b[32mI…\x1b[0m\n"), "{text:?}");
    }
}
