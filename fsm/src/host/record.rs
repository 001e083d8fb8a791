//! What the agent remembers between two steps, and how it is rebuilt from its own last report.

use serde::{Deserialize, Serialize};

use super::{DegradedReason, Deployment, Facts, Progress, Report};
use crate::{Timestamp, time::Seconds};

/// Where the host is; also the reason of its Idle condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nothing goes on: all done, nothing wanted, or the next try is not due.
    #[default]
    Idle,
    /// The wanted image is being pulled and deployed.
    Staging,
    /// It is staged and waits for the approval.
    Staged,
    /// It is being booted.
    Rebooting,
}

/// The agent's memory. Only [`Record::resume`]'s part of it survives the agent.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where the host is.
    pub state: State,
    /// The image that this, and the trouble, is about.
    pub image: Option<String>,
    /// The newest attempt to boot an image.
    pub attempt: Option<Attempt>,
    /// That attempt's image came up and the host is back: it is not tried again.
    pub fell_back: bool,
    /// The last report said that the host reboots: this boot, or one to come, is by our request.
    pub expected: bool,
    /// Digest of what was booted when the attempt was made, where it is known.
    pub before: Option<String>,
    /// How the last attempt ended, if the host is not where it was sent.
    pub outcome: Option<Outcome>,
    /// The last step for this image failed.
    pub trouble: Option<Trouble>,
    /// The credentials with this hash (empty: none) could not be put on the host, or removed.
    pub auth_trouble: Option<(String, Trouble)>,
    /// Staged by us and no longer wanted: to be dropped.
    pub leftover: Option<String>,
    /// The reboot was asked for at this time, in this boot.
    pub asked: Option<Timestamp>,
    /// A soft reboot for this image led nowhere: the next one is a full one.
    pub soft_reboot_failed: bool,
    /// How far the pull was, and when that was last told.
    pub progress: Option<(Timestamp, Progress)>,
    /// How often locking the staged image failed, or what comes before that.
    pub lock_failures: u8,
    /// The boot order was put right after a fall-back, or that failed.
    pub settled: bool,
    /// The update's steps and their times.
    pub steps: Vec<StepTime>,
}

/// An attempt to boot an image, written into the status before the reboot is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Digest of the image.
    pub digest: String,
    /// The boot in which it was made.
    pub boot: String,
    /// When.
    pub at: Timestamp,
    /// The deployment in the rollback slot at that time.
    pub rollback: Option<Deployment>,
    /// The newest wish for another try that was known at that time.
    #[serde(default)]
    pub retry: Option<Timestamp>,
}

/// How an attempt ended that did not lead to its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The host booted what it had booted before: a power cut, or a lost update.
    NeverApplied,
    /// The host booted neither.
    ThirdImage,
}

/// A step failed; when the next try is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How often in a row.
    pub failures: u32,
    /// The newest wish for another try that was known when it failed last.
    pub retry: Option<Timestamp>,
    /// No try before this time.
    pub retry_at: Timestamp,
    /// What was tried, the tool's own last lines, what happens next.
    pub message: String,
}

/// Name of a step of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StepName {
    /// Pull and deploy.
    Staging,
    /// From the approval to the request for the reboot.
    Unlocking,
    /// From that request to the end of the boot.
    Stopping,
    /// From the start of the new boot to the agent's start in it.
    Booting,
    /// From there to the report that the host is back.
    Returning,
}

/// A step and when it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// What was done.
    pub name: StepName,
    /// When it began.
    pub start: Timestamp,
    /// When it ended; `None` while it runs.
    pub end: Option<Timestamp>,
}

/// The agent's own last report, as the API server has it when the agent starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// What was reported; `None` if nothing was.
    pub report: Option<Report>,
    /// The boot in which that was.
    pub boot: Option<String>,
    /// Digest of what was booted then.
    pub booted: Option<String>,
    /// Reference, or digest, of what was staged then.
    pub staged: Option<String>,
}

/// The first back-off, in seconds; it doubles with each failure.
const FIRST_BACK_OFF: u32 = 10;
/// The longest back-off, in seconds.
const LONGEST_BACK_OFF: u32 = 600;

impl Trouble {
    /// One more failure after `before`. `message` gets the time of the next try appended.
    #[must_use]
    pub fn after(before: Option<&Self>, facts: &Facts, message: &str) -> Self {
        let failures = before.map_or(0, |it| it.failures).saturating_add(1);
        let wait = back_off(failures, facts.jitter);
        Self {
            failures,
            retry: facts.wanted.spec().and_then(|spec| spec.retry),
            retry_at: facts.now + wait,
            message: format!("{message}; try {} in {} s", failures + 1, wait.0),
        }
    }
}

/// How long to wait after so many failures: doubled each time, three quarters to five quarters of
/// that, by `jitter` (0 to 1000).
fn back_off(failures: u32, jitter: u16) -> Seconds {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(10));
    Seconds(doubled.min(LONGEST_BACK_OFF) * (1500 + u32::from(jitter.min(1000))) / 2000)
}

