//! A node that comes back from its reboot keeps its slot until its Node and its agent agree.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use fsm::{State, view::NodeView};
use toy::Toy;

/// A node that has just booted its new image, before anybody was told.
fn back(seed: u64) -> Toy {
    let mut toy = Toy::new(1, seed);
    toy.run(60);
    toy.want(2);
    assert!(toy.until(|toy| toy.hosts[&"w1".into()].boots == 2));
    toy
}

fn stays_until(spoil: impl Fn(&mut NodeView)) {
    for seed in 0..10 {
        let mut toy = back(seed);
        let well = toy.nodes[&"w1".into()].clone();
        toy.edit_node("w1", &spoil);
        toy.pass(120);
        assert_eq!(toy.record("w1").state, State::Verifying, "seed {seed}");
        assert!(toy.bootc[&"w1".into()].in_reboot_slot);
        assert!(toy.nodes[&"w1".into()].cordoned);
        toy.edit_node("w1", |node| {
            (node.ready, node.boot_id) = (well.ready, well.boot_id.clone());
        });
        toy.run(300);
        toy.assert_all_run(2);
    }
}

#[test]
fn it_must_be_ready() {
    stays_until(|node| node.ready = Some(false));
}

/// The kubelet has not posted its new status yet: what stands there is of the boot before.
#[test]
fn it_must_be_ready_in_this_boot() {
    stays_until(|node| (node.ready, node.boot_id) = (Some(true), Some("w1-1".into())));
}
