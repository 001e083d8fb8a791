//! Hosts and wishes in a few letters, for tables.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test uses its own part of it, and fails by panicking"
)]

use fsm::Timestamp;
use fsm::host::{
    Auth, Can, Deployment, Effect, Entry, Facts, Host, Image, Lock, News, Record, Report, Spec,
    Started, Task, View, Wanted,
};

/// `image`, `image.SERIAL`, with `+` if it is locked and `~` if a soft reboot leads into it.
pub fn entry(text: &str) -> Option<Entry> {
    let (locked, soft_reboot_capable) = (text.contains('+'), text.contains('~'));
    let text = text.trim_end_matches(['+', '~']);
    let (image, serial) = text.split_once('.').unwrap_or((text, "0"));
    (image != "-").then(|| Entry {
        image: Some(Image {
            reference: format!("r/os@{image}"),
            digest: image.to_owned(),
            sigpolicy: false,
        }),
        deployment: Some(deployment(image, serial)),
        locked,
        soft_reboot_capable,
        incompatible: false,
    })
}

pub fn deployment(image: &str, serial: &str) -> Deployment {
    Deployment {
        checksum: image.to_owned(),
        serial: serial.parse().unwrap(),
    }
}

/// `booted staged rollback`, the last with `!` if it is queued; with ` prepared` for a soft reboot.
pub fn host(text: &str) -> Host {
    let parts: Vec<&str> = text.split(' ').collect();
    Host::Seen(View {
        booted: entry(parts[0]).unwrap(),
        staged: entry(parts[1]),
        rollback: entry(parts[2].trim_end_matches('!')),
        rollback_queued: parts[2].ends_with('!'),
        read_only: false,
        prepared: parts.get(3) == Some(&"prepared"),
    })
}

/// `image`, with `@boot` if it may be booted there (`@` alone: in any), `~` if by a soft reboot.
pub fn wanted(text: &str) -> Wanted {
    let soft_reboot = text.ends_with('~');
    let text = text.trim_end_matches('~');
    let (image, boot) = text
        .split_once('@')
        .map_or((text, None), |(it, boot)| (it, Some(boot)));
    if image == "-" {
        return Wanted::Nothing;
    }
    Wanted::Image(Spec {
        image: format!("r/os@{image}"),
        boot_it: boot.is_some(),
        approved_boot: boot.filter(|boot| !boot.is_empty()).map(str::to_owned),
        soft_reboot,
        ..Spec::default()
    })
}

pub fn facts(sees: &str, wants: &str) -> Facts {
    Facts {
        now: Timestamp(1_000_000),
        boot: "now".into(),
        wanted: wanted(wants),
        host: host(sees),
        unit: None,
        progress: None,
        auth: Auth::Absent,
        started: Started::default(),
        can: Can {
            lock: Lock::TwoSteps,
            unstage: true,
            soft_reboot: true,
            progress: true,
        },
        reported: None,
        jitter: 0,
    }
}

pub fn does(effect: Option<&Effect>) -> String {
    let text = effect.map_or("-".into(), |effect| format!("{effect:?}"));
    text.split([' ', '(']).next().unwrap().to_owned()
}

pub fn ended(task: Task, image: &str, error: Option<&str>) -> News {
    News::Ended {
        task,
        image: format!("r/os@{image}"),
        error: error.map(str::to_owned),
    }
}

pub fn report(record: &Record) -> Report {
    Report {
        state: record.state,
        message: String::new(),
        degraded: None,
        attempt: record.attempt.clone(),
        steps: vec![],
        keep_images: false,
    }
}
