//! Carrying out what was decided: each effect once, with what was seen after it.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crd::BootcNode;
use fsm::{
    Timestamp,
    host::{Auth, Can, Effect, Host as HostFact, News, Progress, Secret, Task, Unit},
};

use crate::{
    api::Server,
    auth,
    bootc::{self, Bootc, Images, ReadError},
    host::{CommandError, Host},
    unit::{Stage, Systemd},
};

/// When the reboot was asked for, and in which boot: on the disk, since nothing else of that last
/// second survives.
const ASKED: &str = "var/lib/bootc-operator/reboot-asked";
/// After a soft reboot this unit may be the one of the boot before, and bootc then takes the image
/// before for the booted one.
const BOOT_COMPLETE: &str = "ostree-boot-complete.service";
/// Where systemd looks for the root of a soft reboot.
const NEXT_ROOT: &str = "run/nextroot";
/// Where bootc says which image wants a reboot, for whoever else reboots hosts.
const REBOOT_REQUIRED: &str = "run/reboot-required";

/// What was seen after something was done; what is `None` was not looked at.
#[derive(Debug, Default)]
pub struct Sighting {
    /// What bootc says.
    pub host: Option<HostFact>,
    /// The same for people.
    pub images: Option<Images>,
    /// The unit that runs.
    pub unit: Option<Option<Unit>>,
    /// Our credentials.
    pub auth: Option<Auth>,
    /// How far the pull is.
    pub progress: Option<Progress>,
    /// What the host's tools offer.
    pub can: Option<Can>,
    /// The object, from the API server itself.
    pub node: Option<Option<BootcNode>>,
    /// What is told once.
    pub news: News,
}

/// What is known at the start of the agent.
#[derive(Debug)]
pub struct Survey {
    /// The boot: its id, `+N` after N soft reboots.
    pub boot: String,
    /// When the last reboot was asked for, and in which boot.
    pub asked: Option<(String, Timestamp)>,
    /// When this boot began.
    pub booted_at: Option<Timestamp>,
    /// The host is going down.
    pub stopping: bool,
    /// The unit that runs.
    pub unit: Option<Unit>,
    /// Our credentials.
    pub auth: Auth,
    /// What the host's tools offer; `None` if there is no bootc to ask.
    pub can: Option<Can>,
}

/// The host and the API server, and the skill to use them.
#[derive(Clone, Debug)]
pub struct Hands {
    host: Host,
    bootc: Bootc,
    systemd: Systemd,
    server: Server,
    /// This is a boot after a soft reboot, and [`BOOT_COMPLETE`] has not run anew in it.
    doubtful: Arc<AtomicBool>,
}

impl Hands {
    /// For this host and this API server.
    #[must_use]
    pub fn new(host: Host, server: Server) -> Self {
        Self {
            bootc: Bootc::on(host.clone()),
            systemd: Systemd::of(host.clone()),
            host,
            server,
            doubtful: Arc::default(),
        }
    }

