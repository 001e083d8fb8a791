//! Trace contexts made from what is known, so that a restart continues a trace and a replay
//! repeats it.

use crate::{image::Image, time::Timestamp};

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// W3C `traceparent` of a node's way to `image` that begins now.
pub(super) fn parent(node_uid: &str, image: &Image, now: Timestamp) -> String {
    let trace = hash(&format!("{node_uid} {image} {}", now.0));
    let span = hash(&format!("{trace:032x}")) >> 64;
    format!("00-{:032x}-{:016x}-01", trace.max(1), span.max(1))
}

/// FNV-1a: names need to differ, not to resist anybody.
fn hash(text: &str) -> u128 {
    text.bytes().fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_well_formed_and_differs_by_node_image_and_time() {
        let image = |digest: &str| Image::new(&format!("r/os@{digest}")).unwrap();
        let a = parent("uid-1", &image("sha256:1"), Timestamp(5));
        let fields: Vec<usize> = a.split('-').map(str::len).collect();
        assert_eq!(fields, [2, 32, 16, 2], "{a}");
        assert_eq!(a, parent("uid-1", &image("sha256:1"), Timestamp(5)));
        for other in [
            parent("uid-2", &image("sha256:1"), Timestamp(5)),
            parent("uid-1", &image("sha256:2"), Timestamp(5)),
            parent("uid-1", &image("sha256:1"), Timestamp(6)),
        ] {
            assert_ne!(a, other);
        }
    }
}
