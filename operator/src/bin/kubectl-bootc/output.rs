//! Where and how things are printed.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

/// What standard output can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// Colours.
    pub(crate) colour: bool,
    /// Columns of the terminal; `None` where lines may be as long as they are.
    pub(crate) width: Option<usize>,
    /// Lines of the terminal.
    pub(crate) height: Option<usize>,
}

impl Style {
    /// Of standard output. Colours are for terminals, and not for those of whom `NO_COLOR` says
    /// otherwise.
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let size = rustix::termios::tcgetwinsize(stdout).ok();
        let some = |count: u16| (count > 0).then_some(usize::from(count));
        Self {
            colour: !unwanted && !dumb,
            width: size.and_then(|size| some(size.ws_col)),
            height: size.and_then(|size| some(size.ws_row)),
        }
    }
}

/// Of a phase, or of how well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Busy,
    Calm,
    Warn,
    Bad,
    Mark,
    Dim,
}

impl Colour {
    /// The terminal's number for it.
    fn ansi(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Busy => "36",
            Self::Calm => "34",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Mark => "35",
            Self::Dim => "90",
        }
    }

    /// The same on a dark ground.
    pub(crate) fn hex(self) -> &'static str {
        match self {
            Self::Good => "#3fb950",
            Self::Busy => "#39c5cf",
            Self::Calm => "#58a6ff",
            Self::Warn => "#d29922",
            Self::Bad => "#f85149",
            Self::Mark => "#bc8cff",
            Self::Dim => "#8b949e",
        }
    }

    /// The text in this colour, if colours are wanted.
    pub(crate) fn paint(self, text: &str, style: Style) -> String {
        if style.colour {
            format!("\x1b[{}m{text}\x1b[0m", self.ansi())
        } else {
            text.to_owned()
        }
    }
}

/// Prints as JSON.
pub(crate) fn json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints as YAML.
pub(crate) fn yaml(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    // By way of JSON: one shape for both.
    let value = serde_json::to_value(value)?;
    let text = serde_saphyr::to_string(&value)?;
    write!(out, "{text}")?;
    if !text.ends_with('\n') {
        writeln!(out)?;
    }
    Ok(())
}
