//! What a host's base tree must hold beside the binary: units and settings.

/// A file or a symbolic link of the base tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file of mode 0644.
    Text(&'static str),
    /// A symbolic link and where it leads.
    Link(&'static str),
}

/// Path below the root, and what is there. The binary itself goes to
/// `usr/bin/bootc`.
pub const FILES: &[(&str, Content)] = &[
    ("usr/bin/ostree", Content::Link("bootc")),
    (
        "usr/lib/systemd/system/ostree-finalize-staged.path",
        Content::Text(include_str!("../units/ostree-finalize-staged.path")),
    ),
    (
        "usr/lib/systemd/system/ostree-finalize-staged.service",
        Content::Text(include_str!("../units/ostree-finalize-staged.service")),
    ),
    (
        "usr/lib/systemd/system/ostree-boot-complete.service",
        Content::Text(include_str!("../units/ostree-boot-complete.service")),
    ),
    (
        "usr/lib/systemd/system/multi-user.target.wants/ostree-finalize-staged.path",
        Content::Link("../ostree-finalize-staged.path"),
    ),
    (
        "usr/lib/systemd/system/multi-user.target.wants/ostree-boot-complete.service",
        Content::Link("../ostree-boot-complete.service"),
    ),
    (
        "usr/lib/tmpfiles.d/ostree-tmpfiles.conf",
        Content::Text(include_str!("../units/ostree-tmpfiles.conf")),
    ),
    (
        "etc/containers/policy.json",
        Content::Text(include_str!("../units/policy.json")),
    ),
];
