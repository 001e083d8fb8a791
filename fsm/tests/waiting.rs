//! Why a node does not go on: whatever is known of it, there is a reason, and the right one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod every;
mod toy;

use std::collections::{BTreeMap, BTreeSet};

use every::{Outcome, decide, each};
use fsm::{
    Command, Input, PoolName, Record, Timestamp,
    input::BlockedPod,
    node::{
        Facts, State,
        health::{self, Problem},
        waiting::{Outside, WaitingOn, waiting_on},
    },
    time::Seconds,
    view::{Amount, ImageRef, PoolSpec},
};
use toy::{Toy, image};

/// What a node that came to rest waits for.
fn asked(record: &Record, facts: &Facts<'_>, paused: bool, busy: bool) -> Option<WaitingOn> {
    let problem = health::problem(record, facts, None);
    let rivals = facts.contested.then(|| PoolName::from("q"));
    let outside = Outside {
        pool: &"p".into(),
        ready: true,
        paused,
        control_plane_busy: busy,
        rivals: &rivals.into_iter().collect(),
        pods: &[],
    };
    waiting_on(record, facts, problem.as_ref(), outside)
}

#[test]
fn every_state_in_which_a_node_can_stay_has_a_reason() {
    let mut stays: BTreeMap<&str, BTreeSet<State>> = BTreeMap::new();
    each(|record, facts| {
        // A slot is given to nodes that have come to rest, in a step of its own.
        let Outcome { after, effects } = decide(record, facts);
        if !effects.is_empty() || facts.granted {
            return;
        }
        let fresh = Record {
            written: every::NOW,
            ..after.clone()
        };
        for (after, paused, busy) in [
            (&after, false, false),
            (&after, true, false),
            (&after, false, true),
            (&fresh, false, false),
        ] {
            let reason = asked(after, facts, paused, busy);
            let rests = health::is_updated(after, facts);
            assert!(reason.is_some() || rests, "no reason: {after:?}\n{facts:?}");
            if let Some(reason) = reason {
                stays.entry(reason.label()).or_default().insert(after.state);
            }
        }
    });
    // Every reason that can be found here is, and where it belongs.
    let all: Vec<String> = stays
        .iter()
        .map(|(label, states)| {
            let states: Vec<_> = states.iter().map(ToString::to_string).collect();
            format!("{label}: {}", states.join(" "))
        })
        .collect();
    println!("{}", all.join("\n"));
    for (label, states) in [
        ("AgentReport", "Idle Staging Rebooting Verifying"),
        ("ControlPlane", "Staged"),
        ("Drain", "Draining"),
        ("Kubelet", "Verifying"),
        ("NotReady", "Staged Verifying"),
        ("Paused", "Staged"),
        ("RebootSlot", "Staged"),
        ("Rebooting", "Rebooting"),
        ("RolloutHalted", "Staged Draining"),
        ("Staging", "Staging Draining"),
        ("TargetUnknown", "Staged"),
    ] {
        let line = format!("{label}: {states}");
        assert!(all.contains(&line), "not {line}:\n{}", all.join("\n"));
    }
}

/// One of each.
fn all() -> Vec<WaitingOn> {
    let pool = || PoolName::from("p");
    let pod = BlockedPod {
        pod: "ns/web".into(),
        why: None,
    };
    let problem = Problem {
        label: "FellBack",
        text: "it fell back".into(),
    };
    vec![
        WaitingOn::Problem(problem),
        WaitingOn::Conflict([pool()].into()),
        WaitingOn::Pool(pool()),
        WaitingOn::Target(pool()),
        WaitingOn::StagingRoom(pool()),
        WaitingOn::Stage(Some(image(2))),
        WaitingOn::Report,
        WaitingOn::Slot(pool()),
        WaitingOn::ControlPlane,
        WaitingOn::Paused(pool()),
        WaitingOn::Halted {
            pool: pool(),
            drained: false,
        },
        WaitingOn::Cordon,
        WaitingOn::Pods(vec![pod]),
        WaitingOn::Reboot(None),
        WaitingOn::NotReady,
        WaitingOn::Kubelet,
        WaitingOn::MinReady(Seconds(30)),
        WaitingOn::Release,
    ]
}

#[test]
fn names_are_unique_and_fit_a_conditions_reason() {
    let labels: BTreeSet<_> = all().iter().map(WaitingOn::label).collect();
    assert_eq!(labels.len(), all().len());
    for on in all() {
        let label = on.label();
        assert!(
            label.starts_with(|c: char| c.is_ascii_uppercase()),
            "{label}"
        );
        assert!(label.chars().all(|c| c.is_ascii_alphanumeric()), "{label}");
        assert!(on.to_string().len() > 5 && !on.to_string().ends_with('.'));
    }
}

