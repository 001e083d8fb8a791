//! How each thing in a schedule is done.

use fsm::{
    Image, NodeName, PoolName,
    time::Seconds,
    view::{Amount, ImageRef, Kept, NodeView, PoolView, Retry, SecretRef},
};

use crate::{
    action::Action,
    api,
    cluster::Sent,
    host::{Fate, Host, Power},
    marks::Mark,
    operator::{Kind, Operator},
    world::{World, node_name, pool_name, tag_name},
};

impl World {
    /// Does it; false if there was nothing to do it to.
    pub(crate) fn act(&mut self, action: &Action) -> bool {
        self.cluster.say(|| format!("--- {action:?}"));
        match *action {
            Action::Go { seed, steps } => self.go(seed, steps),
            Action::Pass { seconds } => self.pass(seconds.into()),
            Action::Registry { down } => self.cluster.registry_down = down,
            Action::MoveTag { tag, image } => {
                let digest = api::image(image).digest().to_owned();
                self.cluster.move_tag(&tag_name(tag), &digest);
            }
            Action::SecretContent => return self.change_secret(),
            Action::Fail { how, after } => fail(&mut self.cluster.fates, how, after),
            Action::FailAgent { how, after } => fail(&mut self.cluster.agent_fates, how, after),
            Action::Upgrade => return self.upgrade(),
            Action::KillOperator { late } => return self.kill_operator(late),
            Action::Depose { steps } => return self.depose(steps),
            Action::BreakWatch { kind } => {
                self.cluster.marks.hit(Mark::WatchRestarted);
                self.operator.break_watch(kind);
            }
            Action::StallWatch { kind, stalled } => return self.stall(kind, stalled),
            Action::Clock { node, seconds } => return self.set_clock(node, seconds),
            _ => {
                return self
                    .act_on_pool(action)
                    .or_else(|| self.act_on_node(action))
                    == Some(true);
            }
        }
        true
    }

    fn act_on_pool(&mut self, action: &Action) -> Option<bool> {
        let done = match *action {
            Action::Want { pool, image } => self.want(pool, &api::image(image)),
            Action::WantTag { pool, tag } => self.edit(pool, |pool| {
                pool.spec.image = ImageRef::Tag {
                    reference: tag_name(tag),
                    repository: format!("r/t{tag}"),
                };
            }),
            Action::Typo { pool } => {
                let done = self.edit(pool, |pool| {
                    pool.spec.image = ImageRef::Invalid("no digest".into());
                });
                self.mark(done, Mark::Typo)
            }
            Action::Pause { pool, paused } => self.edit(pool, |pool| pool.spec.paused = paused),
            Action::Slots { pool, slots } => self.edit(pool, |pool| {
                pool.spec.max_unavailable = Amount::Count(slots.into());
            }),
            Action::Share { pool, percent } => {
                let share = Amount::Percent(percent.into());
                let done = self.edit(pool, |pool| pool.spec.max_unavailable = share);
                self.mark(done, Mark::Share)
            }
            Action::Room { pool, room } => self.edit(pool, |pool| {
                pool.spec.max_concurrent_staging = room.map(|it| Amount::Count(it.into()));
            }),
            Action::Timeouts {
                pool,
                drain,
                reboot,
            } => self.edit(pool, |pool| {
                let some = |it: u16| (it > 0).then_some(Seconds(it.into()));
                (pool.spec.drain_timeout, pool.spec.reboot_timeout) = (some(drain), some(reboot));
            }),
            Action::MinReady { pool, seconds } => {
                self.edit(pool, |pool| pool.spec.min_ready = Seconds(seconds.into()))
            }
            Action::Secret { pool, named } => self.edit(pool, |pool| {
                pool.spec.secret = named.then(|| SecretRef {
                    name: "s".into(),
                    namespace: "ns".into(),
                });
            }),
            Action::Retry { pool, node } => {
                let at = self.cluster.now;
                let done = self.edit(pool, |pool| {
                    let nodes = [node_name(node)].into();
                    pool.retry = Some(Retry { nodes, at });
                });
                self.mark(done, Mark::Retried)
            }
            Action::DeletePool { pool } => {
                let there = self
                    .pool(&pool_name(pool))
                    .is_some_and(|pool| !pool.deleting);
                self.cluster.server.delete_pool(&pool_name(pool));
                self.mark(there, Mark::PoolDeleted)
            }
            Action::CreatePool { pool } => {
                let there = self.pool(&pool_name(pool)).is_some();
                if !there {
                    self.add_pool(&pool_name(pool), 1);
                }
                !there
            }
            _ => return None,
        };
        Some(done)
    }

