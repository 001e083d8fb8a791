//! What the simulation found, each in the fewest steps that show it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod hosts;
mod toy;

use fsm::{
    Command, Input, State, Timestamp,
    command::{Effect, PoolWrite},
    host::{self, News, Record},
    input::Outcome,
    time::Seconds,
    view::{Amount, Kept},
};
use toy::Toy;

fn draining(nodes: u32, slots: u32) -> Toy {
    let mut toy = Toy::new(nodes, 7);
    toy.run(60);
    toy.edit_pool("p", |pool| {
        pool.spec.max_unavailable = Amount::Count(slots);
    });
    for n in 1..=nodes {
        toy.blocked.insert(format!("w{n}").as_str().into());
    }
    toy.want(2);
    toy.run(60);
    toy
}

/// Two refused slot holders halted their pool, which took the refusal back, which ended the halt.
#[test]
fn refused_writes_of_two_slot_holders_are_repeated_with_pauses_and_for_ever() {
    let mut toy = draining(2, 2);
    let refused = Outcome::Refused("no".into());
    for name in ["w1", "w2"] {
        assert_eq!(toy.record(name).state, State::Draining);
        toy.refuse.insert(name.into(), refused.clone());
        toy.unblock(name);
    }
    toy.commands.clear();
    toy.pass(600);
    let decides = |it: &&Command| matches!(it, Command::Decide(_));
    let tries = toy.commands.iter().filter(decides).count();
    assert!((4..60).contains(&tries), "{tries} tries in ten minutes");
    toy.refuse.clear();
    toy.run(600);
    toy.assert_all_run(2);
}

fn pool_write(command: &Command) -> Option<u64> {
    match command {
        Command::Pool { write, .. } => Some(*write),
        _ => None,
    }
}

/// Whatever pool it is counted for: one that is made may be there in a moment.
#[test]
fn a_deleted_pool_stays_while_a_bootcnode_of_it_is_made() {
    for seed in 0..20 {
        let mut toy = Toy::new(3, seed);
        let makes = |it: &Effect| matches!(it, Effect::Create { .. });
        let made = |toy: &Toy| {
            toy.commands.iter().find_map(|it| match it {
                Command::Decide(it) if it.effects.iter().any(makes) => Some(it.clone()),
                _ => None,
            })
        };
        assert!(toy.until(|toy| made(toy).is_some()), "seed {seed}");
        let made = made(&toy).unwrap();
        let pool = toy.pools.get_mut(&"p".into()).unwrap();
        pool.deleting = true;
        let pool = pool.clone();
        let goes = |it: &Command| matches!(it, Command::Pool { what, .. } if *what == PoolWrite::RemoveFinalizer);
        let writes: Vec<u64> = toy.commands.iter().filter_map(pool_write).collect();
        for write in writes {
            toy.feed(Input::PoolDone {
                pool: "p".into(),
                write,
                outcome: Outcome::Ok,
            });
        }
        // On its way, and done but not seen.
        toy.feed(Input::Pool("p".into(), Some(pool)));
        assert!(!toy.commands.iter().any(goes), "seed {seed}");
        toy.feed(Input::Done {
            node: made.node,
            decision: made.id,
            done: made.effects.len(),
            outcome: Outcome::Ok,
        });
        assert!(!toy.commands.iter().any(goes), "seed {seed}");
        toy.run(60);
        assert!(toy.pools.is_empty() && toy.bootc.is_empty(), "seed {seed}");
        assert!(toy.nodes.values().all(|node| !node.labelled), "seed {seed}");
    }
}

fn slots_asked_for(toy: &Toy) -> usize {
    let slot = |effect: &Effect| matches!(effect, Effect::Commit(it) if it.in_reboot_slot);
    let decided = |it: &&Command| matches!(it, Command::Decide(it) if it.effects.iter().any(slot));
    toy.commands.iter().filter(decided).count()
}

/// A grant whose write got no answer is no grant any more when what `change` does forbids it; what it
/// was is settled by another write.
fn is_not_asked_for_again(toy: &mut Toy, change: impl Fn(&mut Toy, bool)) {
    toy.host("w2").silent = true;
    toy.edit_pool("p", |pool| pool.spec.paused = true);
    toy.want(2);
    toy.run(60);
    let lost = Outcome::Failed("no answer".into());
    toy.refuse.insert("w1".into(), lost);
    toy.edit_pool("p", |pool| pool.spec.paused = false);
    toy.settle_news();
    assert_eq!(slots_asked_for(toy), 1);
    change(toy, true);
    toy.settle_news();
    toy.refuse.clear();
    toy.pass(300);
    assert_eq!(slots_asked_for(toy), 1, "asked for again");
    let holders = &toy.rollout.sum(&"p".into()).unwrap().holders;
    assert!(holders.is_empty(), "nobody holds a slot: {holders:?}");
    change(toy, false);
    toy.host("w2").silent = false;
    toy.run(600);
    toy.assert_all_run(2);
}

#[test]
fn a_grant_without_an_answer_is_not_asked_for_again_in_a_paused_pool() {
    is_not_asked_for_again(&mut Toy::new(2, 3), |toy, paused| {
        toy.edit_pool("p", |pool| pool.spec.paused = paused);
    });
}

#[test]
fn a_grant_without_an_answer_is_not_asked_for_again_beside_a_dead_control_plane_node() {
    let mut toy = Toy::new(2, 3);
    for name in ["w1", "w2"] {
        toy.edit_node(name, |node| node.control_plane = true);
    }
    is_not_asked_for_again(&mut toy, |toy, dead| {
        let now = toy.now;
        toy.edit_node("w2", |node| {
            (node.ready, node.ready_since) = (Some(!dead), Some(now));
        });
    });
}

