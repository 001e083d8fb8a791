//! One host of the test bed: its disk, its boots, its namespaces.

pub mod apt;
pub mod base;

/// Bytes as lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
