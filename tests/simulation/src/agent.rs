//! The agent's shell around `fsm::host`: what `nodeagent` does with systemd and a real API server,
//! done with a model host and a model API server, one thing at a time.

use std::sync::Arc;

use fsm::{
    NodeName, Timestamp,
    host::{
        self, Auth, Effect, Facts, Host as Seen, News, Record, Report, Started, Task, Unit, Wanted,
    },
    time::Seconds,
};

use crate::{
    api::{self, BootcNode},
    cluster::{Cluster, Sent},
    host::Host,
    marks::Mark,
    status::{self, Status},
};

/// Doing the same thing again at once means that it changed nothing: it is tried again after this.
const SAME_AGAIN: Seconds = Seconds(5);
/// After a refused status write.
const WRITE_AGAIN: Seconds = Seconds(2);
/// When bootc is asked again after it failed to answer.
const READ_AGAIN: Seconds = Seconds(30);

/// What is being done on the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    Read,
    Deed(Effect),
    LookAtUnit(Unit),
}

/// The agent of one host, from its start to its end.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    name: NodeName,
    facts: Facts,
    asked: Option<(String, Timestamp)>,
    news: News,
    record: Option<Record>,
    node: Option<(u64, Arc<BootcNode>)>,
    /// Images as bootc last told them.
    images: (Option<host::Image>, Option<host::Image>),
    /// Up to here the log was read; `None` before the first list.
    cursor: Option<usize>,
    pub(crate) work: Option<Work>,
    pub(crate) writing: Option<(String, Status)>,
    write_at: Timestamp,
    read_at: Timestamp,
    done: Option<(Effect, Timestamp)>,
    stopping: bool,
    looked: bool,
    quiet: bool,
    wake_at: Option<Timestamp>,
}

impl Agent {
    /// Looks round and is ready to run.
    pub(crate) fn start(host: &Host, now: Timestamp) -> Self {
        let stopping = !host.is_up();
        let unit = host.pull.clone();
        let unit = unit.or_else(|| host.pulled.as_ref().map(|(unit, _)| unit.clone()));
        Self {
            name: host.name.clone(),
            facts: Facts {
                now: host.clock(now),
                boot: host.boot(),
                wanted: Wanted::Unknown,
                host: Seen::Unknown,
                unit,
                progress: None,
                auth: host.auth.clone(),
                started: Started {
                    asked: None,
                    boot: Some(host.booted_at),
                    agent: host.clock(now),
                },
                can: host.can,
                reported: None,
                jitter: 500,
            },
            asked: host.asked.clone(),
            news: News::None,
            record: None,
            node: None,
            images: (None, None),
            cursor: None,
            work: None,
            writing: None,
            write_at: now,
            read_at: now,
            done: None,
            stopping,
            looked: false,
            quiet: stopping,
            wake_at: None,
        }
    }

    /// Is there news of its object that it has not heard?
    pub(crate) fn has_news(&self, cluster: &Cluster) -> bool {
        let log = &cluster.server.bootc.log;
        match self.cursor {
            None => true,
            Some(cursor) => log
                .iter()
                .skip(cursor)
                .any(|change| change.name == self.name),
        }
    }

