//! Whole rollouts: the plain one, crashes, changes of mind, pauses.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use fsm::{
    State,
    view::{Amount, ImageRef},
};
use toy::{Crash, PHASES, Toy, image, in_phase};

#[test]
fn three_nodes_are_updated_one_after_the_other_with_six_writes_each() {
    for seed in 0..50 {
        let mut toy = Toy::new(3, seed);
        toy.run(60);
        toy.assert_all_run(1);
        let writes: usize = toy.node_writes.values().sum();
        assert_eq!(writes, 6, "create and label\n{}", toy.log.join("\n"));
        toy.node_writes.clear();
        toy.want(2);
        toy.run(60);
        toy.assert_all_run(2);
        for (name, writes) in &toy.node_writes {
            assert!(
                *writes <= 6,
                "{name}: {writes} writes\n{}",
                toy.log.join("\n")
            );
            assert_eq!(toy.hosts[name].reboots, 1);
            assert!(!toy.nodes[name].cordoned);
        }
    }
}

#[test]
fn a_crash_before_or_after_any_write_changes_nothing() {
    let mut plain = Toy::new(3, 7);
    plain.run(60);
    plain.want(2);
    plain.run(60);
    for seed in 0..8 {
        for write in 0..plain.writes + 4 {
            for crash in [Crash::Before(write), Crash::After(write)] {
                let mut toy = Toy::new(3, seed);
                toy.crash = Some(crash);
                toy.run(60);
                toy.want(2);
                toy.run(60);
                toy.assert_all_run(2);
                assert!(
                    toy.hosts.values().all(|host| host.reboots == 1),
                    "{crash:?}"
                );
                assert!(toy.nodes.values().all(|node| !node.cordoned), "{crash:?}");
            }
        }
    }
}

#[test]
fn a_restart_in_the_steady_state_writes_nothing() {
    let mut toy = Toy::new(3, 1);
    toy.run(60);
    toy.want(2);
    toy.run(60);
    let writes = (toy.writes, toy.waiting_writes);
    toy.start();
    toy.run(3600);
    toy.pass(3600);
    assert_eq!((toy.writes, toy.waiting_writes), writes);
}

#[test]
fn a_node_that_runs_the_target_when_it_joins_is_not_staged() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    assert!(
        !toy.log
            .iter()
            .any(|line| line.contains("Staged") || line.contains("Cordoned"))
    );
    assert_eq!(toy.record("w1").state, State::Idle);
}

#[test]
fn another_image_in_any_phase_ends_on_that_image() {
    for phase in PHASES {
        for wanted in [3, 1] {
            for mut toy in in_phase(phase, 3, 30) {
                toy.want(wanted);
                toy.run(900);
                toy.assert_all_run(wanted);
                let reboots: Vec<u32> = toy.hosts.values().map(|host| host.reboots).collect();
                assert!(
                    reboots.iter().all(|count| *count <= 2),
                    "{phase} {reboots:?}"
                );
                assert!(toy.nodes.values().all(|node| !node.cordoned));
            }
        }
    }
}

#[test]
fn another_image_and_a_crash_end_on_that_image() {
    for phase in PHASES {
        for toy in in_phase(phase, 3, 10) {
            for ahead in 0..12 {
                for crash in [Crash::Before, Crash::After] {
                    let mut toy = toy.clone();
                    toy.want(3);
                    toy.crash = Some(crash(toy.writes + ahead));
                    toy.run(900);
                    toy.assert_all_run(3);
                    assert!(toy.hosts.values().all(|host| host.reboots <= 2));
                }
            }
        }
    }
}

#[test]
fn a_paused_pool_stages_and_reboots_nothing_and_goes_on_later() {
    let mut toy = Toy::new(3, 3);
    toy.run(60);
    toy.edit_pool("p", |pool| pool.spec.paused = true);
    toy.want(2);
    toy.run(60);
    let status = toy.status();
    let up_to_date = status.up_to_date.unwrap();
    assert_eq!(
        (up_to_date.status, up_to_date.reason.as_str()),
        (Some(false), "Paused")
    );
    assert_eq!(up_to_date.message, "0/3 updated; 3 staged");
    assert!(toy.nodes.values().all(|node| !node.cordoned));
    toy.edit_pool("p", |pool| pool.spec.paused = false);
    toy.run(60);
    toy.assert_all_run(2);
}

#[test]
fn pausing_throws_out_no_holder() {
    for phase in PHASES.into_iter().skip(2) {
        for mut toy in in_phase(phase, 3, 20) {
            toy.edit_pool("p", |pool| pool.spec.paused = true);
            toy.settle_news();
            let begun = |(name, host): (_, &toy::host::Host)| {
                toy.bootc[name].in_reboot_slot || host.booted == image(2)
            };
            let begun = toy.hosts.iter().filter(|it| begun(*it)).count();
            toy.run(60);
            let done = toy
                .hosts
                .values()
                .filter(|host| host.booted == image(2))
                .count();
            assert_eq!(done, begun, "{phase}");
            assert!(toy.nodes.values().all(|node| !node.cordoned));
        }
    }
}

