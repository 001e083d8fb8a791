//! What is believed after a write: its answer, or its silence, beside what the watch tells.

#![allow(clippy::expect_used, reason = "that is how a test fails")]

mod toy;

use fsm::{
    Command, Input, NodeName,
    command::{Decision, Effect, NodeWrite},
    input::Outcome,
    view::Kept,
};
use toy::{Toy, image};

fn ready(nodes: u32, seed: u64) -> Toy {
    let mut toy = Toy::new(nodes, seed);
    toy.run(60);
    toy
}

/// The first node's slot may be taken, and nobody wants it any more: only one more write tells.
#[test]
fn a_slot_that_nobody_knows_of_is_settled_and_not_kept_for_ever() {
    for seed in 0..10 {
        let mut toy = ready(2, seed);
        toy.loses_a_grant("w1");
        toy.host("w1").silent = true;
        toy.add_pool("q", toy::pool_spec(image(2)));
        toy.edit_node("w1", |node| {
            node.claims.insert("q".into());
        });
        toy.settle_news();
        toy.refuse.clear();
        toy.pass(300);
        assert_eq!(
            toy.hosts[&"w2".into()].booted,
            image(2),
            "seed {seed}\n{}",
            toy.log.join("\n")
        );
        assert!(!toy.bootc[&"w1".into()].in_reboot_slot);
    }
}

/// The watch is ahead of the answer: what somebody wrote after us is not covered up by what we wrote.
#[test]
fn what_somebody_changes_right_after_a_write_is_put_right() {
    let mut toy = ready(1, 3);
    let (now, w1) = (toy.now, NodeName::from("w1"));
    let mut pool = toy.pools[&"p".into()].clone();
    (pool.generation, pool.spec) = (pool.generation + 1, toy::pool_spec(image(2)));
    let commands = toy.rollout.handle(now, Input::Pool("p".into(), Some(pool)));
    let (decision, write) = commit(&commands).expect("the new image is told to the agent");

    let mut seen = toy.bootc[&w1].clone();
    seen.generation += 1;
    seen.spec = write.spec.clone();
    seen.kept = Kept::Is(write.record.clone());
    let ours = Input::BootcNode(w1.clone(), Some(seen.clone()));
    assert_eq!(commit(&toy.rollout.handle(now, ours)), None);
    seen.generation += 1;
    seen.spec.image = None;
    let theirs = Input::BootcNode(w1.clone(), Some(seen));
    assert_eq!(commit(&toy.rollout.handle(now, theirs)), None);

    let done = Input::Done {
        node: w1,
        decision: decision.id,
        done: decision.effects.len(),
        outcome: Outcome::Ok,
    };
    let again = commit(&toy.rollout.handle(now, done));
    let (_, again) = again.expect("it is told again");
    assert_eq!(again.spec.image, write.spec.image);
}

/// The decision to write a record and a spec, and what it writes.
fn commit(commands: &[Command]) -> Option<(Decision, NodeWrite)> {
    commands.iter().find_map(|command| {
        let Command::Decide(decision) = command else {
            return None;
        };
        decision.effects.iter().find_map(|effect| match effect {
            Effect::Commit(write) => Some((decision.clone(), write.clone())),
            _ => None,
        })
    })
}
