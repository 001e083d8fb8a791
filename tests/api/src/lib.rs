//! Helpers of the tests against a real API server.
//!
//! [`suite`] starts one control plane for all tests and installs `deploy/`; [`hosts`] makes nodes
//! and pods that no kubelet runs, [`fleet`] a pool with played agents; [`wait`] looks until something holds.

pub mod counted;
pub mod fleet;
pub mod gate;
pub mod hosts;
pub mod kubelet;
pub mod operator;
pub mod registry;
pub mod secrecy;
pub mod suite;
pub mod wait;
pub mod webhook;

pub use fleet::Fleet;
pub use suite::{Account, Suite};

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// All sources below a folder.
    fn sources(folder: &Path) -> String {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let text = |path: std::path::PathBuf| match path.extension() {
            _ if path.is_dir() => sources(&path),
            Some(extension) if extension == "rs" => fs::read_to_string(&path).unwrap(),
            _ => String::new(),
        };
        entries.map(text).collect()
    }

    #[test]
    fn every_trap_of_the_readme_has_tests() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let own = sources(&here.join("tests"));
        let readme = fs::read_to_string(here.join("README.md")).unwrap();
        let row = |line: &&str| line.starts_with("| ") && line.matches('|').count() == 4;
        let traps: Vec<&str> = readme
            .lines()
            .filter(row)
            .skip_while(|it| !it.starts_with("| A1"))
            .collect();
        assert_eq!(traps.len(), 41, "{traps:#?}");
        for trap in traps {
            let guards: Vec<&str> = trap.split('`').skip(1).step_by(2).collect();
            assert!(!guards.is_empty(), "{trap}");
            let mut text = own.clone();
            for guard in guards {
                if guard.contains('/') {
                    let path = here.join("../..").join(guard);
                    text =
                        fs::read_to_string(path).unwrap_or_else(|error| panic!("{guard}: {error}"));
                    continue;
                }
                let there = if guard.contains("::") { &own } else { &text };
                let there = there.contains(guard) || text.contains(guard);
                assert!(there, "there is no `{guard}`: {trap}");
            }
        }
    }
}
