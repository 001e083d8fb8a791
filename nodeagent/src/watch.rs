//! Noticing that somebody else changed the host: inotify on the folders that bootc and ostree touch.
//!
//! No single folder tells everything (a lock shows in `/run/ostree` alone, `ostree admin undeploy` in
//! `ostree/deploy`, a check for updates in `ostree/bootc`), folders come late (a host without a staged
//! image may have no `/run/composefs`) and are replaced; so all are watched, with the folders above them
//! where they are missing, and a removed one is looked for again. Never `/sysroot/ostree` itself: every
//! command, `bootc status` too, makes and removes its lock file there. A poll runs beside it, always.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::Notify, time::timeout};

use crate::host::Host;

/// Where changes show, on hosts of both backends.
const FOLDERS: [&str; 5] = [
    "sysroot/ostree/deploy",
    "sysroot/ostree/bootc",
    "run/ostree",
    "run/composefs",
    "sysroot/state/deploy",
];
/// Where a missing one of them appears; nothing else that happens there counts.
const ABOVE: [&str; 3] = ["run", "sysroot/state", "sysroot"];
/// A change is a row of events; it is over when none came for so long.
const CALM: Duration = Duration::from_millis(300);
/// A host that is never calm is looked at all the same.
const LONGEST_WAIT: Duration = Duration::from_millis(1200);
/// How often all folders are looked for, for what no event told.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);
/// How often a folder that is gone is looked for where nothing tells that it is back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Watches the host's folders.
#[derive(Debug)]
pub struct HostWatch {
    watcher: Option<RecommendedWatcher>,
    folders: Vec<Folder>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    watched: bool,
    /// It was there once: then it comes back, and is looked for.
    lost: bool,
}

impl HostWatch {
    /// Begins to watch. Where the kernel has no watches left, the poll is all there is.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let telling: Vec<PathBuf> = FOLDERS.iter().map(|it| host.path(it)).collect();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| tells(&event, &telling)) {
                told.notify_one();
            }
        })
        .inspect_err(
            |error| tracing::warn!(%error, "no inotify: others' changes show at the poll"),
        );
        let folders = FOLDERS.iter().chain(&ABOVE).map(|path| Folder {
            path: host.path(path),
            watched: false,
            lost: false,
        });
        let mut watch = Self {
            watcher: watcher.ok(),
            folders: folders.collect(),
            changed,
        };
        watch.renew();
        watch
    }

    /// Tells of every change, for ever. Of several that were not taken note of one is told.
    pub async fn run(mut self, tell: Arc<Notify>) {
        loop {
            match timeout(LOOK_ANYWAY, self.changed()).await {
                Ok(()) => tell.notify_one(),
                Err(_) if self.renew() => tell.notify_one(),
                Err(_) => {}
            }
        }
    }

    /// Waits until something changed and it is calm again.
    async fn changed(&mut self) {
        while self.folders.iter().any(|folder| folder.lost) {
            if timeout(LOOK_AGAIN, self.changed.notified()).await.is_ok() {
                return self.calm().await;
            }
            if self.renew() {
                return;
            }
        }
        self.changed.notified().await;
        self.calm().await;
    }

    async fn calm(&mut self) {
        let calm = async { while timeout(CALM, self.changed.notified()).await.is_ok() {} };
        let _ = timeout(LONGEST_WAIT, calm).await;
        self.renew();
    }

    /// Watches what came and what was replaced; was there such? Asking again for a folder that is
    /// watched already costs little, and it is what brings in one that is another folder by now.
    pub fn renew(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let mut came = false;
        for folder in &mut self.folders {
            let is_there = folder.path.is_dir();
            if folder.watched && !is_there {
                let _ = watcher.unwatch(&folder.path);
                (folder.watched, folder.lost) = (false, true);
            }
            if is_there {
                let watching = watcher
                    .watch(&folder.path, RecursiveMode::NonRecursive)
                    .is_ok();
                came |= watching && !folder.watched;
                (folder.watched, folder.lost) = (watching, false);
            }
        }
        came
    }

    /// The folders that are watched now.
    pub fn watched(&self) -> impl Iterator<Item = &Path> {
        let watched = self.folders.iter().filter(|folder| folder.watched);
        watched.map(|folder| folder.path.as_path())
    }
}

/// Does the event tell of a change in one of the folders, or that one may have come?
fn tells(event: &Event, folders: &[PathBuf]) -> bool {
    let relevant = |path: &PathBuf| {
        folders
            .iter()
            .any(|folder| path.starts_with(folder) || folder.starts_with(path))
    };
    !matches!(event.kind, EventKind::Access(_))
        && (event.paths.is_empty() || event.paths.iter().any(relevant))
}
