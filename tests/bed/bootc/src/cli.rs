//! The two command lines. A release offers only its own flags, in its help
//! text as well: that is how a caller finds out what a host can do.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::faults::Release;
use crate::soft_reboot::Wish;
use crate::switch::{After, Upgrade};

/// `bootc` of the given release.
pub(crate) fn bootc(release: Release) -> Command {
    Command::new("bootc")
        .about("Deploy and transactionally in-place with bootable container images")
        .version(release.name())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(upgrade_command(release))
        .subcommand(switch_command(release))
        .subcommand(rollback_command(release))
        .subcommand(status_command())
}

/// `ostree`, as far as it is here.
pub(crate) fn ostree() -> Command {
    let index = || {
        Arg::new("index")
            .value_name("INDEX")
            .required(true)
            .value_parser(value_parser!(usize))
    };
    let admin = Command::new("admin")
        .subcommand_required(true)
        .subcommand(Command::new("status").arg(switch("json", "Output JSON")))
        .subcommand(
            Command::new("undeploy")
                .about("Delete deployment INDEX")
                .arg(index()),
        )
        .subcommand(
            Command::new("pin")
                .about("Change the \"pinning\" state of a deployment")
                .arg(switch("unpin", "Unset pin").short('u'))
                .arg(index()),
        )
        .subcommand(
            Command::new("lock-finalization")
                .about("Change the finalization locking state of the staged deployment")
                .arg(switch("unlock", "Unset finalization lock").short('u')),
        )
        .subcommand(
            Command::new("prepare-soft-reboot")
                .about("Undo the preparation of a soft reboot")
                .arg(switch("reset", "Undo queued soft reboot state").required(true)),
        )
        .subcommand(Command::new("finalize-staged").hide(true))
        .subcommand(Command::new("boot-complete").hide(true));
    Command::new("ostree")
        .subcommand_required(true)
        .subcommand(admin)
}

fn status_command() -> Command {
    Command::new("status")
        .about("Display status")
        .arg(switch("json", "Output in JSON format").hide(true))
        .arg(
            Arg::new("format")
                .long("format")
                .value_parser(["humanreadable", "yaml", "json"])
                .conflicts_with("json")
                .help("The output format"),
        )
        .arg(
            Arg::new("format-version")
                .long("format-version")
                .value_parser(value_parser!(u32))
                .default_value("0")
                .help("The desired format version"),
        )
        .arg(switch(
            "booted",
            "Only display status for the booted deployment",
        ))
        .arg(
            switch(
                "verbose",
                "Include additional fields in human readable format",
            )
            .short('v'),
        )
}

fn switch_command(release: Release) -> Command {
    let one_step = release >= Release::V1_16_10;
    let mut target = Arg::new("target")
        .value_name("TARGET")
        .help("Target image to use for the next boot");
    target = if one_step {
        target.required_unless_present("from-downloaded")
    } else {
        target.required(true)
    };
    let mut command = Command::new("switch")
        .about("Target a new container image reference to boot")
        .arg(switch("quiet", "Don't display progress"))
        .arg(switch("apply", "Restart or reboot into the new target image"))
        .arg(soft_reboot())
        .arg(
            Arg::new("transport")
                .long("transport")
                .value_name("TRANSPORT")
                .default_value("registry")
                .help("The transport; e.g. registry, oci, oci-archive, docker-daemon, containers-storage"),
        )
        .arg(switch("enforce-container-sigpolicy", "Signature verification is required by the containers policy"))
        .arg(switch("retain", "Retain reference to currently booted image"))
        .arg(progress_fd());
    if one_step {
        command = command
            .arg(download_only().conflicts_with("apply"))
            .arg(from_downloaded().conflicts_with_all(["target", "download-only"]));
    }
    command.arg(target)
}

fn upgrade_command(release: Release) -> Command {
    let mut command = Command::new("upgrade")
        .visible_alias("update")
        .about("Download and queue an updated container image to apply")
        .arg(switch("quiet", "Don't display progress"))
        .arg(
            switch(
                "check",
                "Check if an update is available without applying it",
            )
            .conflicts_with_all(["apply", "soft-reboot"]),
        )
        .arg(switch(
            "apply",
            "Restart or reboot into the new target image",
        ))
        .arg(soft_reboot())
        .arg(progress_fd());
    if release >= Release::V1_16_9 {
        let tag = Arg::new("tag")
            .long("tag")
            .value_name("TAG")
            .help("Upgrade to a different tag of the same image");
        command = command
            .arg(download_only().conflicts_with_all(["check", "apply"]))
            .arg(from_downloaded().conflicts_with_all(["check", "download-only"]))
            .arg(tag);
    }
    command
}

fn rollback_command(release: Release) -> Command {
    let command = Command::new("rollback")
        .about("Change the bootloader entry ordering; the deployment under `rollback` will be queued for the next boot")
        .arg(switch("apply", "Restart or reboot into the rollback image"));
    if release >= Release::V1_11_0 {
        command.arg(soft_reboot())
    } else {
        command
    }
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn download_only() -> Arg {
    switch(
        "download-only",
        "Download and stage the update without applying it",
    )
}

fn from_downloaded() -> Arg {
    switch(
        "from-downloaded",
        "Apply a staged deployment that was previously downloaded with --download-only",
    )
}

fn soft_reboot() -> Arg {
    Arg::new("soft-reboot")
        .long("soft-reboot")
        .value_parser(["required", "auto"])
        .help("Configure soft reboot behavior")
}

fn progress_fd() -> Arg {
    Arg::new("progress-fd")
        .long("progress-fd")
        .hide(true)
        .value_parser(value_parser!(u32))
}

/// Whether a flag was given; not, where this release does not have it.
pub(crate) fn given(matches: &ArgMatches, name: &str) -> bool {
    matches
        .try_get_one::<bool>(name)
        .ok()
        .flatten()
        .copied()
        .unwrap_or(false)
}

/// An option's text, where this release has the option and it was given.
pub(crate) fn text(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.try_get_one::<String>(name).ok().flatten().cloned()
}

pub(crate) fn after(matches: &ArgMatches) -> After {
    let soft_reboot = text(matches, "soft-reboot").map(|w| {
        if w == "required" {
            Wish::Required
        } else {
            Wish::Auto
        }
    });
    After {
        soft_reboot,
        apply: given(matches, "apply"),
    }
}

pub(crate) fn upgrade_options(matches: &ArgMatches) -> Upgrade {
    Upgrade {
        check: given(matches, "check"),
        download_only: given(matches, "download-only"),
        from_downloaded: given(matches, "from-downloaded"),
        tag: text(matches, "tag"),
        after: after(matches),
    }
}
