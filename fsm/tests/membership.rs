//! Joining, leaving, quarrels, and objects that people delete by hand.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use fsm::{
    Command, Input, NodeName, PoolName, State,
    command::PoolWrite,
    input::Outcome,
    view::{ImageRef, Kept},
};
use toy::{PHASES, Toy, image, in_phase, pool_spec};

fn assert_let_go(toy: &Toy, name: &str) {
    let name = NodeName::from(name);
    let log = toy.log.join("\n");
    assert!(!toy.bootc.contains_key(&name), "{log}");
    let node = &toy.nodes[&name];
    assert!(
        !node.labelled && !node.cordoned && node.cordoned_by.is_none(),
        "{node:?}\n{log}"
    );
}

#[test]
fn a_pool_deleted_in_any_phase_lets_its_nodes_go() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 20) {
            toy.edit_pool("p", |pool| pool.deleting = true);
            toy.run(900);
            assert_let_go(&toy, "w1");
            assert!(toy.pools.is_empty(), "the finalizer is gone too");
        }
    }
}

#[test]
fn a_pool_deleted_while_the_operator_is_away_lets_its_nodes_go() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 20) {
            toy.pools.get_mut(&PoolName::from("p")).unwrap().deleting = true;
            toy.start();
            toy.run(900);
            assert_let_go(&toy, "w1");
            assert!(toy.pools.is_empty());
        }
    }
}

#[test]
fn a_node_that_leaves_its_pool_in_any_phase_is_let_go() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 20) {
            toy.edit_node("w1", |node| node.claims.clear());
            toy.run(900);
            assert_let_go(&toy, "w1");
            assert_eq!(toy.status().nodes, 0);
            assert_eq!(toy.status().up_to_date.unwrap().reason, "AllUpdated");
        }
    }
}

#[test]
fn a_node_cordoned_by_somebody_else_stays_cordoned() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.edit_node("w1", |node| node.cordoned = true);
    toy.want(2);
    assert!(toy.until(|toy| toy.bootc[&NodeName::from("w1")].in_reboot_slot));
    assert_eq!(toy.bootc[&NodeName::from("w1")].was_cordoned, Some(true));
    toy.run(60);
    assert_eq!(toy.hosts[&NodeName::from("w1")].booted, image(2));
    let node = &toy.nodes[&NodeName::from("w1")];
    assert!(node.cordoned && node.cordoned_by.is_none());
    toy.edit_pool("p", |pool| pool.deleting = true);
    toy.run(60);
    assert!(toy.nodes[&NodeName::from("w1")].cordoned);
}

#[test]
fn a_node_that_goes_to_another_pool_is_let_go_and_joined_anew() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 10) {
            toy.add_pool("q", pool_spec(image(3)));
            toy.edit_node("w1", |node| node.claims = ["q".into()].into());
            toy.run(900);
            assert_eq!(
                toy.hosts[&NodeName::from("w1")].booted,
                image(3),
                "{}",
                toy.log.join("\n")
            );
            let owner = toy.bootc[&NodeName::from("w1")].owner.clone().unwrap();
            assert_eq!(owner.pool, "q".into());
            assert!(!toy.nodes[&NodeName::from("w1")].cordoned);
        }
    }
}

#[test]
fn two_pools_that_claim_a_node_both_say_so_and_no_further_step_is_made() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 20) {
            toy.add_pool("q", pool_spec(image(3)));
            toy.edit_node("w1", |node| node.claims = ["p".into(), "q".into()].into());
            toy.settle_news();
            let approved = toy.bootc[&NodeName::from("w1")].spec.booted;
            toy.run(900);
            for (pool, other) in [("p", "q"), ("q", "p")] {
                let status = toy.pools[&PoolName::from(pool)].status.clone().unwrap();
                let degraded = status.is_degraded.unwrap();
                assert_eq!(degraded.reason, "NodeConflict", "{phase}");
                assert_eq!(degraded.message, format!("w1: also selected by {other}"));
            }
            let booted = if approved { image(2) } else { image(1) };
            assert_eq!(toy.hosts[&NodeName::from("w1")].booted, booted, "{phase}");
            assert!(!toy.nodes[&NodeName::from("w1")].cordoned, "{phase}");
            // The quarrel ends with the other pool, of which this node hears nothing else.
            toy.edit_pool("q", |pool| pool.deleting = true);
            toy.run(900);
            toy.assert_all_run(2);
        }
    }
}

