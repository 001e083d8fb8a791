//! The images of the recorded runs, in small: same names, versions, dates and
//! numbers of layers.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::registry::Registry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Path and content; a name that begins with `.wh.` hides a file.
pub(crate) type Files<'a> = &'a [(&'a str, &'a str)];

const BASE: Files<'_> = &[("usr/lib/os-release", "ID=base\n")];
const MOTD: (&str, &str) = ("etc/motd", "image\n");
const KERNEL: (&str, &str) = ("usr/lib/modules/6.18.44-rb/vmlinuz", "kernel 1");
const OTHER_KERNEL: (&str, &str) = ("usr/lib/modules/6.18.44-rb/vmlinuz", "kernel 2");
const BOUND: (&str, &str) = (
    "usr/lib/bootc/bound-images.d/missing.image",
    "[Image]\nImage=REGISTRY/missing:1\n",
);

/// Pushes one image; answers manifest's bytes and digest.
pub(crate) fn push(
    registry: &Registry,
    tag: &str,
    created: &str,
    layers: &[Files<'_>],
) -> (String, Vec<u8>) {
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for files in layers {
        let blob = layer(files);
        let digest = registry.push_blob("os", &blob);
        diff_ids.push(digest.clone());
        descriptors.push(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": blob.len(),
        }));
    }
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "created": created,
        "config": {"Labels": {"containers.bootc": "1", "org.opencontainers.image.version": format!("1.{tag}")}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [],
    }))
    .unwrap();
    let config_digest = registry.push_blob("os", &config);
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len(),
        },
    }))
    .unwrap();
    (
        registry.push_manifest("os", tag, MANIFEST, &manifest),
        manifest,
    )
}

/// Pushes an image as most of them are: two shared layers and one of its own.
pub(crate) fn push_os(registry: &Registry, tag: &str, day: &str) -> String {
    let layers: [Files<'_>; 3] = [BASE, &[KERNEL, MOTD], &[("usr/lib/image-id", tag)]];
    push(registry, tag, &format!("2026-11-{day}T10:00:00Z"), &layers).0
}

/// Pushes all images of the recorded runs; digests by name. `index` is the
/// digest of the index whose instance for this machine is `idx`.
pub(crate) fn push_all(registry: &Registry) -> BTreeMap<&'static str, String> {
    let base = BASE;
    let kernel: Files<'_> = &[KERNEL, MOTD];
    let bound = BOUND.1.replace("REGISTRY", &registry.address);
    let bound: Files<'_> = &[(BOUND.0, &bound)];
    let mut digests = BTreeMap::new();
    for (tag, day) in [
        ("A", "01"),
        ("B", "02"),
        ("C", "03"),
        ("D", "04"),
        ("idx", "01"),
    ] {
        digests.insert(tag, push_os(registry, tag, day));
    }
    let mut add = |tag: &'static str, day: &str, layers: &[Files<'_>]| {
        digests.insert(
            tag,
            push(registry, tag, &format!("2026-11-{day}T10:00:00Z"), layers).0,
        );
    };
    let big = noise(5_000);
    add(
        "E",
        "01",
        &[
            base,
            kernel,
            &[("e1", &big)],
            &[("e2", &noise(40_001))],
            &[("e3", &noise(40_002))],
        ],
    );
    add(
        "F",
        "01",
        &[
            base,
            kernel,
            &[("f1", &noise(20_001))],
            &[("f2", "2")],
            &[("f3", "3")],
        ],
    );
    add("NL", "01", &[&[("usr/lib/os-release", "ID=none\n")]]);
    add("BI", "01", &[base, kernel, bound]);
    let composefs: Files<'_> = &[(
        "usr/lib/ostree/prepare-root.conf",
        "[composefs]\nenabled=yes\n",
    )];
    add("cA", "01", &[base, kernel, composefs]);
    add(
        "cB",
        "01",
        &[base, kernel, composefs, &[("usr/lib/image-id", "cB")]],
    );
    add(
        "cK",
        "01",
        &[
            base,
            kernel,
            composefs,
            &[OTHER_KERNEL],
            &[("usr/lib/image-id", "cK")],
        ],
    );
    registry.push_manifest("os", "stable", MANIFEST, &manifest(registry, "A"));
    let size = manifest(registry, "idx").len();
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": MANIFEST, "digest": digests["B"], "size": manifest(registry, "B").len(),
             "platform": {"architecture": "s390x", "os": "linux"}},
            {"mediaType": MANIFEST, "digest": digests["idx"], "size": size,
             "platform": {"architecture": "amd64", "os": "linux"}},
        ],
    }));
    digests.insert(
        "index",
        registry.push_manifest("os", "multi", INDEX, &index.unwrap()),
    );
    digests
}

/// Moves a tag to the image of another tag.
pub(crate) fn retag(registry: &Registry, tag: &str, image: &str) {
    registry.push_manifest("os", tag, MANIFEST, &manifest(registry, image));
}

fn manifest(registry: &Registry, tag: &str) -> Vec<u8> {
    let url = format!("http://{}/v2/os/manifests/{tag}", registry.address);
    let mut answer = ureq::get(url).header("Accept", MANIFEST).call().unwrap();
    let manifest = answer.body_mut().read_to_vec().unwrap();
    assert!(
        serde_json::from_slice::<Value>(&manifest)
            .unwrap()
            .get("layers")
            .is_some()
    );
    manifest
}

fn layer(files: Files<'_>) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    let mut gzip = tar.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}

/// Text that does not compress well: the same for the same length.
fn noise(length: usize) -> String {
    let mut state = length as u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    };
    std::iter::repeat_with(next).take(length).collect()
}
