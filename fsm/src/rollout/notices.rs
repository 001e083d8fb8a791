//! What people and traces are told.

use std::sync::Arc;

use super::Rollout;
use crate::{
    command::{About, Command, Notice, PoolWrite},
    image::{Image, short},
    names::{NodeName, PoolName},
    node::{Hop, Record, State, Trace, waiting::WaitingOn},
    time::Seconds,
    view::{Condition, Kept, Owner, PoolStatus},
};

/// A hop is told again after a restart if it is not older.
const TOLD_AGAIN: Seconds = Seconds(600);

impl Rollout {
    /// Tells of hops that are certain now; `before` is the update that the node was on.
    pub(super) fn tell(
        &mut self,
        name: &NodeName,
        pool: Option<&PoolName>,
        before: Option<&Trace>,
        hops: &[Hop],
        record: &Record,
    ) {
        for hop in hops {
            if let Some((warning, reason, action, note)) = text(hop, record) {
                let about = About::Node(name.clone(), pool.cloned());
                self.notice(about, warning, reason, action, note);
            }
        }
        self.tell_hops(name, pool, before, hops, record, false);
    }

    /// Tells once more of the hops that a record was kept with, if they are fresh: of those before
    /// it, whoever is to know knows.
    pub(super) fn tell_again(&mut self, name: &NodeName, pool: Option<&PoolName>, kept: &Record) {
        let fresh = |hop: &&Hop| self.now < hop.at + TOLD_AGAIN;
        let hops: Vec<Hop> = kept.hops.iter().filter(fresh).cloned().collect();
        self.tell_hops(name, pool, None, &hops, kept, true);
    }

    fn tell_hops(
        &mut self,
        name: &NodeName,
        pool: Option<&PoolName>,
        before: Option<&Trace>,
        hops: &[Hop],
        record: &Record,
        again: bool,
    ) {
        if hops.is_empty() {
            return;
        }
        // Up to the one that begins it they belong to the update before.
        let begins = hops.iter().rposition(Hop::begins_update);
        let told = Arc::new(Record {
            hops: Vec::new(),
            ..record.clone()
        });
        for (n, hop) in hops.iter().enumerate() {
            let trace = if begins.is_some_and(|begins| n <= begins) {
                before.cloned()
            } else {
                record.trace()
            };
            self.out.push(Command::Hop {
                node: name.clone(),
                pool: pool.cloned(),
                hop: hop.clone(),
                record: told.clone(),
                trace,
                again,
            });
        }
    }

    pub(super) fn notice_rebuilt(&mut self, name: &NodeName, owner: Option<&Owner>, kept: &Kept) {
        let why = match kept {
            Kept::Unreadable(why) => format!("cannot be read ({why})"),
            _ => "is missing".to_owned(),
        };
        let about = About::Node(name.clone(), owner.map(|owner| owner.pool.clone()));
        let note = format!(
            "annotation bootc.dev/rollout {why}; rebuilt from the spec and the other annotations"
        );
        self.notice(about, true, "RecordRebuilt", "Rollout", note);
    }

    pub(super) fn notice_digest(
        &mut self,
        pool: &PoolName,
        reference: &str,
        old: Option<&str>,
        new: &str,
    ) {
        let note = match old {
            Some(old) => format!("{reference} is now {} (was {})", short(new), short(old)),
            None => format!("{reference} is {}", short(new)),
        };
        self.notice(
            About::Pool(pool.clone()),
            false,
            "ImageUpdateAvailable",
            "ResolveImage",
            note,
        );
    }

    pub(super) fn notice_slow_drain(
        &mut self,
        name: &NodeName,
        pool: Option<PoolName>,
        waits_for: &str,
    ) {
        let note = format!("the drain runs for more than 5 minutes: {waits_for}");
        self.notice(
            About::Node(name.clone(), pool),
            true,
            "DrainTakingTooLong",
            "Drain",
            note,
        );
    }

    /// Of something that is in a node's way.
    pub(super) fn notice_wait(&mut self, name: &NodeName, pool: Option<PoolName>, on: &WaitingOn) {
        let about = About::Node(name.clone(), pool);
        self.notice(about, on.is_warning(), on.label(), "Wait", on.to_string());
    }

