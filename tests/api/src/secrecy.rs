//! Passwords that nobody may tell, and every shape in which they could be told.

use anyhow::{Result, ensure};
use k8s_openapi::ByteString;

/// Passwords of a user that must be nowhere but in their Secret.
#[derive(Debug)]
pub struct Passwords {
    shapes: Vec<String>,
}

impl Passwords {
    /// These of that user: plain, as bytes, and in base64, be it alone, as `user:password` or anywhere
    /// within a whole Docker config.
    #[must_use]
    pub fn of(user: &str, passwords: &[&str]) -> Self {
        let shapes = passwords.iter().flat_map(|word| {
            let bytes = format!("{:?}", word.as_bytes());
            let mut shapes = vec![
                (*word).to_owned(),
                bytes.trim_matches(['[', ']']).to_owned(),
            ];
            shapes.extend((0..3).map(|offset| in_base64(word, offset)));
            shapes.push(in_base64(&format!("{user}:{word}"), 0));
            shapes
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

/// The part of a text in base64 that is the word's alone, where so many bytes stand before it.
fn in_base64(word: &str, before: usize) -> String {
    let bytes = [vec![0; before], word.as_bytes().to_vec()].concat();
    let whole = bytes.len() * 8 / 6;
    let first = (before * 8).div_ceil(6);
    let encoded = serde_json::to_string(&ByteString(bytes)).unwrap_or_default();
    let encoded = encoded.trim_matches('"');
    encoded.get(first..whole).unwrap_or_default().to_owned()
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
            // {"password":"correct horse"}, with a space more before it, and with two.
            "eyJwYXNzd29yZCI6ImNvcnJlY3QgaG9yc2UifQ==",
            "IHsicGFzc3dvcmQiOiJjb3JyZWN0IGhvcnNlIn0=",
            "ICB7InBhc3N3b3JkIjoiY29ycmVjdCBob3JzZSJ9",
            "[34, 99, 111, 114, 114, 101, 99, 116, 32, 104, 111, 114, 115, 101, 34]",
        ] {
            assert!(passwords.are_not_in("it", text).is_err(), "{text}");
        }
        assert!(passwords.are_not_in("it", "fleet, battery").is_ok());
    }
}