    /// The next moment at which it does something by itself.
    pub(crate) fn wakes(&self, now: Timestamp) -> Option<Timestamp> {
        let idle = self.work.is_none() && !self.quiet;
        [
            (idle && self.facts.unit.is_none()).then_some(self.read_at),
            self.writing.is_none().then_some(self.write_at),
            self.wake_at,
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }

    /// Is a moment over at which it wanted to look again?
    pub(crate) fn is_due(&self, now: Timestamp, host: &Host) -> bool {
        let ended = self.facts.unit.is_some() && host.pull.is_none();
        let idle = self.work.is_none() && !self.quiet;
        self.wake_at.is_some_and(|at| at <= now) || host.changed || (idle && ended)
    }

    /// The watch says something.
    pub(crate) fn hear(&mut self, cluster: &mut Cluster) {
        let shelf = &cluster.server.bootc;
        match self.cursor {
            None => {
                self.cursor = Some(shelf.log.len());
                match shelf.now.get(&self.name).cloned() {
                    Some(stored) => self.saw(stored.version, stored.object),
                    None => self.saw_none(),
                }
            }
            Some(cursor) => {
                let mut rest = shelf.log.iter().enumerate().skip(cursor);
                let Some((at, change)) = rest.find(|(_, it)| it.name == self.name) else {
                    return;
                };
                self.cursor = Some(at + 1);
                match change.object.clone() {
                    Some(object) => self.saw(change.version, object),
                    None => self.saw_none(),
                }
            }
        }
        self.decide(cluster);
    }

    fn saw(&mut self, version: u64, node: Arc<BootcNode>) {
        let newer = |(known, old): &(u64, Arc<BootcNode>)| {
            old.view.uid == node.view.uid && *known > version
        };
        if self.node.as_ref().is_some_and(newer) {
            return;
        }
        self.facts.wanted = status::wanted(&node.view);
        self.node = Some((version, node));
    }

    fn saw_none(&mut self) {
        self.node = None;
        self.facts.wanted = Wanted::Nothing;
    }

    /// A timer, or inotify.
    pub(crate) fn wake(&mut self, cluster: &mut Cluster) {
        let now = cluster.now;
        if let Some(host) = cluster.hosts.get_mut(&self.name)
            && std::mem::take(&mut host.changed)
        {
            self.read_at = now;
        }
        self.wake_at = self.wake_at.filter(|at| *at > now);
        self.decide(cluster);
    }

    /// Draws the consequences of what is known and gets them under way.
    fn decide(&mut self, cluster: &mut Cluster) {
        let Some(record) = self.record.take().or_else(|| self.resume()) else {
            return self.work_on(None, false, cluster);
        };
        let Some(clock) = cluster
            .hosts
            .get(&self.name)
            .map(|it| it.clock(cluster.now))
        else {
            return;
        };
        self.facts.now = clock;
        let mut news = std::mem::take(&mut self.news);
        let mut step = host::step(record, &self.facts, &news);
        if let Some(report) = &step.report
            && self.stands_or_is_written(report, cluster)
            && self.facts.reported.as_ref() != Some(report)
        {
            self.facts.reported = Some(report.clone());
            news = News::None;
            step = host::step(step.record, &self.facts, &news);
        }
        self.quiet = step.quiet;
        self.wake_at = step
            .wake_at
            .map(|at| Timestamp(cluster.now.0 + at.since(clock)));
        self.record = Some(step.record);
        self.work_on(step.effect, news == News::Confirmed, cluster);
    }

    /// Memory, as soon as the object was seen.
    fn resume(&mut self) -> Option<Record> {
        let (_, node) = self.node.as_ref()?;
        let reported = node.status.as_ref().map(Status::reported);
        let reported = reported.unwrap_or_default();
        let attempt = reported.report.as_ref().and_then(|it| it.attempt.as_ref());
        let asked = self.asked.take();
        let asked = asked.filter(|(boot, _)| attempt.is_some_and(|it| it.boot == *boot));
        self.facts.started.asked = asked.map(|(_, at)| at);
        let mut record = Record::resume(reported, &self.facts);
        record.asked =
            (self.stopping && record.state == host::State::Rebooting).then_some(self.facts.now);
        Some(record)
    }

    /// Does the report stand in the API server? If not, its write is begun when it may be.
    fn stands_or_is_written(&mut self, report: &Report, cluster: &Cluster) -> bool {
        let Some((_, node)) = &self.node else {
            return false;
        };
        let host = cluster.hosts.get(&self.name);
        let status = self.status(report, node, host.is_some_and(|host| host.plain));
        if node.status.as_ref() == Some(&status) {
            return true;
        }
        if self.writing.is_none() && cluster.now >= self.write_at {
            self.writing = Some((node.view.uid.clone(), status));
        }
        false
    }

    fn status(&self, report: &Report, node: &BootcNode, plain: bool) -> Status {
        let before = node.status.as_ref();
        let (booted, staged) = if report.keep_images {
            let before = before.map(|it| (it.booted.clone(), it.staged.clone()));
            before.unwrap_or_default()
        } else {
            self.images.clone()
        };
        let mut report = Report {
            keep_images: false,
            ..report.clone()
        };
        if let Some(attempt) = &mut report.attempt {
            attempt.at = api::cut(attempt.at);
        }
        Status {
            generation: node.view.generation,
            boot: self.facts.boot.clone(),
            booted,
            staged,
            report,
            plain,
        }
    }

    /// The status write ends.
    pub(crate) fn written(&mut self, cluster: &mut Cluster) {
        let Some((uid, status)) = self.writing.take() else {
            return;
        };
        let accepted = match cluster.agent_fate() {
            Sent::Refuse | Sent::Drop | Sent::Late => false,
            Sent::Do => cluster.server.write_status(&self.name, &uid, status),
            Sent::Lose => {
                cluster.server.write_status(&self.name, &uid, status);
                false
            }
        };
        match cluster.server.bootc.now.get(&self.name).cloned() {
            Some(stored) if accepted => self.saw(stored.version, stored.object),
            _ => self.write_at = cluster.now + WRITE_AGAIN,
        }
        self.decide(cluster);
    }

    /// Begins the next thing on the host, if none is under way. A look comes before a deed, but for
    /// one that was just confirmed, and for one after a look.
    fn work_on(&mut self, effect: Option<Effect>, confirmed: bool, cluster: &Cluster) {
        if self.work.is_some() || self.quiet {
            return;
        }
        let now = cluster.now;
        let unit = self.facts.unit.clone();
        let deed = effect.filter(|it| confirmed || self.may_repeat(it, now));
        let has_turn = confirmed || (self.looked && deed.is_some());
        let ended = cluster
            .hosts
            .get(&self.name)
            .is_none_or(|it| it.pull.is_none());
        if unit.is_none() && !has_turn && now >= self.read_at {
            self.read_at = now + Seconds(300);
            self.work = Some(Work::Read);
        } else if let Some(effect) = deed {
            self.looked = false;
            self.done = Some((effect.clone(), now));
            self.work = Some(Work::Deed(effect));
        } else if let Some(unit) = unit.filter(|_| ended) {
            self.work = Some(Work::LookAtUnit(unit));
        }
    }

    fn may_repeat(&mut self, effect: &Effect, now: Timestamp) -> bool {
        let again = self.done.as_ref().filter(|(done, _)| done == effect);
        let due = again.map(|(_, done)| *done + SAME_AGAIN);
        if let Some(due) = due.filter(|due| *due > now) {
            self.wake_at = Some(self.wake_at.map_or(due, |wake| wake.min(due)));
            return false;
        }
        true
    }

    /// What is under way on the host comes to its end.
    pub(crate) fn work_ends(&mut self, cluster: &mut Cluster) {
        let Some(work) = self.work.take() else {
            return;
        };
        let name = self.name.clone();
        let Some(mut host) = cluster.hosts.remove(&name) else {
            return;
        };
        match work {
            Work::Read => self.read(&host, cluster.now),
            Work::LookAtUnit(unit) => self.look_at_unit(&unit, &mut host, cluster.now),
            Work::Deed(effect) => self.do_it(effect, &mut host, cluster),
        }
        cluster.hosts.insert(name, host);
        self.decide(cluster);
    }

    fn read(&mut self, host: &Host, now: Timestamp) {
        let seen = host.seen();
        match seen.view() {
            Some(view) => {
                let staged = view.staged.as_ref().and_then(|it| it.image.clone());
                self.images = (view.booted.image.clone(), staged);
            }
            None => self.read_at = self.read_at.min(now + READ_AGAIN),
        }
        self.facts.host = seen;
        self.looked = true;
    }

    fn ended(
        &mut self,
        host: &Host,
        now: Timestamp,
        task: Task,
        image: String,
        error: Option<String>,
    ) {
        self.read(host, now);
        self.facts.unit = None;
        self.news = News::Ended { task, image, error };
    }

    fn look_at_unit(&mut self, unit: &Unit, host: &mut Host, now: Timestamp) {
        match host.pulled.take() {
            Some((unit, error)) => self.ended(host, now, Task::Stage, unit.image, error),
            None if host.pull.is_some() => self.facts.unit.clone_from(&host.pull),
            None => self.ended(host, now, Task::Stage, unit.image.clone(), None),
        }
    }

    fn do_it(&mut self, effect: Effect, host: &mut Host, cluster: &mut Cluster) {
        let now = cluster.now;
        cluster.say(|| format!("{}: agent does {effect:?}", self.name));
        cluster.guard.deed(&effect, host);
        let simple = |task| (task, false);
        let (image, (task, soft)) = match effect {
            Effect::Cancel(unit) => {
                (host.pull, host.pulled) = (None, None);
                let error = Some("cancelled".into());
                return self.ended(host, now, unit.task, unit.image, error);
            }
            Effect::WriteAuth(secret) => return self.write_auth(Auth::Written(secret.hash), host),
            Effect::RemoveAuth => return self.write_auth(Auth::Absent, host),
            Effect::Stage { image, .. } => {
                if host.pull.is_none() {
                    host.begin_pull(&image);
                }
                self.facts.unit.clone_from(&host.pull);
                return;
            }
            Effect::Confirm { image } => return self.confirm(image, host, cluster),
            Effect::Reboot { image, soft } => return self.reboot(image, soft, host, cluster),
            Effect::Lock { image } => (image, simple(Task::Lock)),
            Effect::Unlock { image, soft } => (image, (Task::Unlock, soft)),
            Effect::Unprepare { image } => (image, simple(Task::Unprepare)),
            Effect::Unstage { image } => (image, simple(Task::Unstage)),
            Effect::Settle { image } => (image, simple(Task::Settle)),
        };
        let error = host.command(task, soft).err();
        if error.is_some() {
            cluster.marks.hit(Mark::StepFailed);
        }
        self.ended(host, now, task, image, error);
    }

    fn write_auth(&mut self, auth: Auth, host: &mut Host) {
        let about = match &auth {
            Auth::Written(hash) => hash.clone(),
            Auth::Absent | Auth::Unknown => String::new(),
        };
        host.auth = auth.clone();
        self.facts.auth = auth;
        self.news = News::Ended {
            task: Task::Auth,
            image: about,
            error: None,
        };
    }

    /// Reads everything again that the reboot depends on, the object last and from the API server.
    fn confirm(&mut self, image: String, host: &Host, cluster: &mut Cluster) {
        self.read(host, cluster.now);
        if host.unreadable {
            return;
        }
        if cluster.agent_fate() != Sent::Do {
            let error = Some("the API server does not answer".into());
            self.news = News::Ended {
                task: Task::Confirm,
                image,
                error,
            };
            return;
        }
        match cluster.server.bootc.now.get(&self.name).cloned() {
            Some(stored) => {
                cluster.guard.confirmed(&self.name, &stored.object);
                self.saw(stored.version, stored.object);
                self.news = News::Confirmed;
            }
            None => self.saw_none(),
        }
    }

    fn reboot(&mut self, image: String, soft: bool, host: &mut Host, cluster: &mut Cluster) {
        match host.ask(soft, cluster.now) {
            Ok(()) => {
                cluster.marks.hit(Mark::Reboot);
                if soft {
                    cluster.marks.hit(Mark::SoftReboot);
                }
                if host.fate == crate::host::Fate::Hangs {
                    cluster.marks.hit(Mark::RebootHung);
                }
                cluster.guard.reboot(host, &image);
                self.news = News::RebootAsked;
            }
            Err(error) => {
                cluster.marks.hit(Mark::RebootRefused);
                self.news = News::Ended {
                    task: Task::Reboot,
                    image,
                    error: Some(error),
                };
            }
        }
    }
}