    fn act_on_node(&mut self, action: &Action) -> Option<bool> {
        Some(match *action {
            Action::Claim {
                node,
                pool,
                claimed,
            } => self.claim(&node_name(node), &pool_name(pool), claimed),
            Action::Recreate { node } => self.recreate(&node_name(node)),
            Action::DeleteNode { node } => self.delete_node(&node_name(node)),
            Action::DeleteBootcNode { node } => {
                let name = node_name(node);
                let there = self.cluster.server.bootc.get(&name).is_some();
                self.cluster.server.remove_bootc(&name);
                // What was tried is noted there, and nowhere else.
                self.cluster.guard.forget(&name);
                self.mark(there, Mark::BootcNodeDeleted)
            }
            Action::Hold { node, held } => self.cluster.server.hold_bootc(&node_name(node), held),
            Action::Spoil { node, lost } => {
                let kept = if lost {
                    Kept::Missing
                } else {
                    Kept::Unreadable("it has no state".into())
                };
                let name = node_name(node);
                let bootc = self.cluster.server.bootc.get(&name);
                // A slot without a record is the Go operator's, and so is a cordon beside it.
                if bootc.is_some_and(|it| it.view.in_reboot_slot) {
                    self.whose_cordon_is_unclear.insert(name.clone());
                }
                let done = self
                    .cluster
                    .server
                    .edit_bootc(&name, |it| it.view.kept = kept);
                self.mark(done, Mark::AnnotationLost)
            }
            Action::Cordon { node, cordoned } => self.cordon(&node_name(node), cordoned),
            Action::KillAgent { node } => self.kill_agent(&node_name(node)),
            Action::RefuseNode { node, refused } => {
                let name = node_name(node);
                if refused {
                    self.cluster.refused.insert(name)
                } else {
                    self.cluster.refused.remove(&name)
                }
            }
            Action::PowerCut { node } => self.power_cut(&node_name(node)),
            Action::LateFallBack { node } => self.late_fall_back(&node_name(node)),
            _ => return self.act_on_host(action),
        })
    }

    fn act_on_host(&mut self, action: &Action) -> Option<bool> {
        let (node, mark) = match *action {
            Action::CutOff { node, .. }
            | Action::Reboots { node, .. }
            | Action::BadPulls { node, .. }
            | Action::BadSteps { node, .. }
            | Action::Unreadable { node, .. } => (node, None),
            Action::Block { node, blocked } => (node, blocked.then_some(Mark::DrainBlocked)),
            Action::AdminReboot { node } => (node, Some(Mark::AdminReboot)),
            Action::AdminSwitch { node, .. } => (node, Some(Mark::AdminSwitch)),
            Action::AdminRollback { node } => (node, Some(Mark::AdminRollback)),
            _ => return None,
        };
        let host = self.cluster.hosts.get_mut(&node_name(node))?;
        let done = on_host(host, action);
        if done && matches!(action, Action::AdminRollback { .. }) {
            self.cluster.guard.dropped(&node_name(node));
        }
        if let Some(mark) = mark {
            return Some(self.mark(done, mark));
        }
        Some(done)
    }

    fn mark(&mut self, done: bool, mark: Mark) -> bool {
        if done {
            self.cluster.marks.hit(mark);
        }
        done
    }

    pub(crate) fn pool(&self, name: &PoolName) -> Option<&PoolView> {
        self.cluster.server.pools.get(name)
    }

    fn edit(&mut self, pool: u8, edit: impl FnOnce(&mut PoolView)) -> bool {
        self.cluster.server.edit_pool(&pool_name(pool), edit)
    }

    pub(crate) fn want(&mut self, pool: u8, image: &Image) -> bool {
        let name = pool_name(pool);
        let server = &self.cluster.server;
        let back = server.bootc.now.values().any(|stored| {
            let view = &stored.object.view;
            let booted = view
                .report
                .as_ref()
                .and_then(|report| report.booted.as_ref());
            view.in_reboot_slot
                && view.owner.as_ref().is_some_and(|owner| owner.pool == name)
                && view.spec.image.as_ref() != Some(image)
                && booted.is_some_and(|booted| booted.is(image))
        });
        let done = self.edit(pool, |pool| {
            pool.spec.image = ImageRef::Pinned(image.clone());
        });
        self.mark(done && back, Mark::RetargetedBack);
        done
    }

