//! What a watcher outside of the host sees of a command.

use std::collections::BTreeSet;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// The folders that were watched in the recorded runs.
const FOLDERS: [&str; 6] = [
    "sysroot/ostree",
    "sysroot/ostree/deploy",
    "sysroot/ostree/bootc",
    "sysroot/ostree/deploy/default/deploy",
    "run/ostree",
    "run",
];

pub(crate) struct Watch {
    inotify: Inotify,
    folders: Vec<(WatchDescriptor, &'static str)>,
}

/// Events as `folder EVENT name`, in the order seen.
pub(crate) type Trace = Vec<String>;

impl Watch {
    pub(crate) fn start(root: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        let flags = AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO;
        let folders = FOLDERS.map(|f| (inotify.add_watch(&root.join(f), flags).unwrap(), f));
        Self {
            inotify,
            folders: folders.to_vec(),
        }
    }

    pub(crate) fn stop(self) -> Trace {
        let mut trace = Vec::new();
        loop {
            let events = match self.inotify.read_events() {
                Err(Errno::EAGAIN) => return trace,
                events => events.unwrap(),
            };
            for event in events {
                let folder = self
                    .folders
                    .iter()
                    .find(|(wd, _)| *wd == event.wd)
                    .unwrap()
                    .1;
                let name = event
                    .name
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default();
                let kinds = [
                    (AddWatchFlags::IN_ATTRIB, "ATTRIB"),
                    (AddWatchFlags::IN_CREATE, "CREATE"),
                    (AddWatchFlags::IN_DELETE, "DELETE"),
                    (AddWatchFlags::IN_MOVED_FROM, "MOVED_FROM"),
                    (AddWatchFlags::IN_MOVED_TO, "MOVED_TO"),
                ];
                let kind = kinds
                    .iter()
                    .find(|(flag, _)| event.mask.contains(*flag))
                    .unwrap()
                    .1;
                trace.push(format!("/{folder} {kind} {name}"));
            }
        }
    }
}

/// What of a trace must agree: not temporary names, not the boot loader's
/// links and the repo's own business, not what earlier commands left to clean.
pub(crate) fn essence(trace: &[String]) -> BTreeSet<String> {
    let essential = trace.iter().filter_map(|line| {
        let mut parts = line.splitn(3, ' ');
        let (folder, event, name) = (parts.next()?, parts.next()?, parts.next().unwrap_or(""));
        let temporary = name.starts_with("tmp.")
            || name.starts_with(".tmp")
            || name.contains('#')
            || is_uuid(name);
        let foreign = ["repo", "bed-deployments.json"].contains(&name)
            || name.starts_with("boot.")
            || (folder == "/run" && ["bootc", "libpod", "containers", "ostree"].contains(&name));
        let tree = folder.ends_with("/deploy/deploy") || folder.ends_with("default/deploy");
        if temporary
            || foreign
            || event == "MODIFY"
            || (tree && ["DELETE", "ATTRIB"].contains(&event))
        {
            return None;
        }
        let name = if tree { tree_name(name) } else { name };
        Some(format!("{folder} {event} {name}"))
    });
    essential.collect()
}

fn tree_name(name: &str) -> &'static str {
    if name.ends_with(".origin") {
        "TREE.origin"
    } else {
        "TREE"
    }
}

fn is_uuid(name: &str) -> bool {
    name.len() == 36 && name.matches('-').count() == 4
}
