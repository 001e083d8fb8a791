//! A host boots, reboots, loses its power and leaves nothing behind.
//!
//! Real namespaces, a real systemd, the real reboot(2): this needs root.
#![allow(
    clippy::unwrap_used,
    reason = "clippy does not know helpers of tests for tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bed_bootc::install::{Install, Source, install};
use bed_bootc::origin::ImageRef;
use bed_host::layer::Layer;
use bed_host::{Boot, End, Host, HostConfig, Power};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sha2::{Digest, Sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_bed-host");
/// Far above what anything here takes: only a hang lasts this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes an OCI image layout with one layer that holds `files`.
fn image(layout: &Path, files: &[(&str, &str)]) {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        layer
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media: &str, data: &[u8]| {
        let digest = Sha256::digest(data)
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        fs::write(blobs.join(&digest), data).unwrap();
        json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": data.len()})
    };
    let layer = put("application/vnd.oci.image.layer.v1.tar", &layer);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"containers.bootc": "1"}},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = put(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer]});
    let manifest = put(media, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

/// Where the bed keeps what it makes once.
fn bed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/bed")
}

fn installed(name: &str, directory: &Path) -> Host {
    let base = bed_host::base::tree(&bed()).unwrap();
    let layer = directory.join("layer");
    Layer::default().write(&layer).unwrap();
    let config = HostConfig {
        name: name.to_owned(),
        base: base.clone(),
        layer,
        network: None,
        node: None,
        names: BTreeMap::new(),
    };
    let host = Host::create(&directory.join("host"), &config).unwrap();
    let layout = directory.join("image");
    image(
        &layout,
        &[
            ("usr/lib/modules/6.1.0/vmlinuz", "kernel"),
            (
                "usr/lib/os-release",
                "ID=bed\nVERSION_ID=1\nPRETTY_NAME=\"Bed Linux 1\"\n",
            ),
        ],
    );
    let what = Install {
        image: ImageRef::registry("registry.cluster.local:5000/os:1"),
        source: Source::Layout(layout),
        base,
    };
    install(&host.disk(), &what).unwrap();
    host
}

/// A host that is shown when the test fails.
struct Watched {
    host: Host,
    _directory: tempfile::TempDir,
}