    fn change_secret(&mut self) -> bool {
        self.cluster.secret += 1;
        self.operator.secret_changed(&self.cluster);
        let named = |pool: &PoolView| pool.spec.secret.is_some();
        let pools = &self.cluster.server.pools.now;
        let named = pools.values().any(|pool| named(&pool.object));
        self.mark(named, Mark::SecretChanged)
    }

    fn kill_operator(&mut self, late: bool) -> bool {
        let marks = &mut self.cluster.marks;
        marks.hit(Mark::OperatorKilled);
        if self.operator.is_busy() {
            marks.hit(Mark::OperatorKilledBusy);
        }
        if late {
            self.cluster.late.extend(self.operator.in_the_air());
        }
        self.operator = Operator::start();
        true
    }

    /// Another operator leads; the old one hears nothing any more and does not know it.
    fn depose(&mut self, steps: u8) -> bool {
        if !self.operator.is_synced() {
            return false;
        }
        let mut old = std::mem::replace(&mut self.operator, Operator::start());
        old.old = true;
        self.cluster.guard.foreign = true;
        self.old = Some((old, steps));
        true
    }

    fn stall(&mut self, kind: Kind, stalled: bool) -> bool {
        if !stalled {
            return self.stalled.remove(&kind);
        }
        self.cluster.marks.hit(Mark::WatchStale);
        self.cluster.guard.blind |= kind == Kind::BootcNodes;
        self.stalled.insert(kind)
    }

    fn set_clock(&mut self, node: Option<u8>, seconds: i16) -> bool {
        let jump = i64::from(seconds) * 1000;
        if node.is_none() && seconds < 0 {
            self.set_back += u32::from(seconds.unsigned_abs());
        }
        let clock = match node {
            None => &mut self.cluster.operator_clock,
            Some(node) => match self.cluster.hosts.get_mut(&node_name(node)) {
                Some(host) => &mut host.clock,
                None => return false,
            },
        };
        *clock = (*clock + jump).clamp(-3_600_000, 3_600_000);
        self.cluster.marks.hit(if jump < 0 {
            Mark::ClockBack
        } else {
            Mark::ClockJumped
        });
        true
    }

    fn claim(&mut self, node: &NodeName, pool: &PoolName, claimed: bool) -> bool {
        let done = self.cluster.server.edit_node(node, |node| {
            if claimed {
                node.claims.insert(pool.clone());
            } else {
                node.claims.remove(pool);
            }
        });
        let view = self.cluster.server.nodes.get(node);
        let both = view.is_some_and(|node| node.claims.len() > 1);
        self.mark(done && both, Mark::Conflicting);
        done
    }

    /// The Node is deleted, and its kubelet registers it anew.
    fn recreate(&mut self, name: &NodeName) -> bool {
        let Some(old) = self.cluster.server.nodes.get(name).cloned() else {
            return self.register(name);
        };
        self.delete_node(name);
        self.register_as(name, old);
        self.mark(true, Mark::Recreated)
    }

    /// The kubelet of a deleted Node comes back.
    pub(crate) fn register(&mut self, name: &NodeName) -> bool {
        if !self.cluster.hosts.contains_key(name) || self.cluster.server.nodes.get(name).is_some() {
            return false;
        }
        let view = NodeView {
            claims: [pool_name(0)].into(),
            ..NodeView::default()
        };
        self.register_as(name, view);
        true
    }

    fn register_as(&mut self, name: &NodeName, old: NodeView) {
        let uid = self.cluster.server.uid();
        let now = self.cluster.now;
        let Some(host) = self.cluster.hosts.get(name) else {
            return;
        };
        let node = NodeView {
            uid,
            ready: Some(true),
            ready_since: Some(host.clock(now).whole_seconds()),
            boot_id: Some(host.kernel()),
            control_plane: old.control_plane,
            claims: old.claims,
            ..NodeView::default()
        };
        self.cluster.server.put_node(name, node);
        self.schedulable(name);
    }

    fn delete_node(&mut self, name: &NodeName) -> bool {
        let there = self.cluster.server.nodes.get(name).is_some();
        self.cluster.server.remove_node(name);
        self.cordoned_by_others.remove(name);
        there
    }