#[test]
fn a_quarrel_over_a_new_node_makes_nothing() {
    let mut toy = Toy::new(1, 1);
    toy.add_pool("q", pool_spec(image(1)));
    toy.run(60);
    toy.add_node("w2", &["p", "q"]);
    toy.run(60);
    assert!(!toy.bootc.contains_key(&NodeName::from("w2")));
    assert_eq!(toy.status().is_degraded.unwrap().reason, "NodeConflict");
    toy.edit_node("w2", |node| node.claims = ["q".into()].into());
    toy.run(60);
    assert!(toy.bootc.contains_key(&NodeName::from("w2")));
    assert_eq!(toy.status().is_degraded.unwrap().reason, "OK");
}

#[test]
fn a_node_that_is_gone_is_forgotten_and_gives_its_slot_back() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 20) {
            toy.add_node("w2", &["p"]);
            toy.settle();
            toy.delete_node("w1");
            toy.run(900);
            assert!(!toy.bootc.contains_key(&NodeName::from("w1")));
            toy.assert_all_run(2);
            assert_eq!(toy.status().nodes, 1);
        }
    }
}

#[test]
fn a_node_made_anew_under_its_name_is_another_one() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 20) {
            let before = toy.bootc[&NodeName::from("w1")].uid.clone();
            toy.nodes.remove(&NodeName::from("w1"));
            toy.add_node("w1", &["p"]);
            toy.run(900);
            assert_ne!(toy.bootc[&NodeName::from("w1")].uid, before);
            toy.assert_all_run(2);
        }
    }
}

#[test]
fn a_label_removed_by_hand_comes_back() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.edit_node("w1", |node| node.labelled = false);
    toy.run(60);
    assert!(toy.nodes[&NodeName::from("w1")].labelled);
}

#[test]
fn a_bootc_node_removed_by_hand_in_any_phase_is_made_again_and_loses_nothing() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 1, 20) {
            toy.delete_bootc("w1");
            if toy.now.0 % 200 == 0 {
                toy.start();
            }
            toy.run(900);
            toy.assert_all_run(2);
            assert!(!toy.nodes[&NodeName::from("w1")].cordoned);
        }
    }
}

#[test]
fn an_annotation_that_is_lost_or_broken_is_rebuilt_and_reported() {
    for phase in PHASES {
        for kept in [
            Kept::Missing,
            Kept::Unreadable("expected value at line 1".into()),
        ] {
            for mut toy in in_phase(phase, 1, 10) {
                toy.settle_news();
                toy.bootc.get_mut(&NodeName::from("w1")).unwrap().kept = kept.clone();
                toy.start();
                toy.run(900);
                toy.assert_all_run(2);
                assert_eq!(toy.hosts[&NodeName::from("w1")].reboots, 1, "{phase}");
                assert!(!toy.nodes[&NodeName::from("w1")].cordoned, "{phase}");
                assert!(toy.log.iter().any(|line| line.contains("RecordRebuilt")));
            }
        }
    }
}

#[test]
fn a_spec_edited_by_hand_is_put_right() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.edit_bootc("w1", |bootc| {
        bootc.spec.image = Some(image(9));
        bootc.spec.booted = true;
    });
    toy.start();
    toy.settle();
    let spec = &toy.bootc[&NodeName::from("w1")].spec;
    assert_eq!((spec.image.clone(), spec.booted), (Some(image(1)), false));
}

#[test]
fn an_invalid_spec_lets_holders_finish_and_starts_nothing_new() {
    for phase in PHASES.into_iter().skip(2) {
        for mut toy in in_phase(phase, 1, 20) {
            toy.add_node("w2", &["p"]);
            toy.edit_pool("p", |pool| {
                pool.spec.image = ImageRef::Invalid("no tag and no digest".into());
            });
            toy.run(900);
            assert_eq!(toy.hosts[&NodeName::from("w1")].booted, image(2), "{phase}");
            assert!(!toy.nodes[&NodeName::from("w1")].cordoned);
            let status = toy.status();
            assert_eq!(status.is_degraded.unwrap().reason, "InvalidSpec");
            let up_to_date = status.up_to_date.unwrap();
            assert_eq!(
                (up_to_date.status, up_to_date.reason.as_str()),
                (None, "TargetUnknown")
            );
            toy.want(2);
            toy.run(900);
            toy.assert_all_run(2);
        }
    }
}

