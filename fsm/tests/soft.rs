//! A pool whose hosts reboot softly: the kubelet names the same boot as before, the agent a new one.

mod toy;

use fsm::{State, time::Seconds};
use toy::Toy;

fn soft(nodes: u32, seed: u64) -> Toy {
    let mut toy = Toy::new(nodes, seed);
    toy.run(60);
    for host in toy.hosts.values_mut() {
        host.soft = true;
    }
    toy
}

#[test]
fn soft_reboots_in_a_row() {
    for seed in 0..20 {
        let mut toy = soft(3, seed);
        for version in [2, 3, 4] {
            toy.want(version);
            toy.run(900);
            toy.assert_all_run(version);
        }
        let reboots: Vec<u32> = toy.hosts.values().map(|host| host.reboots).collect();
        assert_eq!(reboots, [3, 3, 3], "seed {seed}");
    }
}

/// An approval names the soft reboot's boot, too: one that lost the update is void in the next.
#[test]
fn an_update_lost_in_a_soft_reboot() {
    let mut toy = soft(1, 1);
    toy.want(2);
    toy.host("w1").loses_update = 1;
    toy.run(900);
    toy.assert_all_run(2);
    assert_eq!(toy.hosts[&"w1".into()].reboots, 2);
}

/// It must be Ready for as long as after a full one.
#[test]
fn min_ready_seconds_after_a_soft_reboot() {
    let mut toy = soft(1, 1);
    toy.edit_pool("p", |pool| pool.spec.min_ready = Seconds(300));
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Verifying));
    toy.pass(280);
    assert!(toy.nodes[&"w1".into()].cordoned);
    toy.pass(40);
    assert!(!toy.nodes[&"w1".into()].cordoned);
}
