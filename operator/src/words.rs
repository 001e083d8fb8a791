//! Answers of an API server, or of a registry, as one line for people.
//!
//! The errors' own `Display` prints the whole answer as data; a condition wants its sentence.

use kube::runtime::watcher;

/// A webhook may answer with pages; a condition has room for a few lines.
const LONGEST: usize = 400;

/// One line of bounded length.
#[must_use]
pub fn plain(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// Why a request had no success.
#[must_use]
pub fn request(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => plain(&format!("{} (HTTP {})", status.message, status.code)),
        error => plain(&chain(error)),
    }
}

/// Why a watch had no success.
#[must_use]
pub fn watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => request(error),
        watcher::Error::WatchError(status) => plain(&status.message),
        error @ watcher::Error::NoResourceVersion => plain(&error.to_string()),
    }
}

/// An error with its causes, each once: most say nothing without them, and some repeat them.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn a_page_of_text_becomes_a_line() {
        let long = "ä\n".repeat(3 * LONGEST);
        let line = plain(&long);
        assert_eq!(line.chars().count(), LONGEST + 1);
        assert!(line.ends_with('…') && !line.contains('\n'));
        assert_eq!(plain(" short  text\n"), "short text");
    }

    #[test]
    fn a_status_is_its_message() {
        let status = || {
            Status::failure("pods is forbidden:\n no", "Forbidden")
                .with_code(403)
                .boxed()
        };
        let wanted = "pods is forbidden: no (HTTP 403)";
        assert_eq!(request(&kube::Error::Api(status())), wanted);
        let list = watcher::Error::InitialListFailed(kube::Error::Api(status()));
        assert_eq!(watch(&list), wanted);
        assert_eq!(
            watch(&watcher::Error::WatchError(status())),
            "pods is forbidden: no"
        );
    }

    #[test]
    fn causes_are_named_once() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        assert_eq!(
            chain(&kube::Error::ReadEvents(refused))
                .matches("refused")
                .count(),
            1
        );
    }
}