#[test]
fn a_selector_that_cannot_be_read_lets_no_node_go() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.edit_pool("p", |pool| {
        pool.spec.invalid = Some("spec.nodeSelector: operator Near".into());
    });
    toy.edit_node("w1", |node| node.claims.clear());
    toy.run(60);
    assert!(toy.bootc.contains_key(&NodeName::from("w1")));
    assert!(toy.nodes[&NodeName::from("w1")].labelled);
    assert_eq!(
        toy.status().is_degraded.unwrap().message,
        "spec.nodeSelector: operator Near"
    );
}

#[test]
fn nothing_is_decided_before_the_lists_are_complete() {
    let toy = Toy::new(3, 1);
    let mut rollout = fsm::Rollout::new(fsm::Config::default());
    for (name, view) in &toy.nodes {
        let view = fsm::view::NodeView {
            labelled: true,
            ..view.clone()
        };
        let out = rollout.handle(toy.now, fsm::Input::Node(name.clone(), Some(view)));
        assert_eq!(out, []);
    }
}

/// Only what the pool had put on its nodes is left there, and that cannot be taken back yet.
#[test]
fn a_deleted_pool_stays_until_its_cordon_and_its_label_are_gone() {
    for cordoned in [true, false] {
        let phase = if cordoned {
            State::Draining
        } else {
            State::Staging
        };
        for mut toy in in_phase(phase, 1, 5) {
            toy.bootc.clear();
            toy.pools.get_mut(&PoolName::from("p")).unwrap().deleting = true;
            let node = toy.nodes.get_mut(&NodeName::from("w1")).unwrap();
            node.labelled = !cordoned;
            toy.refuse
                .insert("w1".into(), Outcome::Refused("a webhook says no".into()));
            toy.start();
            toy.pass(100);
            let node = &toy.nodes[&NodeName::from("w1")];
            assert!(node.labelled != cordoned && node.cordoned == cordoned);
            assert!(!toy.pools.is_empty(), "{}", toy.log.join("\n"));
            toy.refuse.clear();
            toy.run(900);
            assert_let_go(&toy, "w1");
            assert!(toy.pools.is_empty());
        }
    }
}

/// The watch tells that the `BootcNode` is gone before the rest of the decision is through.
#[test]
fn a_deleted_pool_stays_until_a_node_that_is_being_let_go_is_through() {
    for mut toy in in_phase(State::Draining, 1, 5) {
        toy.settle_news();
        let node = toy.nodes.get_mut(&NodeName::from("w1")).unwrap();
        node.claims.clear();
        let node = node.clone();
        let pool = toy.pools.get_mut(&PoolName::from("p")).unwrap();
        pool.deleting = true;
        let pool = pool.clone();
        toy.commands.clear();
        toy.feed(Input::Pool("p".into(), Some(pool)));
        toy.feed(Input::Node("w1".into(), Some(node)));
        toy.feed(Input::BootcNode("w1".into(), None));
        let lets_go = |it: &Command| matches!(it, Command::Decide(_));
        assert!(toy.commands.iter().any(lets_go), "{:?}", toy.commands);
        let goes = |it: &Command| {
            let what = PoolWrite::RemoveFinalizer;
            matches!(it, Command::Pool { what: it, .. } if *it == what)
        };
        assert!(!toy.commands.iter().any(goes), "{:?}", toy.commands);
        toy.run(60);
        assert!(toy.commands.iter().any(goes), "{:?}", toy.commands);
        assert_let_go(&toy, "w1");
        assert!(toy.pools.is_empty());
    }
}

/// One that was made and deleted by somebody before the watch told of it is made again, and does not
/// hold up the end of its pool.
#[test]
fn a_bootcnode_that_is_made_and_deleted_unseen_is_not_waited_for_for_ever() {
    for deleted in [true, false] {
        let mut toy = Toy::new(1, 2);
        assert!(toy.until(|toy| !toy.bootc.is_empty()));
        toy.bootc.clear();
        let answered = toy.until(|toy| {
            let done = |input: &Input| matches!(input, Input::Done { .. });
            toy.journal.iter().any(|it| done(&it.1))
        });
        assert!(answered);
        toy.edit_pool("p", |pool| pool.deleting = deleted);
        toy.pass(120);
        assert_eq!(toy.pools.is_empty(), deleted, "{}", toy.log.join("\n"));
        assert_eq!(toy.bootc.is_empty(), deleted, "{}", toy.log.join("\n"));
    }
}