fn label(toy: &Toy, node: &str) -> Option<&'static str> {
    Some(toy.rollout.waiting(&node.into())?.on.label())
}

/// Whenever nobody can make a step, each node runs what it shall or says what it waits for.
fn nobody_rests_without_reason(toy: &Toy) {
    for name in toy.bootc.keys() {
        let updated = toy.rollout.record(name).is_some_and(|record| {
            record.state == State::Idle && record.slot.is_none() && record.image.is_some()
        });
        let wait = toy.rollout.waiting(name);
        assert!(updated || wait.is_some(), "{name}: {:?}", toy.log);
    }
}

#[test]
fn a_rollout_shows_its_reasons_in_turn() {
    let mut toy = Toy::new(3, 5);
    toy.run(60);
    assert_eq!(label(&toy, "w1"), None, "it runs what it shall");
    toy.want(2);
    let mut seen = BTreeSet::new();
    while toy.step() {
        seen.extend(
            ["w1", "w2", "w3"]
                .iter()
                .filter_map(|node| label(&toy, node)),
        );
    }
    for reason in ["Staging", "RebootSlot", "Drain", "Rebooting"] {
        assert!(seen.contains(reason), "{reason} is missing: {seen:?}");
    }
    toy.run(60);
    toy.assert_all_run(2);
    assert_eq!(label(&toy, "w1"), None);
}

#[test]
fn what_holds_up_a_staged_node_is_named() {
    let mut toy = Toy::new(2, 1);
    toy.run(60);
    toy.edit_pool("p", |pool| pool.spec.paused = true);
    toy.want(2);
    toy.run(60);
    nobody_rests_without_reason(&toy);
    assert_eq!(label(&toy, "w1"), Some("Paused"));
    toy.edit_node("w1", |node| {
        (node.ready, node.ready_since) = (Some(false), Some(Timestamp(0)));
    });
    toy.edit_pool("p", |pool| {
        pool.spec.image = ImageRef::Invalid("no digest".into());
    });
    toy.settle();
    assert_eq!(label(&toy, "w1"), Some("NotReady"));
    assert_eq!(label(&toy, "w2"), Some("TargetUnknown"));
}

#[test]
fn a_halt_is_the_reason_of_those_that_it_keeps_from_a_slot() {
    let mut toy = Toy::new(4, 1);
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(2));
    toy.run(60);
    for node in ["w1", "w2"] {
        toy.host(node).falls_back = true;
    }
    toy.want(2);
    toy.run(120);
    nobody_rests_without_reason(&toy);
    assert_eq!(label(&toy, "w1"), Some("FellBack"));
    assert_eq!(label(&toy, "w3"), Some("RolloutHalted"));
    let waiting = toy.bootc[&"w3".into()].waiting.clone().unwrap();
    assert_eq!(waiting.reason, "RolloutHalted");
    assert!(waiting.message.starts_with("staged; pool p is halted"));
}

#[test]
fn room_to_stage_is_waited_for_in_every_state_without_a_slot() {
    let mut toy = Toy::new(3, 1);
    toy.edit_pool("p", |pool| {
        pool.spec.max_concurrent_staging = Some(Amount::Count(1));
        pool.spec.paused = true;
    });
    toy.run(60);
    toy.want(2);
    toy.run(60);
    assert_eq!(label(&toy, "w3"), Some("Paused"), "all are staged");
    for host in ["w1", "w2", "w3"] {
        toy.host(host).silent = true;
    }
    toy.want(3);
    toy.settle();
    nobody_rests_without_reason(&toy);
    let mut labels = ["w1", "w2", "w3"].map(|node| label(&toy, node).unwrap());
    labels.sort_unstable();
    assert_eq!(labels, ["AgentReport", "StagingRoom", "StagingRoom"]);
}

#[test]
fn the_control_plane_goes_down_one_by_one_and_says_so() {
    let mut toy = Toy::new(2, 1);
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(2));
    for node in ["w1", "w2"] {
        toy.edit_node(node, |node| node.control_plane = true);
        toy.blocked.insert(node.into());
    }
    toy.run(60);
    toy.want(2);
    toy.run(60);
    let labels: BTreeSet<_> = [label(&toy, "w1"), label(&toy, "w2")].into();
    assert_eq!(labels, [Some("ControlPlane"), Some("Drain")].into());
}

