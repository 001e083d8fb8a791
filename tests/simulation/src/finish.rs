//! The end of a schedule: everything that was broken is repaired, every rollout must end, and then
//! nothing must happen any more.

use fsm::{
    NodeName, PoolName,
    time::Seconds,
    view::{Amount, ImageRef, PoolView, Retry},
};

use crate::{
    api,
    host::{Fate, Power},
    world::{World, pool_name},
};

/// Everything must be over so long after the last fault: longer than every back-off.
const WITHIN: u32 = 6 * 3600;
/// What is still told then comes within this time.
const AFTERWARDS: u32 = 150;
/// For so long nothing must happen afterwards.
const STEADY: u32 = 3600;

impl World {
    /// Repairs everything and sees the rollouts through.
    pub(crate) fn finish(&mut self) {
        self.cluster.say(|| "--- everything is repaired".into());
        self.repair();
        self.pass(30);
        self.ask_for_retries();
        self.steps = 0;
        self.see_through();
        if !self.broken() {
            self.stays_as_it_is();
        }
    }

    fn repair(&mut self) {
        self.stalled.clear();
        let cluster = &mut self.cluster;
        cluster.fates.clear();
        cluster.agent_fates.clear();
        cluster.refused.clear();
        cluster.registry_down = false;
        for (name, host) in &mut cluster.hosts {
            if host.fate == Fate::Hangs && !host.is_up() {
                cluster.guard.helped(name);
            }
            (host.cut_off, host.blocked, host.unreadable) = (false, false, false);
            (host.bad_pulls, host.bad_steps, host.fate) = (0, 0, Fate::Up);
            host.changed = true;
            if let Power::Down { until } = &mut host.power {
                *until = (*until).min(cluster.now);
            }
        }
        for name in self.nodes() {
            self.cluster.server.hold_bootc(&name, false);
            self.register(&name);
        }
        for name in [pool_name(0), pool_name(1)] {
            self.cluster.server.edit_pool(&name, |pool| {
                pool.spec.paused = false;
                if pool.spec.max_unavailable.of(100) == 0 {
                    pool.spec.max_unavailable = Amount::Count(1);
                }
                if matches!(pool.spec.image, ImageRef::Invalid(_)) {
                    pool.spec.image = ImageRef::Pinned(api::image(3));
                }
            });
        }
        for name in self.nodes() {
            self.cluster.server.edit_node(&name, |node| {
                if node.claims.len() > 1 {
                    node.claims.pop_last();
                }
            });
        }
    }

    /// A person asks for another try wherever one had failed.
    fn ask_for_retries(&mut self) {
        let nodes: std::collections::BTreeSet<NodeName> = self.nodes().into_iter().collect();
        let at = self.cluster.now;
        for name in [pool_name(0), pool_name(1)] {
            let retry = Retry {
                nodes: nodes.clone(),
                at,
            };
            self.cluster
                .server
                .edit_pool(&name, |pool| pool.retry = Some(retry));
        }
    }

    fn see_through(&mut self) {
        let end = self.cluster.now + Seconds(WITHIN);
        loop {
            if self.broken() {
                return;
            }
            let Some(why) = self.unfinished() else {
                return;
            };
            let goes_on = self.goes_on();
            if self.cluster.now > end || (!goes_on && self.unfinished().is_some()) {
                let hours = WITHIN / 3600;
                return self
                    .cluster
                    .guard
                    .fail(|| format!("not over {hours} hours after the last fault: {why}"));
            }
        }
    }

