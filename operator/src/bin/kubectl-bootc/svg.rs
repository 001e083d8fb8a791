//! Pictures as SVG: text in a fixed pitch, and bars. A few elements written by hand; a drawing crate
//! would bring shapes and fonts that nothing here needs.

use std::fmt::Write as _;

use crate::{
    output::Colour,
    table::{Table, wrap},
};

/// Width of a character, and the distance of lines.
pub(crate) const CHAR: f64 = 8.0;
pub(crate) const LINE: f64 = 20.0;
/// A picture of tables is about so many characters wide: the last column is broken into lines, but
/// never into narrower ones than that.
const COLUMNS: usize = 132;
const LAST: usize = 36;
/// Around everything.
pub(crate) const MARGIN: f64 = 16.0;
const GROUND: &str = "#0d1117";
const INK: &str = "#e6edf3";

/// A picture that grows.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    body: String,
}

impl Picture {
    /// Text, with the left end of its base line.
    pub(crate) fn text(&mut self, x: f64, y: f64, text: &str, colour: Option<Colour>) {
        let fill = colour.map_or(INK, Colour::hex);
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\" xml:space=\"preserve\">{text}</text>"
        );
    }

    /// A bar, with a text that shows where a pointer rests on it.
    pub(crate) fn bar(
        &mut self,
        x: f64,
        y: f64,
        width: f64,
        height: f64,
        colour: Colour,
        about: &str,
    ) {
        let (fill, about) = (colour.hex(), escaped(about));
        let width = width.max(1.0);
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" fill=\"{fill}\"><title>{about}</title></rect>"
        );
    }

    /// A thin line from top to bottom.
    pub(crate) fn upright(&mut self, x: f64, from: f64, to: f64) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\" stroke=\"#30363d\"/>"
        );
    }

    /// The whole, of this size.
    pub(crate) fn finish(self, title: &str, width: f64, height: f64) -> String {
        let title = escaped(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"13\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{GROUND}\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// Tables, one below the other, as a terminal shows them.
pub(crate) fn of_tables(title: &str, tables: &[&Table]) -> String {
    let mut picture = Picture::default();
    let mut y = MARGIN + LINE;
    let mut widest = 0.0_f64;
    picture.text(MARGIN, y, &format!("$ {title}"), Some(Colour::Dim));
    for table in tables {
        y += LINE;
        let widths = table.widths();
        let header: Vec<_> = table
            .headers
            .iter()
            .map(|it| ((*it).to_owned(), None))
            .collect();
        let rows = table.rows.iter().map(|row| {
            let cell = |cell: &crate::table::Cell| (cell.text.clone(), cell.colour);
            row.iter().map(cell).collect::<Vec<_>>()
        });
        let left = widths.iter().rev().skip(1).map(|width| width + 3).sum();
        let room = COLUMNS.saturating_sub(left).max(LAST);
        for row in std::iter::once(header).chain(rows) {
            let (mut x, top) = (MARGIN, y);
            for (n, ((text, colour), width)) in row.iter().zip(&widths).enumerate() {
                let last = n + 1 == row.len();
                let lines = wrap(text, if last { room } else { usize::MAX });
                for (n, line) in lines.iter().enumerate() {
                    y = if n == 0 { top } else { y + LINE };
                    picture.text(x, y, line, *colour);
                    widest = widest.max(x + wide(line.chars().count()));
                }
                x += wide(width + 3);
            }
            y += LINE;
        }
    }
    picture.finish(title, widest + MARGIN, y + MARGIN)
}

/// The width of so many characters.
#[expect(clippy::cast_precision_loss, reason = "lines are short")]
pub(crate) fn wide(chars: usize) -> f64 {
    chars as f64 * CHAR
}

/// Characters that mean something in XML, and those that it cannot hold.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_text_cannot_break_a_picture() {
        let mut table = Table::new(&["A"]);
        table.rows = vec![vec!["</text><script>&\u{1b}".into()]];
        let svg = of_tables("t", &[&table]);
        assert!(svg.contains("&lt;/text&gt;&lt;script&gt;&amp; <"), "{svg}");
        assert!(!svg.contains("<script>"));
    }
}
