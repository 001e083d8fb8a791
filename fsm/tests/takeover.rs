//! What the Go operator leaves behind in the middle of a rollout is finished, and its cordons are
//! taken back: it notes slots on its objects, and nothing on the Node.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod toy;

use std::sync::Arc;

use fsm::{
    NodeName,
    view::{BootcNodeView, Kept, NodeView},
};
use toy::{PHASES, Toy, in_phase};

/// Takes away what only we write.
fn as_go_left_it(toy: &mut Toy) {
    toy.plain_agents = true;
    let names: Vec<NodeName> = toy.nodes.keys().cloned().collect();
    for name in names {
        let bare = |bootc: &mut BootcNodeView| {
            bootc.kept = Kept::Missing;
            bootc.spec.approved_boot = None;
            if let Some(report) = bootc.report.as_mut().map(Arc::make_mut) {
                (report.boot, report.observed_generation) = (None, None);
            }
        };
        toy.edit_bootc(name.as_str(), bare);
        toy.edit_node(name.as_str(), |node: &mut NodeView| node.cordoned_by = None);
    }
}

#[test]
fn a_rollout_left_in_any_phase_is_finished() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 3, 6) {
            as_go_left_it(&mut toy);
            toy.start();
            toy.run(900);
            toy.assert_all_run(2);
            let cordoned: Vec<_> = toy.nodes.iter().filter(|it| it.1.cordoned).collect();
            assert!(cordoned.is_empty(), "left in {phase}: {cordoned:?}");
        }
    }
}

#[test]
fn a_cordon_that_was_there_before_stays() {
    for phase in PHASES {
        for mut toy in in_phase(phase, 3, 6) {
            as_go_left_it(&mut toy);
            let held: Vec<NodeName> = toy
                .bootc
                .iter()
                .filter(|it| it.1.in_reboot_slot)
                .map(|it| it.0.clone())
                .collect();
            for name in &held {
                toy.edit_bootc(name.as_str(), |bootc| bootc.was_cordoned = Some(true));
                toy.edit_node(name.as_str(), |node| node.cordoned = true);
            }
            toy.start();
            toy.run(900);
            toy.assert_all_run(2);
            let cordoned: Vec<&NodeName> = toy
                .nodes
                .iter()
                .filter(|it| it.1.cordoned)
                .map(|it| it.0)
                .collect();
            assert!(cordoned.iter().all(|name| held.contains(name)));
            assert_eq!(cordoned.len(), held.len(), "left in {phase}");
        }
    }
}

/// It would hold for every boot to come, as one that names its boot does not.
#[test]
fn an_approval_that_names_no_boot_ends_with_the_update() {
    for plain in [true, false] {
        let mut toy = Toy::new(2, 4);
        toy.plain_agents = plain;
        toy.run(60);
        toy.want(2);
        toy.run(900);
        toy.assert_all_run(2);
        for bootc in toy.bootc.values() {
            assert_eq!(bootc.spec.booted, !plain);
        }
    }
}