    /// Of a status that differs from the one shown.
    pub(super) fn notice_pool(&mut self, name: &PoolName, what: &PoolWrite) {
        let PoolWrite::Status(status) = what else {
            return;
        };
        let shown = self
            .pools
            .get(name)
            .and_then(|pool| pool.shown.clone())
            .unwrap_or_default();
        let digest = short(status.target_digest.as_deref().unwrap_or_default()).to_owned();
        if let Some((reason, verb)) = progress(&shown, status) {
            let note = format!("rollout {verb} {digest}");
            self.notice(About::Pool(name.clone()), false, reason, "Rollout", note);
        }
        let key = |it: &Option<Condition>| {
            it.as_ref()
                .map(|it| (it.reason.clone(), it.message.clone()))
        };
        if let Some(now) = status
            .is_degraded
            .as_ref()
            .filter(|now| now.status == Some(true))
            && key(&shown.is_degraded) != key(&status.is_degraded)
        {
            let (reason, note) = (now.reason.clone(), now.message.clone());
            self.notice(
                About::Pool(name.clone()),
                true,
                &reason,
                "PoolDegraded",
                note,
            );
        }
    }

    fn notice(&mut self, about: About, warning: bool, reason: &str, action: &str, note: String) {
        let (reason, action) = (reason.to_owned(), action.to_owned());
        self.out.push(Command::Notice(Notice {
            about,
            warning,
            reason,
            action,
            note,
        }));
    }
}

/// Did a rollout begin or end? A pool that is seen for the first time tells nothing.
fn progress(shown: &PoolStatus, status: &PoolStatus) -> Option<(&'static str, &'static str)> {
    let of = |status: &PoolStatus| status.up_to_date.as_ref().and_then(|it| it.status);
    match (of(shown), of(status)) {
        (Some(true) | None, Some(false)) => Some(("RolloutStarted", "started towards")),
        (Some(false), Some(true)) => Some(("RolloutCompleted", "completed at")),
        (Some(false), Some(false)) if shown.target_digest != status.target_digest => {
            Some(("RolloutStarted", "started towards"))
        }
        _ => None,
    }
}

type Text = (bool, &'static str, &'static str, String);

fn text(hop: &Hop, record: &Record) -> Option<Text> {
    let image = record.image.as_ref().map(Image::as_str).unwrap_or_default();
    let warn = |reason, note: &str| Some((true, reason, "NodeUpdate", note.to_owned()));
    match hop.cause.as_str() {
        "Left" => {
            return Some((
                false,
                "Leaving",
                "NodeUpdate",
                "let go by its pool".to_owned(),
            ));
        }
        "CordonLost" => {
            return warn(
                "CordonLost",
                "somebody uncordoned the node while it was being drained; it is cordoned and drained again",
            );
        }
        "DrainLate" => {
            return warn(
                "DrainTimedOut",
                "the drain took longer than drainTimeoutSeconds; the node is uncordoned and tried again after a back-off",
            );
        }
        "Dead" => {
            return warn(
                "SlotGivenBack",
                "the Node is not Ready for 5 minutes; its slot goes to another one",
            );
        }
        "Contested" => {
            return warn(
                "SlotGivenBack",
                "several pools select the node; its slot goes to another one",
            );
        }
        "Returned" => {
            return warn(
                "UpdateLost",
                "the node rebooted and still runs the old image; it is staged and drained again",
            );
        }
        "Strayed" => {
            return warn(
                "UnexpectedImage",
                "the node came up with an image that was not asked for; it is staged and drained again",
            );
        }
        _ => {}
    }
    let say = |reason, note: String| Some((false, reason, "NodeUpdate", note));
    match hop.to {
        State::Staging => say("Staging", format!("staging image {image}")),
        State::Staged => say(
            "Staged",
            format!("image {image} is staged and awaits a reboot slot"),
        ),
        State::Draining => say(
            "Draining",
            "the node is cordoned; its pods are evicted".to_owned(),
        ),
        State::Rebooting => say("Rebooting", format!("rebooting into image {image}")),
        State::Idle => say("Idle", format!("the node is up to date with image {image}")),
        State::Cordoned | State::Verifying | State::Leaving => None,
    }
}