/// What a failed reboot left unlocked is dropped when the image is not wanted any more.
#[test]
fn what_a_failed_reboot_left_unlocked_is_dropped() {
    let mut facts = hosts::facts("A B -", "B@now");
    let attempt = host::Attempt {
        digest: "B".into(),
        boot: "now".into(),
        at: Timestamp(1),
        rollback: None,
        retry: None,
    };
    let record = Record {
        state: host::State::Rebooting,
        image: Some("r/os@B".into()),
        attempt: Some(attempt.clone()),
        ..Record::default()
    };
    let failed = hosts::ended(host::Task::Confirm, "B", Some("no answer"));
    let step = host::step(record, &facts, &failed);
    assert_eq!(step.record.state, host::State::Idle);
    facts.wanted = hosts::wanted("A");
    let next = host::step(step.record.clone(), &facts, &News::None);
    assert_eq!(hosts::does(next.effect.as_ref()), "Unstage");
    // And so it is after a restart of the agent.
    let reported = host::Reported {
        report: Some(hosts::report(&Record {
            attempt: Some(attempt),
            ..step.record
        })),
        boot: Some("now".into()),
        booted: Some("A".into()),
        staged: Some("r/os@B".into()),
    };
    let record = Record::resume(reported, &facts);
    let next = host::step(record, &facts, &News::None);
    assert_eq!(hosts::does(next.effect.as_ref()), "Unstage");
}

/// The condition is for people: that it is refused must not cost more than a try now and then.
#[test]
fn a_refused_condition_waiting_is_repeated_with_pauses() {
    let mut toy = draining(1, 1);
    let mut rollout = toy.rollout.clone();
    let mut now = toy.now;
    let mut writes = 0;
    let pods = |n: usize| {
        fsm::input::DrainReport::Pods(vec![fsm::input::BlockedPod {
            pod: format!("shop/{n}"),
            why: Some("no".into()),
        }])
    };
    let attempt = toy.record("w1").attempt;
    for n in 0..300 {
        now = now + Seconds(1);
        let mut inputs = vec![fsm::Input::Drain {
            node: "w1".into(),
            attempt,
            report: pods(n),
        }];
        while let Some(input) = inputs.pop() {
            for command in rollout.handle(now, input) {
                if let Command::Waiting { node, .. } = command {
                    writes += 1;
                    assert!(writes < 100, "it is written without a pause");
                    let outcome = Outcome::Refused("no".into());
                    inputs.push(fsm::Input::WaitingDone { node, outcome });
                }
            }
        }
    }
    assert!(writes > 1, "{writes}");
    toy.run(1);
}

/// A cluster of one node whose approval was written, of which the operator got no answer and has no
/// news yet. News of what `change` does come first.
fn approved_unheard(change: impl FnOnce(&mut Toy)) -> Toy {
    let mut toy = draining(1, 1);
    toy.refuse
        .insert("w1".into(), Outcome::Failed("no answer".into()));
    toy.commands.clear();
    toy.unblock("w1");
    let approves = |effect: &Effect| match effect {
        Effect::Commit(write) if write.spec.booted => Some(write.clone()),
        _ => None,
    };
    let approval = |toy: &Toy| {
        toy.commands.iter().find_map(|it| match it {
            Command::Decide(it) => it.effects.iter().find_map(approves),
            _ => None,
        })
    };
    assert!(toy.until(|toy| approval(toy).is_some()));
    toy.settle_news();
    toy.refuse.clear();
    let write = approval(&toy).unwrap();
    toy.commands.clear();
    change(&mut toy);
    toy.edit_bootc("w1", |bootc| {
        bootc.generation += 1;
        bootc.spec = write.spec;
        bootc.kept = Kept::Is(write.record);
    });
    toy
}

/// It was uncordoned first, and could reboot with new pods on it.
#[test]
fn an_approval_without_an_answer_is_taken_back_before_the_cordon_of_a_node_that_leaves() {
    let mut toy = approved_unheard(|toy| toy.edit_pool("p", |pool| pool.deleting = true));
    toy.run(60);
    let effects: Vec<&Effect> = toy
        .commands
        .iter()
        .filter_map(|it| match it {
            Command::Decide(it) => Some(&it.effects),
            _ => None,
        })
        .flatten()
        .collect();
    let first = |what: Effect| effects.iter().position(|it| **it == what).unwrap();
    assert!(
        first(Effect::Delete) < first(Effect::Uncordon),
        "{effects:?}"
    );
    assert!(toy.pools.is_empty() && toy.bootc.is_empty());
}

/// The same where the node stays and only its slot goes.
#[test]
fn an_approval_without_an_answer_is_settled_before_a_slot_is_given_back() {
    let mut toy = approved_unheard(|toy| {
        toy.add_pool("q", toy::pool_spec(toy::image(2)));
        toy.edit_node("w1", |node| {
            node.claims.insert("q".into());
        });
    });
    toy.settle_news();
    while toy.host("w1").reboots == 0 {
        let name = "w1".into();
        let (node, bootc) = (&toy.nodes[&name], &toy.bootc[&name]);
        assert!(bootc.spec.booted && node.cordoned, "{}", toy.log.join("\n"));
        assert!(toy.step(), "it never reboots");
    }
    toy.edit_node("w1", |node| {
        node.claims.remove(&"q".into());
    });
    toy.edit_pool("q", |pool| pool.deleting = true);
    toy.run(600);
    toy.assert_all_run(2);
}
