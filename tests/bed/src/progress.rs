//! Progress on standard error: what is being done, and for how long already.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a step is silent at first; each further silence is twice as long.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may be silent at most.
const LONGEST_SILENCE: Duration = Duration::from_secs(8);

type Listener = Box<dyn Fn(String) + Send>;

/// Who hears what is said, if it is not standard error.
static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);

fn listener() -> MutexGuard<'static, Option<Listener>> {
    LISTENER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says one line on standard error, or to whoever listens.
pub fn say(line: impl fmt::Display) {
    match listener().as_ref() {
        Some(listener) => listener(line.to_string()),
        None => eprintln!("bed: {line}"),
    }
}

/// Lets somebody else hear what this process says, until the answer is dropped:
/// a daemon's work is shown by the command that asked for it.
#[must_use]
pub fn redirect(to: impl Fn(String) + Send + 'static) -> Redirect {
    *listener() = Some(Box::new(to));
    Redirect(())
}

/// See [`redirect`].
#[derive(Debug)]
pub struct Redirect(());

impl Drop for Redirect {
    fn drop(&mut self) {
        *listener() = None;
    }
}

/// A step that may take long: says that it goes on every few seconds, and
/// that it is done if it had said anything before.
#[derive(Debug)]
pub struct Step {
    what: String,
    started: Instant,
    said: Instant,
    silence: Duration,
    spoke: bool,
}

impl Step {
    /// Begins a step without a word: most of them are over at once.
    #[must_use]
    pub fn quiet(what: impl Into<String>) -> Self {
        let now = Instant::now();
        Self {
            what: what.into(),
            started: now,
            said: now,
            silence: SILENCE,
            spoke: false,
        }
    }

    /// Begins a step that is known to take long.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        let mut step = Self::quiet(what);
        step.speak("");
        step
    }

    /// To be called often: says a line when the last one is some seconds ago.
    pub fn tick(&mut self, detail: &str) {
        if self.said.elapsed() >= self.silence {
            self.speak(detail);
            self.silence = LONGEST_SILENCE.min(self.silence * 2);
        }
    }

    /// Ends the step.
    pub fn done(mut self) {
        if self.spoke {
            self.speak("done");
        }
    }

    fn speak(&mut self, detail: &str) {
        let elapsed = seconds(self.started.elapsed());
        let gap = if detail.is_empty() { "" } else { ": " };
        say(format_args!("[{elapsed:>6}] {}{gap}{detail}", self.what));
        self.said = Instant::now();
        self.spoke = true;
    }
}

/// A duration as people write it: `4s`, `2m05s`.
fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        s if s < 60 => format!("{s}s"),
        s => format!("{}m{:02}s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_hears_until_it_goes() {
        let (sender, heard) = std::sync::mpsc::channel();
        let redirect = redirect(move |line| sender.send(line).unwrap());
        say("one");
        drop(redirect);
        say("two");
        let heard: Vec<String> = heard.iter().collect();
        assert!(heard.contains(&"one".to_owned()) && !heard.contains(&"two".to_owned()));
    }

    #[test]
    fn elapsed_time_reads_well() {
        assert_eq!(seconds(Duration::from_millis(900)), "0s");
        assert_eq!(seconds(Duration::from_secs(59)), "59s");
        assert_eq!(seconds(Duration::from_secs(125)), "2m05s");
    }
}
