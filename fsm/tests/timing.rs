//! When something is said: not before it is so, and soon when it is over. And when it is tried again.

mod toy;

use std::collections::BTreeSet;

use fsm::{
    Command, Input,
    command::{Effect, PoolWrite},
    time::Seconds,
};
use toy::Toy;

/// A client that waits for `UpToDate=True` must find every node uncordoned and every slot free: the
/// writes that do this were answered, or the last of them was seen.
#[test]
fn a_pool_is_up_to_date_only_once_the_last_write_took_place() {
    for seed in 0..30 {
        let mut toy = Toy::new(3, seed);
        toy.run(60);
        toy.journal.clear();
        toy.want(2);
        toy.run(60);
        toy.assert_all_run(2);
        let (mut under_way, mut said) = (BTreeSet::new(), 0);
        for (_, input, commands) in &toy.journal {
            match input {
                Input::Done { node, .. } => drop(under_way.remove(node)),
                Input::BootcNode(node, Some(view)) if !view.in_reboot_slot => {
                    under_way.remove(node);
                }
                _ => {}
            }
            for command in commands {
                match command {
                    Command::Decide(decision) => drop(under_way.insert(decision.node.clone())),
                    Command::Pool {
                        what: PoolWrite::Status(status),
                        ..
                    } if status.up_to_date.as_ref().and_then(|it| it.status) == Some(true) => {
                        said += 1;
                        assert!(under_way.is_empty(), "seed {seed}: {under_way:?}");
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(said, 1, "seed {seed}");
    }
}

/// The 30 seconds between two writes of Waiting are for one cause, not for the end of a wait.
#[test]
fn the_end_of_a_wait_is_said_in_a_second() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == fsm::State::Draining));
    let waits = |toy: &Toy| {
        let bootc = &toy.bootc[&"w1".into()];
        bootc.waiting.as_ref().is_some_and(|it| it.waiting)
    };
    toy.says_pods_wait("w1");
    toy.pass(6);
    assert!(waits(&toy), "a wait of more than five seconds is shown");
    let shown = toy.now;
    let message = |toy: &Toy| toy.status().up_to_date.map(|it| it.message);
    toy.pass(2);
    assert_eq!(
        message(&toy).as_deref(),
        Some(
            "0/1 updated; 1 draining; w1 waiting for pod shop/web: PodDisruptionBudget shop/web \
             allows 0 disruptions"
        ),
        "the pool names it too"
    );
    toy.unblock("w1");
    let approved = |toy: &Toy| toy.record("w1").state == fsm::State::Rebooting;
    assert!(toy.until(approved));
    assert!(waits(&toy), "not while others write: {:?}", toy.log);
    toy.pass(1);
    assert!(!waits(&toy), "{:?}", toy.log);
    assert!(toy.now.since(shown) < 30_000, "it need not be due again");
}

/// A node that is drained does not seem to wait for its slot for the rest of the 30 seconds.
#[test]
fn another_cause_is_said_as_soon_as_it_has_lasted() {
    let mut toy = Toy::new(2, 1);
    toy.run(60);
    for node in ["w1", "w2"] {
        toy.blocked.insert(node.into());
    }
    toy.want(2);
    let reason = |toy: &Toy, node: &str| {
        let bootc = &toy.bootc[&node.into()];
        bootc.waiting.as_ref().map(|it| it.reason.clone())
    };
    let drains = |toy: &Toy, node: &str| toy.record(node).state == fsm::State::Draining;
    assert!(toy.until(|toy| drains(toy, "w1") || drains(toy, "w2")));
    let (first, second) = if drains(&toy, "w1") {
        ("w1", "w2")
    } else {
        ("w2", "w1")
    };
    toy.pass(6);
    assert_eq!(
        reason(&toy, second).as_deref(),
        Some("RebootSlot"),
        "{:?}",
        toy.log
    );
    toy.unblock(first);
    assert!(toy.until(|toy| drains(toy, second)));
    toy.pass(6);
    assert_eq!(
        reason(&toy, second).as_deref(),
        Some("Drain"),
        "{:?}",
        toy.log
    );
}

/// Somebody else wants it otherwise, and wins each time.
#[test]
fn what_is_undone_again_and_again_is_repeated_ever_more_seldom() {
    let mut toy = Toy::new(2, 1);
    toy.run(60);
    let before = toy
        .node_writes
        .get(&"w1".into())
        .copied()
        .unwrap_or_default();
    let end = toy.now + fsm::time::Seconds(600);
    while toy.now < end {
        if toy.nodes[&"w1".into()].labelled {
            toy.edit_node("w1", |node| node.labelled = false);
        }
        toy.pass(1);
    }
    let writes = toy.node_writes[&"w1".into()] - before;
    assert!((8..30).contains(&writes), "{writes} writes in 10 minutes");
    toy.run(120);
    toy.assert_all_run(1);
}

/// Each drain has its 100 seconds, and the pauses after them are 300, 600 and 1,200.
#[test]
fn a_drain_that_never_ends_is_tried_again_after_longer_and_longer_pauses() {
    let mut toy = Toy::new(1, 3);
    toy.run(60);
    toy.edit_pool("p", |pool| pool.spec.drain_timeout = Some(Seconds(100)));
    toy.blocked.insert("w1".into());
    toy.want(2);
    let drains = |toy: &Toy| {
        let decisions = toy.commands.iter().filter_map(|command| match command {
            Command::Decide(decision) => Some(&decision.effects),
            _ => None,
        });
        let starts = |effect: &&Effect| matches!(effect, Effect::StartDrain { .. });
        decisions.flatten().filter(starts).count()
    };
    for (seconds, drained) in [
        (50, 1),
        (330, 1),
        (70, 2),
        (580, 2),
        (100, 3),
        (1180, 3),
        (120, 4),
    ] {
        toy.pass(seconds);
        assert_eq!(drains(&toy), drained, "{}", toy.log.join("\n"));
    }
}