    /// What is not as it must be in the end.
    fn unfinished(&self) -> Option<String> {
        let server = &self.cluster.server;
        for (name, stored) in &server.pools.now {
            if let Some(why) = self.pool_unfinished(name, &stored.object) {
                return Some(why);
            }
        }
        for (name, host) in &self.cluster.hosts {
            let node = server.nodes.get(name)?;
            let owner = node.claims.iter().find(|it| server.pools.get(it).is_some());
            let bootc = server.bootc.get(name).map(|it| &it.view);
            let wished = self.cordoned_by_others.contains(name);
            let known = !self.whose_cordon_is_unclear.contains(name);
            if (known && node.cordoned != wished) || node.cordoned_by.is_some() {
                return Some(format!(
                    "{name} is cordoned {} by {:?}, and wished is {wished}",
                    node.cordoned, node.cordoned_by
                ));
            }
            if node.labelled != owner.is_some() || bootc.is_some() != owner.is_some() {
                return Some(format!(
                    "{name} of {owner:?}: label {}, BootcNode {}",
                    node.labelled,
                    bootc.is_some()
                ));
            }
            if bootc.is_some_and(|bootc| bootc.in_reboot_slot) {
                return Some(format!("{name} holds a slot"));
            }
            if !host.is_up() {
                return Some(format!("{name} is down"));
            }
            let Some(target) = owner.and_then(|pool| self.target(pool)) else {
                continue;
            };
            if host.booted.image.digest != target {
                return Some(format!("{name} runs {:?} and not {target}", host.booted));
            }
            let ours = host.staged.as_ref().filter(|it| !it.foreign && !it.locked);
            let status = server.bootc.get(name).and_then(|it| it.status.as_ref());
            let told = status.is_some_and(|it| it.report.message.contains("staged and not wanted"));
            if let Some(staged) = ours.filter(|_| host.can.unstage && !told) {
                return Some(format!(
                    "(10) {name} has {staged:?} left to boot by accident"
                ));
            }
        }
        None
    }

    fn target(&self, pool: &PoolName) -> Option<String> {
        match &self.cluster.server.pools.get(pool)?.spec.image {
            ImageRef::Pinned(image) => Some(image.digest().to_owned()),
            ImageRef::Tag { reference, .. } => {
                self.cluster.registry.get(reference)?.last().cloned()
            }
            ImageRef::Invalid(_) => None,
        }
    }

    fn pool_unfinished(&self, name: &PoolName, pool: &PoolView) -> Option<String> {
        if pool.deleting {
            return Some(format!("{name} is still being deleted"));
        }
        let status = pool.status.clone().unwrap_or_default();
        let reason = |it: Option<&fsm::view::Condition>| {
            it.map(|it| (it.reason.clone(), it.message.clone()))
                .unwrap_or_default()
        };
        let up_to_date = reason(status.up_to_date.as_ref());
        let degraded = reason(status.is_degraded.as_ref());
        let well = up_to_date.0 == "AllUpdated" && degraded.0 == "OK";
        if !well || status.observed_generation != Some(pool.generation) {
            return Some(format!("{name}: {up_to_date:?}, {degraded:?}"));
        }
        (status.target_digest != self.target(name)).then(|| format!("{name}: another target"))
    }

    fn stays_as_it_is(&mut self) {
        // What is told afterwards (Waiting, after its own back-off, steps, a last report) belongs to the
        // rollout.
        // What was timed by a clock that was set back since comes an hour late.
        self.pass(AFTERWARDS + self.set_back);
        let writes = |world: &Self| {
            let server = &world.cluster.server;
            let tags = |pool: &PoolView| matches!(pool.spec.image, ImageRef::Tag { .. });
            let pools = server.pools.log.iter();
            let pools = pools.filter(|it| it.object.as_ref().is_none_or(|it| !tags(it)));
            (
                server.nodes.log.len(),
                server.bootc.log.len(),
                pools.count(),
            )
        };
        let before = writes(self);
        self.pass(STEADY);
        let after = writes(self);
        if before != after {
            self.cluster
                .guard
                .fail(|| format!("(15) a steady state is written to: {before:?} became {after:?}"));
        }
        if let Some(why) = self.unfinished() {
            self.cluster
                .guard
                .fail(|| format!("it does not stay as it was: {why}"));
        }
    }
}
