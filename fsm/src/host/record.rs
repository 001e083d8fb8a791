//! What the agent remembers between two steps, and how it is rebuilt from its own last report.

use serde::{Deserialize, Serialize};

use super::{DegradedReason, Deployment, Entry, Facts, Millis, Report};

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
    /// Digest of what was booted when the attempt was made, where it is known.
    pub before: Option<String>,
    /// How the last attempt ended, if the host is not where it was sent.
    pub outcome: Option<Outcome>,
    /// The last step for this image failed.
    pub trouble: Option<Trouble>,
    /// The credentials could not be put on the host.
    pub auth_trouble: Option<Trouble>,
    /// Staged by us and no longer wanted: to be dropped.
    pub leftover: Option<String>,
    /// The reboot was asked for at this time, in this boot.
    pub asked: Option<Millis>,
    /// How often locking the staged image failed.
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
    pub at: Millis,
    /// The deployment in the rollback slot at that time.
    pub rollback: Option<Deployment>,
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
    /// No try before this time.
    pub retry_at: Millis,
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
    pub start: Millis,
    /// When it ended; `None` while it runs.
    pub end: Option<Millis>,
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

/// The first back-off, in milliseconds; it doubles with each failure.
const FIRST_BACK_OFF: Millis = 10_000;
/// The longest back-off, in milliseconds.
const LONGEST_BACK_OFF: Millis = 600_000;

impl Trouble {
    /// One more failure after `before`. `message` gets the time of the next try appended.
    #[must_use]
    pub fn after(before: Option<&Self>, facts: &Facts, message: &str) -> Self {
        let failures = before.map_or(0, |it| it.failures).saturating_add(1);
        let wait = back_off(failures, facts.jitter);
        Self {
            failures,
            retry_at: facts.now.saturating_add(wait),
            message: format!("{message}; try {} in {} s", failures + 1, wait / 1000),
        }
    }
}

/// How long to wait after so many failures: doubled each time, three quarters to five quarters of
/// that, by `jitter` (0 to 1000).
fn back_off(failures: u32, jitter: u16) -> Millis {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_BACK_OFF) / 2000 * (1500 + Millis::from(jitter.min(1000)))
}

impl Record {
    /// Memory after a restart of the agent or of its host, from its own last report.
    ///
    /// Staging is not taken over: whether it goes on is told by the unit that runs. An error keeps
    /// its place in the row of failures, so that an agent in a crash loop does not hammer a registry.
    #[must_use]
    pub fn resume(reported: Reported, facts: &Facts) -> Self {
        let Some(report) = reported.report else {
            return Self::default();
        };
        let wanted = facts.wanted.spec();
        let same_boot = reported.boot.as_deref() == Some(&facts.boot);
        let (state, image) = match report.state {
            State::Rebooting if report.attempt.is_some() => {
                let digest = report.attempt.as_ref().map(|it| it.digest.clone());
                (State::Rebooting, digest)
            }
            State::Staged if same_boot && reported.staged.is_some() => {
                (State::Staged, reported.staged.clone())
            }
            _ => (State::Idle, wanted.map(|spec| spec.image.clone())),
        };
        let degraded = report.degraded.as_ref().map(|it| it.reason);
        let fell_back = degraded == Some(DegradedReason::FellBack);
        let trouble = (degraded == Some(DegradedReason::Error) && state == State::Idle)
            .then(|| report.degraded.as_ref())
            .flatten()
            .map(|it| Trouble {
                failures: 1,
                retry_at: facts.now.saturating_add(back_off(1, facts.jitter)),
                message: it.message.clone(),
            });
        Self {
            state,
            image: if fell_back {
                report.attempt.as_ref().map(|it| it.digest.clone())
            } else {
                image
            },
            fell_back,
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
    pub fn waits(&self, now: Millis) -> bool {
        self.trouble.as_ref().is_some_and(|it| it.retry_at > now)
    }

    /// Was `staged` staged by us?
    pub(super) fn is_ours(&self, staged: &Entry) -> bool {
        self.digest().is_some_and(|digest| staged.is(digest))
    }

    /// A step begins; one of the same name is replaced.
    pub(super) fn begin(&mut self, name: StepName, start: Millis) {
        self.steps.retain(|step| step.name != name);
        self.steps.push(StepTime {
            name,
            start,
            end: None,
        });
    }

    /// A step ends, if it runs.
    pub(super) fn end(&mut self, name: StepName, end: Millis) {
        let mut steps = self.steps.iter_mut();
        if let Some(step) = steps.find(|step| step.name == name && step.end.is_none()) {
            step.end = Some(end);
        }
    }
}
