//! Passwords that nobody may tell, and every shape in which they could be told.

use anyhow::{Result, ensure};
use k8s_openapi::ByteString;

/// Passwords of a user that must be nowhere but in their Secret.
#[derive(Debug)]
pub struct Passwords {
    shapes: Vec<String>,
}

impl Passwords {
    /// These of that user: plain, in base64, and as `user:password` in base64, which is how a Docker
    /// config and a request's header have it.
    #[must_use]
    pub fn of(user: &str, passwords: &[&str]) -> Self {
        let base64 = |text: String| {
            let encoded = serde_json::to_string(&ByteString(text.into_bytes()));
            encoded
                .unwrap_or_default()
                .trim_matches(['"', '='])
                .to_owned()
        };
        let shapes = passwords.iter().flat_map(|word| {
            [
                (*word).to_owned(),
                base64((*word).to_owned()),
                base64(format!("{user}:{word}")),
            ]
        });
        Self {
            shapes: shapes.collect(),
        }
    }

    /// Complains if a text tells one of them.
    pub fn are_not_in(&self, what: &str, text: &str) -> Result<()> {
        for shape in &self.shapes {
            let place = text.find(shape);
            ensure!(place.is_none(), "{what} tells `{shape}` at byte {place:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_found() {
        let passwords = Passwords::of("fleet", &["correct horse"]);
        for text in [
            "with correct horse in it",
            "Y29ycmVjdCBob3JzZQ==",
            "Basic ZmxlZXQ6Y29ycmVjdCBob3JzZQ==",
        ] {
            assert!(passwords.are_not_in("it", text).is_err(), "{text}");
        }
        assert!(passwords.are_not_in("it", "fleet, battery").is_ok());
    }
}