    /// The API server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Looks round at the start.
    ///
    /// # Errors
    /// If the host does not show its boot: nothing can be said without.
    pub async fn survey(&self) -> io::Result<Survey> {
        let boot = self.boot().await?;
        let is_soft = boot.contains('+');
        self.doubtful.store(is_soft, Ordering::Relaxed);
        let from = if is_soft { "Userspace" } else { "Kernel" };
        let mut booted_at = self.systemd.reached(from).await;
        if booted_at.is_none_or(|at| at == 0) {
            booted_at = self.systemd.reached("Userspace").await;
        }
        let unit = match self.systemd.stage().await {
            Ok(Stage::Running(unit) | Stage::Ended { unit, .. }) => Some(unit),
            Ok(Stage::Absent) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot ask systemd for a unit to adopt");
                None
            }
        };
        Ok(Survey {
            boot,
            asked: self.asked(),
            booted_at: booted_at.map(|at| Timestamp(at.saturating_mul(1000))),
            stopping: self.is_stopping().await == Some(true),
            unit,
            auth: auth::present(&self.host),
            can: self.can().await,
        })
    }

    /// The boot as status names it: its id, `+N` after N soft reboots.
    async fn boot(&self) -> io::Result<String> {
        let id = self.host.boot_id()?;
        let count = self.systemd.soft_reboots().await;
        Ok(match count.map_err(io::Error::other)? {
            None | Some(0) => id,
            Some(count) => format!("{id}+{count}"),
        })
    }

    async fn can(&self) -> Option<Can> {
        let can = self.bootc.can().await?;
        let count = self.systemd.soft_reboots().await.ok().flatten();
        Some(Can {
            soft_reboot: can.soft_reboot && count.is_some(),
            ..can
        })
    }

    /// Makes sure that bootc names the image that runs.
    async fn make_sure(&self) -> Result<(), CommandError> {
        if self.doubtful.load(Ordering::Relaxed) {
            self.systemd.restart(BOOT_COMPLETE).await?;
            self.doubtful.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Would an orderly reboot be a soft one?
    fn is_prepared(&self) -> bool {
        let root = fs::read_dir(self.host.path(NEXT_ROOT));
        root.is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Takes back that a reboot is required into the image that runs: a soft reboot leaves that
    /// standing, and others would reboot the host for it.
    fn need_no_reboot(&self, booted: &str) {
        let path = self.host.path(REBOOT_REQUIRED);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let names_it = !booted.is_empty() && text.trim().ends_with(booted);
        if names_it && let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, "cannot remove /{REBOOT_REQUIRED}, which asks for the image that runs");
        }
    }

    /// Reads bootc's status, and what the tools offer if that is to be asked too.
    pub async fn read(&self, ask_tools: bool) -> Sighting {
        if let Err(error) = self.make_sure().await {
            let words = format!(
                "after a soft reboot bootc may name the wrong image until {BOOT_COMPLETE} ran anew, \
                 which fails: {error}"
            );
            return Sighting {
                host: Some(HostFact::Unreadable(words)),
                ..Sighting::default()
            };
        }
        let (host, images) = match self.bootc.status().await {
            Ok(status) => {
                let mut host = status.host();
                if let HostFact::Seen(view) = &mut host {
                    view.prepared = self.is_prepared();
                    if let Some(booted) = &view.booted.image {
                        self.need_no_reboot(&booted.digest);
                    }
                }
                (host, Some(status.images()))
            }
            Err(error @ ReadError::NoBootc) => (HostFact::NotBootc(error.to_string()), None),
            Err(error) => (HostFact::Unreadable(error.to_string()), None),
        };
        let can = if ask_tools && images.is_some() {
            self.can().await
        } else {
            None
        };
        Sighting {
            host: Some(host),
            images,
            can,
            ..Sighting::default()
        }
    }

    /// Looks at the unit that pulls; when it is through, also at what came of it.
    pub async fn look_at_unit(&self, unit: Unit) -> Sighting {
        let (image, error) = match self.systemd.stage().await {
            Ok(Stage::Running(unit)) => {
                return Sighting {
                    unit: Some(Some(unit)),
                    progress: bootc::newest_progress(&self.host),
                    ..Sighting::default()
                };
            }
            Ok(Stage::Ended { unit, error }) => (unit.image, error),
            Ok(Stage::Absent) => (unit.image, None),
            Err(error) => {
                tracing::warn!(%error, "cannot ask systemd how the pull is");
                return Sighting::default();
            }
        };
        if let Err(error) = self.systemd.clear_stage().await {
            tracing::warn!(%error, "cannot clear the unit that pulled");
        }
        self.ended(Task::Stage, image, error).await
    }

    /// Carries out one effect. If a step of an agent before us still changes the host, only its end is
    /// awaited and the host read again: a rollback on top of a rollback, say, would undo it.
    pub async fn carry_out(&self, effect: Effect) -> Sighting {
        if changes_deployments(&effect) && self.systemd.outlast_step().await {
            return self.read(false).await;
        }
        tracing::info!(?effect, "do");
        match effect {
            Effect::Cancel(unit) => self.cancel(unit).await,
            Effect::WriteAuth(secret) => self.write_auth(&secret).await,
            Effect::RemoveAuth => self.remove_auth(),
            Effect::Stage {
                image,
                lock,
                sigpolicy,
                progress,
            } => {
                let argv = bootc::stage(&image, lock, sigpolicy, progress);
                self.stage(image, &argv).await
            }
            Effect::Lock { image } => self.step(Task::Lock, image, &bootc::lock()).await,
            Effect::Unlock { image, soft } => {
                self.step(Task::Unlock, image, &bootc::unlock(soft)).await
            }
            Effect::Unprepare { image } => {
                let argv = bootc::undo_soft_reboot();
                self.step(Task::Unprepare, image, &argv).await
            }
            Effect::Settle { image } => self.step(Task::Settle, image, &bootc::rollback()).await,
            Effect::Unstage { image } => {
                let error = self.unstage().await.err();
                self.ended(Task::Unstage, image, error).await
            }
            Effect::Confirm { image } => self.confirm(image).await,
            Effect::Reboot { image, soft } => self.reboot(image, soft).await,
        }
    }

    async fn stage(&self, image: String, argv: &[String]) -> Sighting {
        match self.begin_stage(&image, argv).await {
            Ok(unit) => Sighting {
                unit: Some(Some(unit)),
                ..Sighting::default()
            },
            Err(error) => {
                let error = Some(error.to_string());
                self.ended(Task::Stage, image, error).await
            }
        }
    }

    /// Starts the pull, unless one runs (then that is looked at first).
    async fn begin_stage(&self, image: &str, argv: &[String]) -> Result<Unit, CommandError> {
        match self.systemd.stage().await? {
            Stage::Running(unit) => return Ok(unit),
            Stage::Ended { .. } => self.systemd.clear_stage().await?,
            Stage::Absent => {}
        }
        self.systemd.start_stage(image, argv).await?;
        Ok(Unit {
            task: Task::Stage,
            image: image.to_owned(),
        })
    }

    async fn cancel(&self, unit: Unit) -> Sighting {
        if let Err(error) = self.systemd.clear_stage().await {
            tracing::warn!(%error, "cannot stop the pull of an image that is not wanted any more");
            return Sighting::default();
        }
        self.ended(unit.task, unit.image, Some("cancelled".into()))
            .await
    }

    async fn step(&self, task: Task, image: String, argv: &[String]) -> Sighting {
        let error = self.systemd.step(argv).await.err();
        self.ended(task, image, error.map(|it| it.to_string()))
            .await
    }

    /// Drops what is staged. Only after making sure that index 0 is that: else a queued rollback goes.
    async fn unstage(&self) -> Result<(), String> {
        if !self.bootc.first_is_staged().await? {
            return Err("nothing is staged".into());
        }
        let argv = ["ostree", "admin", "undeploy", "0"].map(str::to_owned);
        let done = self.systemd.step(&argv).await;
        done.map_err(|error| error.to_string())
    }

    /// A task is through: what is there now is believed, not how it ended.
    async fn ended(&self, task: Task, image: String, error: Option<String>) -> Sighting {
        if let Some(error) = &error {
            tracing::warn!(?task, image, error, "it failed");
        }
        Sighting {
            unit: Some(None),
            news: News::Ended { task, image, error },
            ..self.read(false).await
        }
    }

    async fn write_auth(&self, secret: &Secret) -> Sighting {
        let written = match self.server.credentials(secret).await {
            Ok(text) => auth::write(&self.host, &text, &secret.hash).map_err(|it| it.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let error = written.err().map(|cause| {
            let Secret {
                namespace, name, ..
            } = secret;
            format!("the pull secret {namespace}/{name} cannot be used: {cause}")
        });
        self.auth_done(secret.hash.clone(), error)
    }

    fn remove_auth(&self) -> Sighting {
        let error = auth::remove(&self.host).err();
        let error =
            error.map(|cause| format!("the registry credentials cannot be removed: {cause}"));
        self.auth_done(String::new(), error)
    }

    fn auth_done(&self, hash: String, error: Option<String>) -> Sighting {
        Sighting {
            auth: Some(auth::present(&self.host)),
            news: News::Ended {
                task: Task::Auth,
                image: hash,
                error,
            },
            ..Sighting::default()
        }
    }

    /// Reads everything again that the reboot depends on, the object last.
    async fn confirm(&self, image: String) -> Sighting {
        let sighting = self.read(false).await;
        let failed = |error: String| News::Ended {
            task: Task::Confirm,
            image,
            error: Some(error),
        };
        if sighting.images.is_none() {
            return sighting;
        }
        match self.server.node().await {
            Ok(node) => Sighting {
                news: if node.is_some() {
                    News::Confirmed
                } else {
                    News::None
                },
                node: Some(node),
                ..sighting
            },
            Err(error) => Sighting {
                news: failed(error.to_string()),
                ..sighting
            },
        }
    }

    async fn reboot(&self, image: String, soft: bool) -> Sighting {
        if let Err(error) = self.note_asked().await {
            tracing::warn!(%error, "cannot note the time of the reboot; the update's steps will lack it");
        }
        // Without the next root a soft reboot starts the image anew that runs.
        let soft = soft && self.is_prepared();
        let news = match self.systemd.reboot(soft).await {
            Ok(()) => News::RebootAsked,
            // The bus may go down with the answer: a host that is stopping did hear it, and one whose
            // systemd has nothing to say any more most likely did.
            Err(_) if self.is_stopping().await != Some(false) => News::RebootAsked,
            Err(error) => News::Ended {
                task: Task::Reboot,
                image,
                error: Some(error.to_string()),
            },
        };
        Sighting {
            news,
            ..Sighting::default()
        }
    }

    /// Is the host going down? `None` if its systemd does not say.
    async fn is_stopping(&self) -> Option<bool> {
        let state = self.systemd.manager("SystemState").await;
        (!state.is_empty()).then(|| state == "stopping")
    }

    async fn note_asked(&self) -> io::Result<()> {
        let path = self.host.path(ASKED);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, format!("{} {}", self.boot().await?, now().0))
    }

    fn asked(&self) -> Option<(String, Timestamp)> {
        let text = fs::read_to_string(self.host.path(ASKED)).ok()?;
        let (boot, at) = text.trim().split_once(' ')?;
        Some((boot.to_owned(), Timestamp(at.parse().ok()?)))
    }
}

/// Does it change what the host boots, or boot it?
fn changes_deployments(effect: &Effect) -> bool {
    match effect {
        Effect::Stage { .. }
        | Effect::Lock { .. }
        | Effect::Unlock { .. }
        | Effect::Unprepare { .. }
        | Effect::Settle { .. }
        | Effect::Unstage { .. }
        | Effect::Reboot { .. } => true,
        Effect::Cancel(_) | Effect::WriteAuth(_) | Effect::RemoveAuth | Effect::Confirm { .. } => {
            false
        }
    }
}

/// The time.
#[must_use]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(millis).unwrap_or_default())
}