/// The name and the sentence are the same wherever they are told.
#[test]
fn condition_event_and_query_say_the_same() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
    toy.says_pods_wait("w1");
    toy.pass(6);
    let wait = toy.rollout.waiting(&"w1".into()).unwrap().clone();
    let shown = toy.bootc[&"w1".into()].waiting.clone().unwrap();
    let told = toy.commands.iter().find_map(|command| match command {
        Command::Notice(notice) if notice.action == "Wait" => Some(notice.clone()),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(
        (shown.reason.as_str(), &shown.message),
        (wait.on.label(), &wait.on.to_string())
    );
    assert_eq!((told.reason, told.note), (shown.reason, shown.message));
    assert!(wait.since < toy.now);
}

/// The host's own work is no wait before it has taken a minute.
#[test]
fn work_is_shown_as_a_wait_once_it_takes_its_time() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.host("w1").stays_down = true;
    toy.want(2);
    let shown = |toy: &Toy| {
        let waiting = toy.bootc[&"w1".into()].waiting.clone();
        waiting.filter(|it| it.waiting).map(|it| it.reason)
    };
    assert!(toy.until(|toy| label(toy, "w1") == Some("Rebooting")));
    toy.pass(50);
    assert_eq!((label(&toy, "w1"), shown(&toy)), (Some("Rebooting"), None));
    toy.pass(15);
    assert_eq!(shown(&toy).as_deref(), Some("Rebooting"));
}

/// When waits for this reason were shown.
fn shown(toy: &Toy, reason: &str) -> Vec<Timestamp> {
    let is = |command: &&Command| matches!(command, Command::Waiting { waiting, .. } if waiting.reason == reason);
    let each = toy.journal.iter();
    each.flat_map(|(at, _, commands)| commands.iter().filter(is).map(|_| *at))
        .collect()
}

/// So many nodes that are staged; `p` lets them wait for their slots, and is about to be paused. A node of
/// `q` will be drained, which its pods hold up.
fn many_are_staged(nodes: u32) -> Toy {
    let mut toy = Toy::new(nodes, 1);
    toy.add_pool("q", toy::pool_spec(image(1)));
    toy.add_node("x1", &["q"]);
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(0));
    toy.edit_pool("q", |pool| pool.spec.paused = true);
    toy.blocked.insert("x1".into());
    toy.run(60);
    for pool in ["p", "q"] {
        toy.edit_pool(pool, |pool| pool.spec.image = ImageRef::Pinned(image(2)));
    }
    toy.run(60);
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(1));
    toy.blocked.insert("w1".into());
    toy.run(60);
    assert_eq!(label(&toy, "w1"), Some("Drain"));
    assert_eq!(label(&toy, "w99"), Some("RebootSlot"));
    toy.journal.clear();
    toy.edit_pool("p", |pool| pool.spec.paused = true);
    toy
}

/// What many nodes begin to wait for at once is shown of twenty a second after the first fifty; a node
/// in its slot has not to wait for that.
#[test]
fn where_many_wait_they_are_shown_in_turn_and_slots_at_once() {
    let mut toy = many_are_staged(150);
    toy.edit_pool("q", |pool| pool.spec.paused = false);
    toy.run(60);
    let paused = shown(&toy, "Paused");
    assert_eq!(paused.len(), 149);
    let first = paused[0];
    assert_eq!(paused[49], first);
    for (n, at) in (1..).zip(&paused[50..]) {
        let turn = first.0 + 50 * n;
        assert!((turn..turn + 200).contains(&at.0), "{n}: {at:?} {first:?}");
    }
    let drain = shown(&toy, "Drain")[0];
    let since = toy.rollout.waiting(&"x1".into()).unwrap().since;
    assert!(drain.since(since) < 5_200, "{drain:?} {since:?}");
    assert!(first < drain && drain < paused[148], "{drain:?} {paused:?}");
}

/// A pool's spec is changed, and that is seen at once.
fn edit_at_once(toy: &mut Toy, pool: &str, edit: impl FnOnce(&mut PoolSpec)) {
    toy.edit_pool(pool, |pool| edit(&mut pool.spec));
    let view = toy.pools[&pool.into()].clone();
    toy.feed(Input::Pool(pool.into(), Some(view)));
}

