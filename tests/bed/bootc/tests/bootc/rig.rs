//! One host without a machine: its root is a folder, its power a method.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bed_bootc::boot;
use bed_bootc::faults::Faults;
use bed_bootc::files::{Content, FILES};
use bed_bootc::install::{Install, Source, install};
use bed_bootc::origin::ImageRef;
use bed_bootc::sysroot::BASE;
use serde_json::Value;

use crate::fixture::{self, Fixture, Names};
use crate::image;
use crate::registry::{Kind, Registry};
use crate::watch::{Watch, essence};

pub(crate) struct Rig {
    dir: tempfile::TempDir,
    pub(crate) registry: Registry,
    /// A second registry, which wants a password.
    pub(crate) protected: Option<Registry>,
    pub(crate) names: Names,
    /// Put before every command.
    pub(crate) wrap: String,
}

impl Rig {
    /// A host that runs `os:<tag>`.
    pub(crate) fn new(tag: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(Kind::Plain);
        let digests = image::push_all(&registry);
        let registries = [registry.address.clone(), "second.invalid:5001".to_owned()];
        let rig = Self {
            dir,
            registry,
            protected: None,
            names: Names {
                digests,
                registries,
            },
            wrap: String::new(),
        };
        rig.furnish();
        let install_of = Install {
            image: ImageRef::registry(&format!("{}/os:{tag}", rig.registry.address)),
            source: Source::Registry {
                endpoint: Some(format!("http://{}", rig.registry.address)),
            },
            base: rig.path("sysroot").join(BASE),
        };
        install(&rig.path("sysroot"), &install_of).unwrap();
        symlink("sysroot/ostree/deploy/default/var", rig.path("var")).unwrap();
        rig.power_on();
        rig
    }

    /// Starts the second registry with one image in it.
    pub(crate) fn start_protected(&mut self) {
        let protected = Registry::start(Kind::Password);
        image::push_os(&protected, "D", "04");
        self.names.registries[1].clone_from(&protected.address);
        self.write_registries();
        self.protected = Some(protected);
    }

    /// The right or a wrong auth file for the second registry.
    pub(crate) fn auth(&self, right: bool) -> String {
        self.protected.as_ref().unwrap().auth(right)
    }

    fn furnish(&self) {
        for dir in ["bin", "sysroot"] {
            fs::create_dir(self.path(dir)).unwrap();
        }
        for (path, content) in FILES {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content {
                Content::Text(text) => fs::write(path, text).unwrap(),
                Content::Link(to) => symlink(to, path).unwrap(),
            }
        }
        for name in ["bootc", "ostree"] {
            symlink(env!("CARGO_BIN_EXE_bootc"), self.path("bin").join(name)).unwrap();
        }
        self.write_registries();
    }

    fn write_registries(&self) {
        let conf = self.path("etc/containers/registries.conf.d");
        fs::create_dir_all(&conf).unwrap();
        for (i, address) in self.names.registries.iter().enumerate() {
            let text = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
            fs::write(conf.join(format!("{i}.conf")), text).unwrap();
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    pub(crate) fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn tell(&self, faults: &Faults) {
        faults.store(&self.path("var")).unwrap();
    }

    /// The boot loader's work and that of the first units.
    pub(crate) fn power_on(&self) {
        let run = self.path("run");
        let _ = fs::remove_dir_all(&run);
        fs::create_dir_all(run.join("ostree")).unwrap();
        let plan = boot::plan(&self.path("sysroot")).unwrap();
        fs::write(run.join("ostree-booted"), plan.booted).unwrap();
    }

    /// An orderly reboot; what the finalizer printed.
    pub(crate) fn reboot(&self) -> Output {
        let finalized = self.sh("ostree admin finalize-staged");
        self.power_on();
        finalized
    }

    /// Runs a shell command on the host, with recorded names or with `{A}` for digests.
    pub(crate) fn sh(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    pub(crate) fn spawn(&self, command: &str) -> Child {
        self.command(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn command(&self, command: &str) -> Command {
        let mut text = self
            .names
            .here(command)
            .replace("REGISTRY", &self.registry.address);
        for (name, digest) in &self.names.digests {
            text = text.replace(
                &format!("{{{name}}}"),
                &format!("{}/os@{digest}", self.registry.address),
            );
        }
        let mut shell = Command::new("sh");
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        shell
            .args(["-c", &format!("exec {}{text}", self.wrap)])
            .env("BED_ROOT", self.root())
            .env("PATH", path)
            .env_remove("container");
        shell
    }

    /// Runs a command that must succeed; its standard output.
    pub(crate) fn ok(&self, command: &str) -> String {
        let output = self.sh(command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; its standard error.
    pub(crate) fn fails(&self, command: &str, code: i32) -> String {
        let output = self.sh(command);
        assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Changes the origin file of the running deployment, as rpm-ostree would.
    pub(crate) fn edit_running_origin(&self, edit: impl Fn(&str) -> String) {
        let id = fs::read_to_string(self.path("run/ostree-booted")).unwrap();
        let path = self.path(&format!(
            "sysroot/ostree/deploy/default/deploy/{}.origin",
            id.trim()
        ));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, edit(&text)).unwrap();
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok("bootc status --json --format-version=1")).unwrap()
    }

    /// Does what was recorded as `name` and compares all that was recorded of it.
    pub(crate) fn replay(&self, name: &str) {
        self.replay_as(name, str::to_owned);
    }

    /// As `replay`, with a change to the recorded texts (not to the status).
    pub(crate) fn replay_as(&self, name: &str, change: impl Fn(&str) -> String) {
        self.replay_command(name, change);
        self.compare_status(name);
    }

    /// As `replay`, without a look at the status afterwards.
    pub(crate) fn replay_command(&self, name: &str, change: impl Fn(&str) -> String) {
        let recorded = Fixture::load(name);
        let watch = Watch::start(self.root());
        let output = self.sh(&recorded.command);
        let trace = watch.stop();
        let text = |bytes: &[u8]| self.names.common(&String::from_utf8_lossy(bytes));
        let expected = |text: &str| self.names.common(&change(text));
        assert_eq!(
            text(&output.stdout),
            expected(&recorded.stdout),
            "{name}: stdout"
        );
        assert_eq!(
            text(&output.stderr),
            expected(&recorded.stderr),
            "{name}: stderr"
        );
        assert_eq!(
            output.status.code(),
            Some(recorded.exit),
            "{name}: exit code"
        );
        if let Some(recorded) = recorded.trace() {
            assert_eq!(essence(&trace), essence(&recorded), "{name}: trace");
        }
    }

    /// Compares the status with the one recorded in, or after, the situation `name`.
    pub(crate) fn compare_status(&self, name: &str) {
        if let Some(recorded) = fixture::status(name) {
            let found = self.ok("bootc status --json --format-version=1");
            assert_eq!(
                self.names.common(&found),
                self.names.common(&recorded),
                "{name}: status"
            );
        }
    }
}
