//! Every kind of record with every kind of facts.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part"
)]

mod holder;

use fsm::{
    Image, PoolName, Record, Running, State, Timestamp,
    command::Effect,
    node::{
        Approval, Drain, DrainStage, Facts, Slot, Wanted,
        effects::{Extras, Site, effects},
        step,
    },
    view::{Activity, AgentFault, AgentFaultKind, NodeView, Owner, Report},
};

use holder::holder;

pub const NOW: Timestamp = Timestamp(10_000_000);
pub const LONG_AGO: Timestamp = Timestamp(1_000_000);

fn image(n: u8) -> Image {
    Image::of("r/os", &format!("sha256:{n}")).unwrap()
}

fn running(n: u8) -> Running {
    Running {
        image: None,
        digest: format!("sha256:{n}"),
    }
}

/// The record's image is 2, the host ran 1 before; 3 is any other one.
fn records() -> Vec<Record> {
    let mut all = Vec::new();
    for state in State::ALL {
        for slot in [false, true] {
            let needs_slot = matches!(state, State::Cordoned | State::Draining | State::Rebooting);
            if (needs_slot && !slot) || (state == State::Idle && slot) {
                continue;
            }
            for approval in [None, Some("b1"), Some("b0")] {
                // How often it was tried matters to a slot that is still to be used.
                for tries in if state == State::Staged {
                    vec![0, 3]
                } else {
                    vec![0]
                } {
                    all.push(Record {
                        state,
                        since: LONG_AGO,
                        clock: LONG_AGO,
                        written: LONG_AGO,
                        image: Some(image(2)),
                        slot: slot.then_some(Slot {
                            was_cordoned: false,
                            since: LONG_AGO,
                        }),
                        approval: approval.map(|boot| Approval {
                            boot: Some(boot.to_owned()),
                            before: Some("sha256:1".to_owned()),
                            at: LONG_AGO,
                        }),
                        attempt: 1,
                        tries,
                        node_uid: "n".to_owned(),
                        ..Record::default()
                    });
                }
            }
        }
    }
    all
}

fn nodes() -> Vec<Option<NodeView>> {
    let mut all = vec![None];
    for (ready, since) in [(true, LONG_AGO), (false, NOW), (false, LONG_AGO)] {
        for by in [None, Some("them"), Some("us")] {
            all.push(Some(NodeView {
                uid: "n".to_owned(),
                labelled: true,
                cordoned: by.is_some(),
                cordoned_by: (by == Some("us")).then(|| PoolName::from("p")),
                ready: Some(ready),
                ready_since: Some(since),
                boot_id: Some("b1".to_owned()),
                ..NodeView::default()
            }));
        }
    }
    all
}

fn reports() -> Vec<Option<Report>> {
    let mut all = vec![None];
    for activity in [Activity::Idle, Activity::Staging, Activity::Staged] {
        for booted in [1, 2, 3] {
            for staged in [Some(3), Some(2)] {
                for boot in ["b1", "b2"] {
                    for fault in [
                        None,
                        Some(AgentFaultKind::Error),
                        Some(AgentFaultKind::FellBack),
                    ] {
                        all.push(Some(Report {
                            observed_generation: Some(1),
                            boot: Some(boot.to_owned()),
                            booted: Some(running(booted)),
                            staged: staged.map(running),
                            activity,
                            degraded: fault.map(|kind| AgentFault {
                                kind,
                                message: String::new(),
                            }),
                            steps: Vec::new(),
                        }));
                    }
                }
            }
        }
    }
    all
}

fn drains() -> Vec<Option<Drain>> {
    let drain = |attempt, stage| Some(Drain { attempt, stage });
    vec![
        None,
        drain(1, DrainStage::Running),
        drain(1, DrainStage::Done),
        drain(1, DrainStage::Void),
        drain(0, DrainStage::Done),
    ]
}

/// What the pool makes of the node.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
struct Wish {
    wanted: Wanted,
    contested: bool,
    granted: bool,
    halted: bool,
    room: bool,
}

fn wishes() -> Vec<Wish> {
    let plain = |wanted| Wish {
        wanted,
        contested: false,
        granted: false,
        halted: false,
        room: true,
    };
    let mut all = vec![plain(Wanted::Left)];
    for wanted in [
        Wanted::Unknown,
        Wanted::Wants(image(1)),
        Wanted::Wants(image(2)),
        Wanted::Wants(image(3)),
    ] {
        let plain = || plain(wanted.clone());
        all.extend([
            plain(),
            Wish {
                contested: true,
                ..plain()
            },
            Wish {
                granted: true,
                ..plain()
            },
            Wish {
                halted: true,
                ..plain()
            },
            Wish {
                room: false,
                ..plain()
            },
        ]);
    }
    all
}

/// What a step makes of a record.
pub struct Outcome {
    pub after: Record,
    pub effects: Vec<Effect>,
}

/// One decision, as the rollout makes it.
pub fn decide(record: &Record, facts: &Facts<'_>) -> Outcome {
    let owner = Owner {
        pool: "p".into(),
        uid: "p".to_owned(),
    };
    let bootc = holder(record, facts.report);
    let extras = Extras::default();
    let site = Site {
        owner: Some(&owner),
        extras: &extras,
        bootc: Some(&bootc),
        kept: Some(record),
        doubtful: false,
    };
    let after = step(record, facts, |next| {
        !effects(next, facts, &site).is_empty()
    });
    let effects = effects(&after, facts, &site);
    Outcome { after, effects }
}

/// Tries all of them.
pub fn each(mut check: impl FnMut(&Record, &Facts<'_>)) {
    let (nodes, reports, drains) = (nodes(), reports(), drains());
    for record in records() {
        for wish in wishes() {
            for node in &nodes {
                for report in &reports {
                    for drain in &drains {
                        let facts = Facts {
                            now: NOW,
                            wanted: wish.wanted.clone(),
                            contested: wish.contested,
                            granted: wish.granted,
                            room: wish.room,
                            halted: wish.halted,
                            node: node.as_ref(),
                            generation: 1,
                            report: report.as_ref(),
                            drain: drain.as_ref(),
                            ..Facts::default()
                        };
                        check(&record, &facts);
                    }
                }
            }
        }
    }
}