/// What somebody must act on is not behind all that wait for a slot.
#[test]
fn a_warning_is_shown_before_those_who_take_turns() {
    let mut toy = many_are_staged(150);
    toy.edit_node("x1", |node| node.claims.extend([PoolName::from("p")]));
    toy.run(60);
    let (paused, conflict) = (shown(&toy, "Paused"), shown(&toy, "NodeConflict")[0]);
    let since = toy.rollout.waiting(&"x1".into()).unwrap().since;
    assert!(conflict.since(since) < 5_200, "{conflict:?} {since:?}");
    assert!(paused[0] < conflict && conflict < paused[148]);
}

/// However often what they wait for changes before their turns, the line is never longer than there are
/// nodes.
#[test]
fn waits_that_change_before_their_turns_hold_up_nobody() {
    let mut toy = many_are_staged(300);
    for n in 0..10 {
        edit_at_once(&mut toy, "p", |spec| {
            spec.image = match n % 2 {
                0 => ImageRef::Pinned(image(2)),
                _ => ImageRef::Invalid("no digest".into()),
            }
        });
        toy.now.0 += 5_100;
        toy.feed(Input::Tick);
    }
    toy.host("x1").silent = true;
    edit_at_once(&mut toy, "q", |spec| {
        spec.image = ImageRef::Pinned(image(3));
    });
    let begun = toy.now;
    assert!(toy.until(|toy| !shown(toy, "AgentReport").is_empty()));
    let took = shown(&toy, "AgentReport")[0].since(begun);
    assert!(took < 5_000 + 300 * 50 + 5_000, "{took} ms");
}

/// A node that goes on before its turn leaves no trace of its wait.
#[test]
fn a_wait_that_is_over_before_its_turn_is_not_shown() {
    let mut toy = many_are_staged(150);
    assert!(toy.until(|toy| shown(toy, "Paused").len() == 50));
    edit_at_once(&mut toy, "p", |spec| spec.paused = false);
    toy.run(60);
    let paused = shown(&toy, "Paused").len();
    assert!((50..75).contains(&paused), "{paused}");
}

/// That an agent does not answer is told long before it makes the node degraded.
#[test]
fn an_agents_silence_is_a_reason_at_once() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.host("w1").silent = true;
    toy.want(2);
    toy.pass(6);
    let waiting = toy.bootc[&"w1".into()].waiting.clone().unwrap();
    assert_eq!(
        (waiting.waiting, waiting.reason.as_str()),
        (true, "AgentReport")
    );
    toy.pass(601);
    assert_eq!(label(&toy, "w1"), Some("AgentSilent"));
}

#[test]
fn a_node_that_no_pool_can_take_says_why() {
    let mut toy = Toy::new(0, 1);
    toy.add_pool("q", toy::pool_spec(image(1)));
    toy.add_node("w1", &["p", "q"]);
    toy.run(60);
    assert_eq!(label(&toy, "w1"), Some("NodeConflict"));
    let mut toy = Toy::new(0, 1);
    toy.edit_pool("p", |pool| {
        pool.spec.image = ImageRef::Invalid("no digest".into());
    });
    toy.add_node("w1", &["p"]);
    toy.add_node("w2", &[]);
    toy.run(60);
    assert_eq!(label(&toy, "w1"), Some("TargetUnknown"));
    assert_eq!(label(&toy, "w2"), None, "no pool wants it");
}

/// The annotation tells the way of the last update, also when it is over.
#[test]
fn the_way_of_an_update_is_kept_until_the_next_one() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    for n in [2, 3] {
        toy.want(n);
        toy.run(60);
        let kept = &toy.bootc[&"w1".into()].kept;
        let fsm::view::Kept::Is(kept) = kept else {
            panic!("{kept:?}");
        };
        let states: Vec<_> = kept.path.iter().map(|mark| mark.state).collect();
        let wanted = State::ALL.map(|state| state)[1..7].to_vec();
        assert_eq!(states, [wanted, vec![State::Idle]].concat());
        assert!(kept.path.is_sorted_by_key(|mark| mark.at));
        assert!(toy.now.since(kept.path[0].at) < 120_000, "of this update");
    }
}

/// What a restart finds in an annotation may be over long ago: it takes no room to stage.
#[test]
fn room_to_stage_is_kept_after_a_restart() {
    let mut toy = Toy::new(3, 1);
    toy.edit_pool("p", |pool| {
        pool.spec.max_concurrent_staging = Some(Amount::Count(1));
    });
    toy.run(60);
    toy.start();
    for host in ["w1", "w2", "w3"] {
        toy.host(host).silent = true;
    }
    toy.want(2);
    toy.settle();
    let told = toy.bootc.values();
    let told = told.filter(|bootc| bootc.spec.image == Some(image(2)));
    assert_eq!(told.count(), 1);
}
