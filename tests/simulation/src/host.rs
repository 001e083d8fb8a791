//! A host: its deployments, bootc's commands on them, its boot loader, its kubelet and its pods.
//!
//! It does what the real bootc was seen to do: what is staged and not locked is booted by an orderly
//! reboot and lost in a power cut, a rollback on top of a rollback undoes it, staging replaces what
//! was staged.

use fsm::{
    NodeName, Timestamp,
    host::{Auth, Can, Deployment, Entry, Host as Seen, Image, Lock, Task, Unit, View},
    time::Seconds,
};

/// What becomes of the next reboots into a staged image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It comes up.
    #[default]
    Up,
    /// It comes up, its health check fails, and the boot loader goes back.
    FallsBack,
    /// The same, and the boot order still has the failed one first.
    FallsBackQueued,
    /// The update is not finished at shutdown: the old image boots.
    Lost,
    /// It does not come up until somebody helps.
    StaysDown,
    /// The host says yes and does not go down until somebody helps.
    Hangs,
    /// The request fails.
    Refused,
}

/// What is on the disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OnDisk {
    pub(crate) image: Image,
    pub(crate) serial: u32,
}

/// What the next boot is to boot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Staged {
    pub(crate) disk: OnDisk,
    pub(crate) locked: bool,
    /// By somebody else than the agent.
    pub(crate) foreign: bool,
}

/// Where it is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Up,
    /// On its way down since it was asked; what for: softly.
    Stopping {
        soft: bool,
    },
    /// Down until then.
    Down {
        until: Timestamp,
    },
}

/// A host.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) power: Power,
    boots: u32,
    soft_boots: u32,
    serials: u32,
    pub(crate) booted: OnDisk,
    pub(crate) staged: Option<Staged>,
    pub(crate) rollback: Option<OnDisk>,
    pub(crate) rollback_queued: bool,
    pub(crate) prepared: bool,
    pub(crate) pull: Option<Unit>,
    /// How the pull ended that nobody has looked at yet.
    pub(crate) pulled: Option<(Unit, Option<String>)>,
    pub(crate) auth: Auth,
    pub(crate) can: Can,
    pub(crate) asked: Option<(String, Timestamp)>,
    pub(crate) booted_at: Timestamp,
    pub(crate) fate: Fate,
    /// So many pulls fail.
    pub(crate) bad_pulls: u8,
    /// So many other commands fail.
    pub(crate) bad_steps: u8,
    pub(crate) unreadable: bool,
    pub(crate) soft_capable: bool,
    /// Milliseconds that its clock is ahead.
    pub(crate) clock: i64,
    /// The kubelet is cut off: the Node is not Ready.
    pub(crate) cut_off: bool,
    pub(crate) pods: u8,
    pub(crate) blocked: bool,
    /// Something changed that inotify tells of.
    pub(crate) changed: bool,
    /// Its agent tells what the Go daemon tells.
    pub(crate) plain: bool,
}

impl Host {
    pub(crate) fn new(name: &NodeName, image: &str, can: Can, now: Timestamp) -> Self {
        let booted = OnDisk {
            image: named(image),
            serial: 0,
        };
        Self {
            name: name.clone(),
            power: Power::Up,
            boots: 1,
            soft_boots: 0,
            serials: 0,
            booted,
            staged: None,
            rollback: None,
            rollback_queued: false,
            prepared: false,
            pull: None,
            pulled: None,
            auth: Auth::Absent,
            can,
            asked: None,
            booted_at: now,
            fate: Fate::Up,
            bad_pulls: 0,
            bad_steps: 0,
            unreadable: false,
            soft_capable: can.soft_reboot,
            clock: 0,
            cut_off: false,
            pods: 2,
            blocked: false,
            changed: false,
            plain: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.power == Power::Up
    }

    /// The boot as the kubelet names it.
    pub(crate) fn kernel(&self) -> String {
        format!("{}-{}", self.name, self.boots)
    }

    /// The boot as the agent names it.
    pub(crate) fn boot(&self) -> String {
        match self.soft_boots {
            0 => self.kernel(),
            soft => format!("{}+{soft}", self.kernel()),
        }
    }

    pub(crate) fn clock(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0 + self.clock)
    }

    /// What `bootc status` says.
    pub(crate) fn seen(&self) -> Seen {
        if self.unreadable {
            return Seen::Unreadable("bootc status failed".into());
        }
        let entry = |disk: &OnDisk, locked: bool, soft: bool| Entry {
            image: Some(disk.image.clone()),
            incompatible: false,
            locked,
            soft_reboot_capable: soft,
            deployment: Some(Deployment {
                checksum: disk.image.digest.clone(),
                serial: disk.serial,
            }),
        };
        let staged = self.staged.as_ref();
        Seen::Seen(View {
            booted: entry(&self.booted, false, false),
            staged: staged.map(|it| entry(&it.disk, it.locked, self.soft_capable)),
            rollback: self.rollback.as_ref().map(|it| entry(it, false, false)),
            rollback_queued: self.rollback_queued,
            read_only: false,
            prepared: self.prepared,
        })
    }