    fn schedulable(&mut self, name: &NodeName) {
        self.cluster.guard.schedulable(name);
        if let Some(host) = self.cluster.hosts.get_mut(name).filter(|host| host.is_up()) {
            host.pods = 2;
        }
    }

    fn cordon(&mut self, name: &NodeName, cordoned: bool) -> bool {
        let server = &mut self.cluster.server;
        if !server.edit_node(name, |node| node.cordoned = cordoned) {
            return false;
        }
        let slot = server
            .bootc
            .get(name)
            .is_some_and(|it| it.view.in_reboot_slot);
        if cordoned {
            // Who uncordons by `kubectl` leaves our mark on the node: a cordon that follows before we
            // have seen to that is taken for ours.
            let ours = server
                .nodes
                .get(name)
                .is_some_and(|node| node.cordoned_by.is_some());
            if !ours {
                self.cordoned_by_others.insert(name.clone());
            }
            return self.mark(true, Mark::Cordoned);
        }
        self.cordoned_by_others.remove(name);
        self.schedulable(name);
        self.mark(slot, Mark::UncordonedInSlot);
        true
    }

    fn kill_agent(&mut self, name: &NodeName) -> bool {
        let Some(agent) = self.agents.remove(name) else {
            return false;
        };
        self.cluster.marks.hit(Mark::AgentKilled);
        if agent.work.is_some() || agent.writing.is_some() {
            self.cluster.marks.hit(Mark::AgentKilledBusy);
        }
        true
    }

    /// All agents end, and those that start next are of our version.
    fn upgrade(&mut self) -> bool {
        let hosts = self.cluster.hosts.values_mut();
        let old = hosts
            .filter(|host| host.plain)
            .map(|host| host.plain = false);
        let done = old.count() > 0;
        if done {
            self.agents.clear();
        }
        self.mark(done, Mark::AgentsUpgraded)
    }

    fn power_cut(&mut self, name: &NodeName) -> bool {
        let down = |host: &Host| matches!(host.power, Power::Down { .. });
        if self.cluster.hosts.get(name).is_none_or(down) {
            return false;
        }
        self.cluster.marks.hit(Mark::PowerCut);
        self.go_down(name, false);
        true
    }

    /// Health checks that take long send the host back to its old image.
    fn late_fall_back(&mut self, name: &NodeName) -> bool {
        let Some(host) = self.cluster.hosts.get_mut(name) else {
            return false;
        };
        if !host.is_up() || host.rollback.is_none() {
            return false;
        }
        let left = host.booted.image.digest.clone();
        host.fall_back();
        self.cluster.marks.hit(Mark::FellBackLate);
        self.go_down(name, false);
        self.cluster.fell_back(name, &left);
        true
    }
}

fn fail(fates: &mut std::collections::VecDeque<Sent>, how: Sent, after: u8) {
    fates.extend(std::iter::repeat_n(Sent::Do, after.into()));
    fates.push_back(how);
}

fn on_host(host: &mut Host, action: &Action) -> bool {
    let up = host.is_up();
    match *action {
        Action::CutOff { cut, .. } => std::mem::replace(&mut host.cut_off, cut) != cut,
        Action::Block { blocked, .. } => std::mem::replace(&mut host.blocked, blocked) != blocked,
        Action::Reboots { fate, .. } => std::mem::replace(&mut host.fate, fate) != fate,
        Action::BadPulls { times, .. } => std::mem::replace(&mut host.bad_pulls, times) != times,
        Action::BadSteps { times, .. } => std::mem::replace(&mut host.bad_steps, times) != times,
        Action::Unreadable { is, .. } => {
            host.changed = true;
            std::mem::replace(&mut host.unreadable, is) != is
        }
        Action::AdminReboot { .. } => {
            if up && host.fate != Fate::Hangs {
                host.power = Power::Stopping {
                    soft: host.prepared,
                };
            }
            up
        }
        Action::AdminSwitch { image, locked, .. } => {
            let free = up && host.pull.is_none();
            if free {
                let locked = locked && host.can.lock != fsm::host::Lock::No;
                host.stage(api::image(image).as_str(), locked, true);
            }
            free
        }
        Action::AdminRollback { .. } => up && host.roll_back().is_ok(),
        _ => false,
    }
}
