//! Which API servers operator and agent work with.

use k8s_openapi::apimachinery::pkg::version::Info;

/// The oldest Kubernetes whose API is served, as (major, minor): the version of the API types that
/// everything here is built with and tested on. It has all that the manifests rely on: admission
/// policies in CEL, the node's name in the tokens of its pods, rules over lists in CRDs.
pub const OLDEST: (u32, u32) = (1, 34);

/// The API server lacks something that is in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API server is Kubernetes {found}, too old for this version of bootc-operator, which needs {}.{} or \
     later: upgrade the control plane first",
    OLDEST.0, OLDEST.1
)]
pub struct TooOld {
    found: String,
}

/// Refuses an API server that is older than [`OLDEST`], by its own answer to `/version`. What it
/// emulates counts, if it emulates an older one. A version that nobody can read is let pass.
pub fn check(version: &Info) -> Result<(), TooOld> {
    let serves = (
        version.emulation_major.as_ref().unwrap_or(&version.major),
        version.emulation_minor.as_ref().unwrap_or(&version.minor),
    );
    match (number(serves.0), number(serves.1)) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Err(TooOld {
            found: format!("{major}.{minor}"),
        }),
        _ => Ok(()),
    }
}

/// The number that a part of a version begins with: vendors write `34+`.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.get(..end.unwrap_or(text.len()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: &str, minor: &str) -> Info {
        Info {
            major: major.into(),
            minor: minor.into(),
            ..Info::default()
        }
    }

    #[test]
    fn an_older_server_is_refused_with_the_version_needed() {
        for minor in ["30", "33", "33+", "9"] {
            let error = check(&version("1", minor)).unwrap_err().to_string();
            assert!(error.contains("needs 1.34 or later"), "{error}");
        }
        assert!(check(&version("0", "99")).is_err());
    }

    #[test]
    fn a_newer_or_unreadable_one_is_not() {
        for (major, minor) in [
            ("1", "34"),
            ("1", "34+"),
            ("1", "100"),
            ("2", "0"),
            ("", ""),
            ("1", "x"),
        ] {
            assert_eq!(check(&version(major, minor)), Ok(()), "{major}.{minor}");
        }
    }

    #[test]
    fn what_it_emulates_counts() {
        let mut emulating = version("1", "36");
        emulating.emulation_major = Some("1".into());
        emulating.emulation_minor = Some("33".into());
        assert!(check(&emulating).is_err());
    }

    #[test]
    #[expect(
        clippy::needless_late_init,
        reason = "k8s-openapi's macros expand to nothing for other versions"
    )]
    fn the_oldest_is_the_one_that_the_types_are_of() {
        let types_of: Option<(u32, u32)>;
        k8s_openapi::k8s_if_1_34! { types_of = Some((1, 34)); }
        k8s_openapi::k8s_if_le_1_33! { types_of = None; }
        k8s_openapi::k8s_if_ge_1_35! { types_of = None; }
        let feature = "k8s-openapi's feature in Cargo.toml";
        assert_eq!(types_of, Some(OLDEST), "{feature} and OLDEST differ");
    }
}