    fn fails(&mut self) -> Result<(), String> {
        if self.bad_steps == 0 {
            return Ok(());
        }
        self.bad_steps -= 1;
        Err("the disk is full".into())
    }

    /// The pull ends.
    pub(crate) fn pull_ends(&mut self) {
        let Some(unit) = self.pull.take() else {
            return;
        };
        let error = if self.bad_pulls > 0 {
            self.bad_pulls -= 1;
            Some("connection refused".to_owned())
        } else {
            self.stage(&unit.image, self.can.lock != Lock::No, false);
            None
        };
        self.pulled = Some((unit, error));
    }

    pub(crate) fn begin_pull(&mut self, image: &str) {
        self.pulled = None;
        self.pull = Some(Unit {
            task: Task::Stage,
            image: image.to_owned(),
        });
    }

    pub(crate) fn stage(&mut self, image: &str, locked: bool, foreign: bool) {
        self.serials += 1;
        self.staged = Some(Staged {
            disk: OnDisk {
                image: named(image),
                serial: self.serials,
            },
            locked,
            foreign,
        });
        self.changed = true;
    }

    /// Locks, unlocks or drops what is staged, or puts the boot order right.
    pub(crate) fn command(&mut self, task: Task, soft: bool) -> Result<(), String> {
        self.changed = true;
        self.fails()?;
        let missing = || "nothing is staged".to_owned();
        match task {
            Task::Lock => self.staged.as_mut().ok_or_else(missing)?.locked = true,
            Task::Unlock => {
                self.staged.as_mut().ok_or_else(missing)?.locked = false;
                self.prepared = soft && self.soft_capable;
            }
            Task::Unprepare => self.prepared = false,
            Task::Unstage => {
                self.staged.take().ok_or_else(missing)?;
            }
            Task::Settle => self.roll_back()?,
            Task::Stage | Task::Auth | Task::Confirm | Task::Reboot => {}
        }
        Ok(())
    }

    /// `bootc rollback`: queues it, or takes that back.
    pub(crate) fn roll_back(&mut self) -> Result<(), String> {
        self.changed = true;
        if self.rollback.is_none() {
            return Err("there is no rollback".into());
        }
        self.staged = None;
        self.rollback_queued = !self.rollback_queued;
        Ok(())
    }

    /// It is asked to reboot.
    pub(crate) fn ask(&mut self, soft: bool, now: Timestamp) -> Result<(), String> {
        if self.fate == Fate::Refused {
            self.fate = Fate::Up;
            return Err("the bus is gone".into());
        }
        self.asked = Some((self.boot(), self.clock(now)));
        self.power = Power::Stopping { soft };
        Ok(())
    }

    /// It goes down; orderly, or as the power is cut.
    pub(crate) fn go_down(&mut self, orderly: bool, now: Timestamp) {
        let soft = matches!(self.power, Power::Stopping { soft: true }) && self.prepared;
        let old = self.booted.clone();
        let fate = std::mem::take(&mut self.fate);
        let staged = self.staged.take();
        let applied = staged.filter(|it| orderly && !it.locked && fate != Fate::Lost);
        let rolls_back = orderly && self.rollback_queued && applied.is_none();
        if let Some(staged) = applied {
            (self.booted, self.rollback) = (staged.disk, Some(old));
            self.rollback_queued = false;
            if matches!(fate, Fate::FallsBack | Fate::FallsBackQueued) {
                self.fall_back();
                self.rollback_queued = fate == Fate::FallsBackQueued;
                self.boots += 1;
            }
        } else if rolls_back {
            self.fall_back();
            self.rollback_queued = false;
        }
        if soft {
            self.soft_boots += 1;
        } else {
            (self.boots, self.soft_boots) = (self.boots + 1, 0);
        }
        (self.prepared, self.pull, self.pulled) = (false, None, None);
        let stays = fate == Fate::StaysDown;
        let long = if stays {
            Seconds(1_000_000)
        } else {
            Seconds(30)
        };
        self.power = Power::Down { until: now + long };
    }

    /// The boot loader takes the other deployment.
    pub(crate) fn fall_back(&mut self) {
        if let Some(rollback) = self.rollback.take() {
            self.rollback = Some(std::mem::replace(&mut self.booted, rollback));
        }
    }

    pub(crate) fn come_up(&mut self, now: Timestamp) {
        self.power = Power::Up;
        self.booted_at = self.clock(now);
        self.changed = true;
    }
}

fn named(reference: &str) -> Image {
    let digest = reference.rsplit_once('@').map_or(reference, |(_, it)| it);
    Image {
        reference: reference.to_owned(),
        digest: digest.to_owned(),
        sigpolicy: false,
    }
}