/// Where a report left the host, and which image that was about.
fn resumed(
    report: &Report,
    reported: &Reported,
    facts: &Facts,
    fell_back: bool,
) -> (State, Option<String>) {
    let wanted = facts.wanted.spec().map(|spec| spec.image.clone());
    let same_boot = reported.boot.as_deref() == Some(&facts.boot);
    let attempt = report.attempt.as_ref();
    let attempted = attempt.map(|it| it.digest.clone());
    let is_wanted = attempt.is_some_and(|it| {
        let spec = facts.wanted.spec();
        spec.is_some_and(|spec| spec.digest() == it.digest)
    });
    if fell_back {
        (State::Idle, attempted)
    } else if is_wanted && (!same_boot || report.state == State::Rebooting) {
        (State::Rebooting, attempted)
    } else if same_boot && report.state == State::Staged && reported.staged.is_some() {
        (State::Staged, reported.staged.clone())
    } else {
        (State::Idle, wanted)
    }
}

/// What the last report had staged for an attempt of this boot, if another image is wanted by now.
fn leftover(report: &Report, reported: &Reported, facts: &Facts) -> Option<String> {
    let staged = reported.staged.as_ref()?;
    let digest = super::facts::digest_of(staged)?;
    let tried = report.attempt.as_ref()?;
    let spec = facts.wanted.spec();
    let ours = tried.boot == facts.boot && tried.digest == digest;
    (ours && spec.is_none_or(|spec| spec.digest() != digest)).then(|| staged.clone())
}

impl Record {
    /// Memory after a restart of the agent or of its host, from its own last report.
    ///
    /// In a new boot the newest attempt is judged again, whatever was reported last: health checks may
    /// send a host back to its old image long after the new one came up.
    ///
    /// Staging is not taken over: whether it goes on is told by the unit that runs. An error keeps
    /// its place in the row of failures, so that an agent in a crash loop does not hammer a registry.
    #[must_use]
    pub fn resume(reported: Reported, facts: &Facts) -> Self {
        let Some(report) = reported.report.clone() else {
            return Self::default();
        };
        let reason = report.degraded.as_ref().map(|it| it.reason);
        let fell_back = reason == Some(DegradedReason::FellBack);
        let (state, image) = resumed(&report, &reported, facts, fell_back);
        let leftover = leftover(&report, &reported, facts);
        let error = report
            .degraded
            .filter(|it| it.reason == DegradedReason::Error && state == State::Idle);
        let trouble = error.map(|it| Trouble {
            failures: 1,
            retry: facts.wanted.spec().and_then(|spec| spec.retry),
            retry_at: facts.now + back_off(1, facts.jitter),
            message: it.message,
        });
        Self {
            state,
            image,
            leftover,
            fell_back,
            expected: report.state == State::Rebooting,
            attempt: report.attempt,
            before: reported.booted,
            trouble,
            steps: report.steps,
            ..Self::default()
        }
    }

    /// The digest that the state and the trouble are about.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        let image = self.image.as_deref()?;
        Some(super::facts::digest_of(image).unwrap_or(image))
    }

    /// Is the next try not due yet?
    #[must_use]
    pub fn waits(&self, now: Timestamp) -> bool {
        self.trouble.as_ref().is_some_and(|it| it.retry_at > now)
    }

    /// Is what is held against the image older than a person's wish for another try? Wishes are
    /// compared with wishes: the host's clock and the person's may differ by hours.
    pub(super) fn is_older(&self, asked: Timestamp) -> bool {
        let failed = self.trouble.as_ref().map(|it| it.retry);
        let fell = self.attempt.as_ref().filter(|_| self.fell_back);
        let fell = fell.map(|it| it.retry);
        [failed, fell]
            .into_iter()
            .flatten()
            .any(|known| known < Some(asked))
    }

    /// Forgets what is held against the image.
    pub(super) fn forgive(&mut self) {
        (self.trouble, self.fell_back, self.lock_failures) = (None, false, 0);
    }

    /// A step begins; one of the same name is replaced.
    pub(super) fn begin(&mut self, name: StepName, start: Timestamp) {
        self.steps.retain(|step| step.name != name);
        self.steps.push(StepTime {
            name,
            start,
            end: None,
        });
    }

    /// A step that began and ended.
    pub(super) fn ran(&mut self, name: StepName, start: Timestamp, end: Timestamp) {
        self.begin(name, start);
        self.end(name, end.max(start));
    }

    /// A step ends, if it runs.
    pub(super) fn end(&mut self, name: StepName, end: Timestamp) {
        let mut steps = self.steps.iter_mut();
        if let Some(step) = steps.find(|step| step.name == name && step.end.is_none()) {
            step.end = Some(end);
        }
    }
}
