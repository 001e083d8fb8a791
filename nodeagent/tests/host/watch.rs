//! The watch on the host's folders.

use std::{fs, sync::Arc, time::Duration};

use nodeagent::{host::Host, watch::HostWatch};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::host;

/// A watch that runs, and whether it told of a change.
struct Watching {
    told: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    fn of(host: &Host) -> Self {
        let told = Arc::new(Notify::new());
        let watch = HostWatch::new(host);
        let task = tokio::spawn(watch.run(Arc::clone(&told)));
        Self { told, task }
    }

    async fn tells(&self) -> bool {
        timeout(Duration::from_secs(10), self.told.notified())
            .await
            .is_ok()
    }

    async fn is_calm(&self) -> bool {
        timeout(Duration::from_secs(2), self.told.notified())
            .await
            .is_err()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn changes_of_the_host_are_told() {
    let host = host();
    fs::create_dir_all(host.path("sysroot/ostree/bootc")).unwrap();
    let watching = Watching::of(&host.host());
    assert!(watching.is_calm().await);
    // What a stage, a lock and an update of the time stamp leave behind.
    fs::create_dir(host.path("sysroot/ostree/deploy/x")).unwrap();
    assert!(watching.tells().await);
    host.set("run/ostree/staged-deployment-locked", "");
    assert!(watching.tells().await);
    let bootc = fs::File::open(host.path("sysroot/ostree/bootc")).unwrap();
    bootc.set_modified(std::time::SystemTime::now()).unwrap();
    assert!(watching.tells().await);
}

#[tokio::test]
async fn what_bootc_status_leaves_behind_is_not_told() {
    let host = host();
    let watching = Watching::of(&host.host());
    // It makes and removes its lock file at each call, and reads everything.
    host.set("sysroot/ostree/lock", "");
    host.remove("sysroot/ostree/lock");
    fs::read_dir(host.path("sysroot/ostree/deploy"))
        .unwrap()
        .count();
    fs::read_dir(host.path("run/ostree")).unwrap().count();
    host.set("run/somebody-elses-file", "");
    assert!(watching.is_calm().await);
}

#[tokio::test]
async fn folders_that_come_late_or_are_replaced_are_watched() {
    let host = host();
    let watching = Watching::of(&host.host());
    fs::create_dir(host.path("run/composefs")).unwrap();
    assert!(watching.tells().await);
    host.set("run/composefs/staged-deployment", "");
    assert!(watching.tells().await);
    // Another folder in its place, with and without a gap.
    let deploy = host.path("sysroot/ostree/deploy");
    fs::rename(&deploy, host.path("sysroot/ostree/old")).unwrap();
    fs::create_dir(&deploy).unwrap();
    assert!(watching.tells().await);
    fs::create_dir(deploy.join("x")).unwrap();
    assert!(watching.tells().await);
    fs::remove_dir_all(&deploy).unwrap();
    assert!(watching.tells().await);
    sleep(Duration::from_secs(1)).await;
    fs::create_dir(&deploy).unwrap();
    assert!(watching.tells().await);
    fs::create_dir(deploy.join("y")).unwrap();
    assert!(watching.tells().await);
}