#[test]
fn max_unavailable_zero_is_a_pause_and_says_so() {
    let mut toy = Toy::new(2, 3);
    toy.run(60);
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(0));
    toy.want(2);
    toy.run(60);
    let up_to_date = toy.status().up_to_date.unwrap();
    assert_eq!(up_to_date.reason, "Paused");
    assert!(
        up_to_date
            .message
            .ends_with("maxUnavailable is 0, so no node is rebooted")
    );
}

#[test]
fn several_slots_are_used_at_once_and_never_too_many() {
    for seed in 0..20 {
        let mut toy = Toy::new(7, seed);
        toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Percent(40));
        toy.run(60);
        toy.want(2);
        let both = toy.until(|toy| {
            toy.bootc
                .values()
                .filter(|bootc| bootc.in_reboot_slot)
                .count()
                == 3
        });
        assert!(both, "three of seven at once");
        toy.run(60);
        toy.assert_all_run(2);
    }
}

#[test]
fn lowering_max_unavailable_throws_out_no_holder() {
    let mut toy = Toy::new(4, 9);
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(3));
    toy.run(60);
    toy.want(2);
    assert!(toy.until(|toy| {
        toy.bootc
            .values()
            .filter(|bootc| bootc.in_reboot_slot)
            .count()
            == 3
    }));
    toy.allow_more_holders();
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(1));
    toy.run(60);
    toy.assert_all_run(2);
    assert!(toy.hosts.values().all(|host| host.reboots == 1));
}

#[test]
fn staging_is_limited_where_the_pool_says_so() {
    for seed in 0..20 {
        let mut toy = Toy::new(5, seed);
        toy.edit_pool("p", |pool| {
            pool.spec.max_concurrent_staging = Some(Amount::Count(2));
        });
        toy.run(60);
        toy.assert_all_run(1);
        toy.want(2);
        let mut most = 0;
        while toy.step() {
            let stage = |bootc: &&fsm::view::BootcNodeView| {
                bootc.spec.image == Some(image(2))
                    && bootc.report.as_ref().is_some_and(|report| {
                        report.staged.is_none()
                            && report.booted.as_ref().is_some_and(|it| !it.is(&image(2)))
                    })
            };
            most = most.max(toy.bootc.values().filter(stage).count());
        }
        assert!(most <= 2 && most > 0, "{most} at once");
        toy.run(60);
        toy.assert_all_run(2);
    }
}

#[test]
fn a_node_that_cannot_stage_does_not_hold_up_the_others() {
    let mut toy = Toy::new(3, 4);
    toy.edit_pool("p", |pool| {
        pool.spec.max_concurrent_staging = Some(Amount::Count(1));
    });
    toy.run(60);
    toy.host("w1").broken = Some("no space left on device".into());
    toy.want(2);
    toy.run(60);
    let status = toy.status();
    assert_eq!((status.updated, status.degraded), (2, 1));
    let degraded = status.is_degraded.unwrap();
    assert_eq!(degraded.reason, "NodeDegraded");
    assert_eq!(degraded.message, "w1: no space left on device");
    toy.host("w1").broken = None;
    toy.run(60);
    toy.assert_all_run(2);
}

#[test]
fn one_control_plane_node_at_a_time_over_all_pools() {
    for seed in 0..20 {
        let mut toy = Toy::new(2, seed);
        toy.add_pool("q", toy::pool_spec(image(1)));
        toy.add_node("c1", &["q"]);
        toy.add_node("c2", &["q"]);
        for name in ["w1", "w2", "c1", "c2"] {
            toy.edit_node(name, |node| node.control_plane = true);
        }
        for pool in ["p", "q"] {
            toy.edit_pool(pool, |pool| pool.spec.max_unavailable = Amount::Count(2));
        }
        toy.run(60);
        toy.want(2);
        toy.edit_pool("q", |pool| pool.spec.image = ImageRef::Pinned(image(2)));
        let mut most = 0;
        while toy.step() {
            most = most.max(
                toy.bootc
                    .values()
                    .filter(|bootc| bootc.in_reboot_slot)
                    .count(),
            );
        }
        assert_eq!(most, 1);
        toy.run(60);
        toy.assert_all_run(2);
    }
}

#[test]
fn no_control_plane_node_goes_down_while_another_one_is_not_ready() {
    let mut toy = Toy::new(2, 1);
    for name in ["w1", "w2"] {
        toy.edit_node(name, |node| node.control_plane = true);
    }
    toy.run(60);
    let now = toy.now;
    toy.edit_node("w2", |node| {
        (node.ready, node.ready_since) = (Some(false), Some(now));
    });
    toy.want(2);
    toy.run(60);
    assert!(toy.nodes.values().all(|node| !node.cordoned));
    toy.edit_node("w2", |node| node.ready = Some(true));
    toy.run(60);
    toy.assert_all_run(2);
}
