//! What the real bootc printed, did and answered, and how two runs are made alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Digests of the recorded runs' images.
const RECORDED: [(&str, &str); 12] = [
    (
        "A",
        "3b188fd6a30ade222c828c71ce4daabf943d89dd182a3ba6664bad9ef4b547be",
    ),
    (
        "B",
        "97924468b9727daa1a6b6332840943b5b0547b20846be9b248a9ad6404d8823f",
    ),
    (
        "C",
        "c066c408256910a2ceec82867af73cf71de80de9640f6d3ebabf3568c230efbc",
    ),
    (
        "D",
        "5c0cd6f164fb300d8bd211ead66ae1a6d41548f5255d074fbe1f4beb70112d2f",
    ),
    (
        "E",
        "20bfecbc7b41223e3943258670c2ca29afa771aed694a0f7a813e87f8a56ed3b",
    ),
    (
        "F",
        "196e6c0958e23acd875163b9894bd624e169c4cac86f66cdd3fe7f00b5bef196",
    ),
    (
        "idx",
        "ea1504ea058e8acc28dbc370d9db04b605b2524e23a57028b22afce78e3b0b67",
    ),
    (
        "index",
        "9afa19791cb255c2023c551bb974092611bd2a429dd08233d5b73547b40e2756",
    ),
    (
        "cA",
        "c84b05137e7d29ff0e703ef127fb871b142eae63cc8d175ddcce89e59eb7a32b",
    ),
    (
        "cB",
        "b08c64c66c1f067de854f55e779fe8bdf60bf07a916bf4bbdea5a60b54cab9dd",
    ),
    (
        "cK",
        "8047eb4fd992b7aa5b42087ab4a1285f6bc74f3925065492b72c12802c480000",
    ),
    (
        "BI",
        "0ea3468c8710ea7058528f1c6a6297f0f15c2f2e19cd3f1419124cbb17d3cae2",
    ),
];

const REGISTRIES: [&str; 2] = ["10.89.0.1:5000", "10.89.0.1:5001"];

pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Real names in place of the recorded ones, and the way back to common names.
pub(crate) struct Names {
    pub(crate) digests: BTreeMap<&'static str, String>,
    pub(crate) registries: [String; 2],
}

impl Fixture {
    pub(crate) fn load(name: &str) -> Self {
        let text = fs::read_to_string(path(&format!("{name}.txt"))).unwrap();
        let field = |key: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(key))
                .unwrap()
                .trim()
                .to_owned()
        };
        let (_, rest) = text.split_once("# --- stdout\n").unwrap();
        let (stdout, stderr) = rest.split_once("# --- stderr\n").unwrap();
        Self {
            name: name.to_owned(),
            command: field("# cmd:"),
            exit: field("# exit:").parse().unwrap(),
            // The recorder ended the one line of JSON, which bootc does not.
            stdout: if stdout.starts_with('{') {
                stdout.trim_end()
            } else {
                stdout
            }
            .to_owned(),
            stderr: stderr.to_owned(),
        }
    }

    /// Without what the recorder still saw of an earlier command (before `+0`).
    pub(crate) fn trace(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(path(&format!("{}.inotify", self.name))).ok()?;
        let lines = text.lines().filter(|l| l.starts_with('+'));
        Some(
            lines
                .filter_map(|l| Some(l.split_once(' ')?.1.to_owned()))
                .collect(),
        )
    }
}

/// The status of a situation: after its command, or as it was.
pub(crate) fn status(name: &str) -> Option<String> {
    [".after.json", ".json"]
        .iter()
        .find_map(|s| fs::read_to_string(path(&format!("{name}{s}"))).ok())
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(file)
}

impl Names {
    /// A recorded command, to be run here.
    pub(crate) fn here(&self, recorded: &str) -> String {
        let mut text = recorded.replace("/var/bootc-dl", "bootc");
        for (from, to) in REGISTRIES.iter().zip(&self.registries) {
            text = text.replace(from, to);
        }
        for (name, digest) in RECORDED {
            text = text.replace(&format!("sha256:{digest}"), &self.digests[name]);
        }
        text
    }

    /// A text of either side with names in place of digests and addresses, and
    /// without what cannot agree: sizes, commits, serials.
    pub(crate) fn common(&self, text: &str) -> String {
        let mut text = text.replace("bootc-dl", "bootc");
        let ours = self.registries.iter().map(String::as_str);
        for (i, address) in REGISTRIES.iter().copied().chain(ours).enumerate() {
            text = text.replace(address, &format!("REGISTRY{}", i % 2));
        }
        for (name, digest) in RECORDED {
            text = text.replace(&format!("sha256:{digest}"), &format!("<{name}>"));
        }
        for (name, digest) in &self.digests {
            text = text.replace(digest.as_str(), &format!("<{name}>"));
        }
        mask(&text)
    }
}

/// Masks commits, serials and byte counts.
fn mask(text: &str) -> String {
    let masks = [
        (r"\b[0-9a-f]{64}\b", "COMMIT"),
        (r#""deploySerial":\d+"#, r#""deploySerial":N"#),
        (r"\b\d+(\.\d+)?[ \x{a0}](bytes|kB|MB)", "SIZE"),
    ];
    masks.iter().fold(text.to_owned(), |text, (pattern, name)| {
        regex::Regex::new(pattern)
            .unwrap()
            .replace_all(&text, *name)
            .into_owned()
    })
}
