//! Whole rollouts in a toy cluster.

mod toy;

use toy::{Crash, Toy};

#[test]
fn three_nodes_are_updated_one_after_the_other_with_six_writes_each() {
    for seed in 0..50 {
        let mut toy = Toy::new(3, seed);
        toy.run(60);
        toy.assert_all_run(1);
        assert_eq!(
            toy.node_writes.values().sum::<usize>(),
            6,
            "create and label"
        );
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
