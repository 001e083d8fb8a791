//! A host of the bed with a registry of its own on its loopback.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use bed::parts::{Part, ensure};
use bed_bootc::install::{Install, Source, install};
use bed_bootc::origin::ImageRef;
use bed_host::layer::Layer;
use bed_host::{Host, HostConfig, Power};
use serde_json::Value;

use crate::image;
use crate::registry::{Kind, Registry};

const REGISTRY: &str = "127.0.0.1:5000";
/// Far above what anything here takes: only a hang lasts this long.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Machine {
    host: Host,
    boots: usize,
    _power: Power,
    _dir: tempfile::TempDir,
}

impl Machine {
    /// A host that runs `os:A` and is up.
    pub(crate) fn new(name: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "hosts are made of namespaces and mounts: run this test as root"
        );
        let bed = bed::paths::bed().unwrap();
        // Not in /tmp, which may be a tmpfs that cannot be an overlay's upper.
        let dir = tempfile::tempdir_in(&bed).unwrap();
        let base = bed_host::base::tree(&bed).unwrap();
        let layer = Layer {
            bootc: Some(bed::cargo::static_program("bed-bootc", "bootc").unwrap()),
            registries: vec![REGISTRY.to_owned()],
            kubernetes: None,
        };
        layer.write(&dir.path().join("layer")).unwrap();
        let config = HostConfig {
            name: name.to_owned(),
            base: base.clone(),
            layer: dir.path().join("layer"),
            network: None,
            node: None,
            names: BTreeMap::new(),
        };
        let host = Host::create(&dir.path().join("host"), &config).unwrap();
        let registry = Registry::start(Kind::Plain);
        for (tag, day) in [("A", "01"), ("B", "02"), ("C", "03")] {
            image::push_os(&registry, tag, day);
        }
        let source = Source::Registry {
            endpoint: Some(format!("http://{}", registry.address)),
        };
        let image = ImageRef::registry(&format!("{REGISTRY}/os:A"));
        install(
            &host.disk(),
            &Install {
                image,
                source,
                base,
            },
        )
        .unwrap();
        move_in(
            &registry,
            &host.disk().join("ostree/deploy/default/var/registry"),
        );
        let power = host.power_on(&program()).unwrap();
        let mut machine = Self {
            host,
            boots: 0,
            _power: power,
            _dir: dir,
        };
        machine.wait_for_boot();
        machine
    }

    fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    fn command(&self, command: &str) -> Command {
        self.host.command(&program(), ["sh", "-c", command])
    }

    /// Starts a command in the host as an agent's pod would: it belongs to no unit.
    pub(crate) fn start(&self, command: &str) -> Child {
        self.command(&format!("exec {command}")).spawn().unwrap()
    }

    /// What a command that must succeed prints.
    pub(crate) fn says(&self, command: &str) -> String {
        let output = self.run(command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{command}: {} {error}\n{}",
            output.status,
            self.console()
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn console(&self) -> String {
        fs::read_to_string(self.host.console_log()).unwrap_or_default()
    }

    /// Versions of what is staged, booted, and to roll back to.
    pub(crate) fn versions(&self) -> [String; 3] {
        let status: Value = serde_json::from_str(&self.says("bootc status --json")).unwrap();
        ["staged", "booted", "rollback"].map(|k| {
            status["status"][k]["image"]["version"]
                .as_str()
                .unwrap_or("-")
                .to_owned()
        })
    }

    pub(crate) fn reboot(&mut self) {
        self.host.init().unwrap();
        self.says("systemctl reboot");
        self.wait_for_boot();
    }

    pub(crate) fn cut_power(&mut self) {
        self.host.cut_power().unwrap();
        self.wait_for_boot();
    }

    /// Reboots into the root that is prepared, and waits until `count` such reboots were done.
    ///
    /// systemd makes that of `systemctl reboot` as well, unless logind's answer is lost with the
    /// bus, which goes down first: then systemctl asks again, for a full reboot.
    pub(crate) fn soft_reboot(&self, count: u32) {
        self.host.init().unwrap();
        self.run("systemctl soft-reboot");
        self.wait(&format!("soft reboot {count}"), || {
            let output = self.run("systemctl show -P SoftRebootsCount");
            String::from_utf8_lossy(&output.stdout).trim() == count.to_string() && self.is_up()
        });
        self.start_registry();
    }

    pub(crate) fn wait_for_boot(&mut self) {
        self.boots += 1;
        let count = self.boots;
        self.wait(&format!("boot {count}"), || {
            self.host.boots().unwrap().len() >= count && self.is_up()
        });
        self.start_registry();
    }

    fn is_up(&self) -> bool {
        let state = self.run("systemctl is-system-running --wait");
        state.stdout.starts_with(b"running") || state.stdout.starts_with(b"degraded")
    }

    fn start_registry(&self) {
        self.says("systemd-run --quiet --unit=registry /var/registry/registry serve /var/registry/config.yml");
        let listening = "until (exec 3<>/dev/tcp/127.0.0.1/5000) 2>/dev/null; do sleep 0.05; done";
        self.says(&format!("timeout 30 bash -c '{listening}'"));
    }

    fn wait(&self, what: &str, mut there: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !there() {
            assert!(
                Instant::now() < deadline,
                "{what} did not happen\n{}",
                self.console()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// This test is its own helper.
fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// Puts the registry's program and all it stores into a host's folder.
fn move_in(registry: &Registry, dir: &Path) {
    let program = ensure(&[Part::Registry]).unwrap().join("registry");
    fs::create_dir_all(dir).unwrap();
    fs::copy(program, dir.join("registry")).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(registry.data())
        .arg(dir)
        .status()
        .unwrap();
    assert!(copied.success());
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: /var/registry/data}}}}\n\
         http: {{addr: \"{REGISTRY}\"}}\n"
    );
    fs::write(dir.join("config.yml"), config).unwrap();
}