impl Watched {
    fn new(name: &str) -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "hosts are made of namespaces and mounts: run this test as root"
        );
        // Not in /tmp, which may be a tmpfs that cannot be an overlay's upper.
        fs::create_dir_all(bed()).unwrap();
        let directory = tempfile::tempdir_in(bed()).unwrap();
        Self {
            host: installed(name, directory.path()),
            _directory: directory,
        }
    }

    fn power_on(&self) -> Power {
        self.host.power_on(Path::new(PROGRAM)).unwrap()
    }

    fn run(&self, command: &[&str]) -> Output {
        self.host
            .command(Path::new(PROGRAM), command)
            .output()
            .unwrap()
    }

    fn says(&self, command: &[&str]) -> String {
        let output = self.run(command);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(
            output.status.success(),
            "{command:?} in the host: {} {text} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Waits until boot number `count` has come up, and returns all boots.
    fn wait_for_boot(&self, count: usize) -> Vec<Boot> {
        wait(&format!("boot {count}"), || {
            let boots = self.host.boots().unwrap();
            let given_up = boots.last().is_some_and(|boot| boot.ended.is_some());
            assert!(!given_up || self.host.is_on().unwrap(), "the host went off");
            let up = || {
                let state = self.run(&["systemctl", "is-system-running", "--wait"]);
                state.stdout.starts_with(b"running")
            };
            (boots.len() >= count && up()).then_some(boots)
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = fs::read_to_string(self.host.console_log());
            eprintln!("--- console\n{}", console.unwrap_or_default());
            eprintln!("--- boots\n{:#?}", self.host.boots());
            let _ = self.host.pull_plug();
        }
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        sleep(Duration::from_millis(50));
    }
}

/// Processes and mounts on the machine that belong to the host.
fn live_traces(host: &Host) -> Vec<String> {
    let here = host.directory().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(command) = fs::read_to_string(entry.path().join("cmdline"))
            && command.contains(&here)
        {
            found.push(format!("process {}: {command}", entry.path().display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = mounts.lines().filter(|line| line.contains(&here));
    found.extend(ours.map(str::to_owned));
    found
}

/// The host's cgroups on the machine.
fn cgroups(host: &Host) -> Vec<PathBuf> {
    let pattern = format!("bed-{}-*", host.config().unwrap().name);
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &pattern, "-prune"])
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    found.lines().map(PathBuf::from).collect()
}

#[test]
fn a_host_boots_reboots_and_leaves_nothing() {
    let watched = Watched::new("boots");
    let host = &watched.host;
    assert!(!host.is_on().unwrap());
    let mut power = watched.power_on();

    let boots = watched.wait_for_boot(1);
    assert!(host.is_on().unwrap());
    let id = watched.says(&["cat", "/proc/sys/kernel/random/boot_id"]);
    assert_eq!(boots[0].id, id);
    assert_eq!(watched.says(&["cat", "/etc/hostname"]), "boots");
    assert_eq!(
        watched.says(&["sed", "-n", "s/^PRETTY_NAME=//p", "/etc/os-release"]),
        "\"Bed Linux 1\""
    );
    assert_eq!(watched.says(&["cat", "/proc/1/comm"]), "systemd");
    assert_eq!(
        watched.says(&[
            "systemd-run",
            "--wait",
            "--pipe",
            "--quiet",
            "echo",
            "in a unit"
        ]),
        "in a unit"
    );
    assert!(!watched.run(&["ls", "/dev/vda"]).status.success());
    assert_eq!(watched.run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    watched.says(&["sh", "-c", "echo kept >/var/kept; echo lost >/run/lost"]);

    // The host's own reboot. The guard comes first: this must not be the machine.
    host.init().unwrap();
    watched.run(&["systemctl", "reboot"]);
    let boots = watched.wait_for_boot(2);
    assert_eq!(boots[0].ended.map(|(end, _)| end), Some(End::Reboot));
    assert_ne!(boots[0].id, boots[1].id);
    assert_eq!(watched.says(&["cat", "/var/kept"]), "kept");
    assert!(!watched.run(&["test", "-e", "/run/lost"]).status.success());

    host.cut_power().unwrap();
    let boots = watched.wait_for_boot(3);
    assert_eq!(boots[1].ended.map(|(end, _)| end), Some(End::PowerCut));

    watched.run(&["systemctl", "poweroff"]);
    host.wait_off(PATIENCE).unwrap();
    let boots = host.boots().unwrap();
    assert_eq!(boots.len(), 3);
    assert_eq!(boots[2].ended.map(|(end, _)| end), Some(End::PowerOff));
    assert!(wait("the supervisor's end", || power.ended().unwrap()).success());
    assert_eq!(live_traces(host), Vec::<String>::new());
    assert_eq!(cgroups(host), Vec::<PathBuf>::new());
}

#[test]
fn a_host_dies_with_its_supervisor() {
    let watched = Watched::new("orphan");
    let host = &watched.host;
    // Of another checkout whose run was killed: not ours to judge or to remove.
    let others = cgroups(host);
    let power = watched.power_on();
    watched.wait_for_boot(1);
    let supervisor = Pid::from_raw(i32::try_from(power.supervisor()).unwrap());
    kill(supervisor, Signal::SIGKILL).unwrap();
    wait("the end of all that the host was", || {
        live_traces(host).is_empty().then_some(())
    });
    // The kernel drops the supervisor's lock in its own time.
    wait("the host to be off", || {
        (!host.is_on().unwrap()).then_some(())
    });
    drop(power);

    // Its empty cgroups are left; the next start knows them.
    assert_ne!(cgroups(host), others);
    let power = watched.power_on();
    watched.wait_for_boot(2);
    // Whoever holds its power lets go.
    drop(power);
    assert!(!host.is_on().unwrap());
    assert_eq!(live_traces(host), Vec::<String>::new());
    assert_eq!(cgroups(host), others);
}

#[test]
fn a_host_that_is_off_cannot_be_entered() {
    let watched = Watched::new("off");
    let output = watched.run(&["true"]);
    assert_eq!(output.status.code(), Some(255));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("off does not run"), "{said}");
    assert!(watched.host.cut_power().is_err());
}
