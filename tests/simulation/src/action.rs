//! What happens in a schedule, beside what operators, agents and hosts do by themselves.

use fastrand::Rng;

use crate::{cluster::Sent, host::Fate, operator::Kind};

/// How a schedule begins.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) nodes: u8,
    /// A second pool.
    pub(crate) two_pools: bool,
    /// Slots of each pool.
    pub(crate) slots: u8,
    /// The first nodes are of the control plane.
    pub(crate) control_plane: u8,
    /// Hosts lock what is staged, drop it, and can reboot softly.
    pub(crate) able: bool,
    pub(crate) soft: bool,
    /// Agents tell what the Go daemon tells.
    pub(crate) plain: bool,
}

/// One thing that happens. Nodes, pools and images are numbers, taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Everybody goes on, in an order drawn from `seed`.
    Go {
        seed: u32,
        steps: u8,
    },
    /// Time passes.
    Pass {
        seconds: u16,
    },
    /// A pool wants an image.
    Want {
        pool: u8,
        image: u8,
    },
    /// A pool wants a tag.
    WantTag {
        pool: u8,
        tag: u8,
    },
    MoveTag {
        tag: u8,
        image: u8,
    },
    Registry {
        down: bool,
    },
    Typo {
        pool: u8,
    },
    Pause {
        pool: u8,
        paused: bool,
    },
    Slots {
        pool: u8,
        slots: u8,
    },
    Share {
        pool: u8,
        percent: u8,
    },
    Room {
        pool: u8,
        room: Option<u8>,
    },
    Timeouts {
        pool: u8,
        drain: u16,
        reboot: u16,
    },
    MinReady {
        pool: u8,
        seconds: u16,
    },
    Secret {
        pool: u8,
        named: bool,
    },
    SecretContent,
    Retry {
        pool: u8,
        node: u8,
    },
    DeletePool {
        pool: u8,
    },
    CreatePool {
        pool: u8,
    },
    Claim {
        node: u8,
        pool: u8,
        claimed: bool,
    },
    Recreate {
        node: u8,
    },
    DeleteNode {
        node: u8,
    },
    DeleteBootcNode {
        node: u8,
    },
    /// Somebody's finalizer on a `BootcNode` comes or goes.
    Hold {
        node: u8,
        held: bool,
    },
    Spoil {
        node: u8,
        lost: bool,
    },
    Cordon {
        node: u8,
        cordoned: bool,
    },
    CutOff {
        node: u8,
        cut: bool,
    },
    Block {
        node: u8,
        blocked: bool,
    },
    Reboots {
        node: u8,
        fate: Fate,
    },
    BadPulls {
        node: u8,
        times: u8,
    },
    BadSteps {
        node: u8,
        times: u8,
    },
    Unreadable {
        node: u8,
        is: bool,
    },
    PowerCut {
        node: u8,
    },
    AdminReboot {
        node: u8,
    },
    AdminSwitch {
        node: u8,
        image: u8,
        locked: bool,
    },
    AdminRollback {
        node: u8,
    },
    LateFallBack {
        node: u8,
    },
    KillAgent {
        node: u8,
    },
    /// Our agents take over from the Go daemons.
    Upgrade,
    Fail {
        how: Sent,
        after: u8,
    },
    FailAgent {
        how: Sent,
        after: u8,
    },
    RefuseNode {
        node: u8,
        refused: bool,
    },
    KillOperator {
        late: bool,
    },
    Depose {
        steps: u8,
    },
    BreakWatch {
        kind: Kind,
    },
    StallWatch {
        kind: Kind,
        stalled: bool,
    },
    Clock {
        node: Option<u8>,
        seconds: i16,
    },
}

impl Setup {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            nodes: rng.u8(1..=4),
            two_pools: rng.u8(..3) == 0,
            slots: rng.u8(1..=3),
            control_plane: if rng.u8(..4) == 0 { rng.u8(1..=3) } else { 0 },
            able: rng.u8(..5) > 0,
            soft: rng.u8(..4) == 0,
            plain: rng.u8(..5) == 0,
        }
    }
}

/// A whole schedule: it begins with a wish, and goes on for a while after each thing.
pub(crate) fn draw(rng: &mut Rng) -> Vec<Action> {
    let mut all = vec![go(rng)];
    let scene = rng.u8(..40) == 0;
    if scene {
        all.extend(two_fall_back_while_one_drains());
    }
    all.push(Action::Want { pool: 0, image: 2 });
    if scene {
        all.extend([Action::Pass { seconds: 310 }, go(rng)]);
        all.push(Action::Retry { pool: 0, node: 1 });
        all.push(Action::Pass { seconds: 310 });
    }
    // Most schedules have few kinds of trouble, or everything hides everything.
    let few = rng.u8(..4) > 0;
    let kinds: Vec<u8> = (0..rng.u8(1..=3)).map(|_| rng.u8(..KINDS)).collect();
    for _ in 0..rng.u8(3..=14) {
        all.push(go(rng));
        let kind = if few && rng.u8(..5) > 0 {
            rng.choice(&kinds).copied().unwrap_or_default()
        } else {
            rng.u8(..KINDS)
        };
        all.push(trouble(kind, rng));
        if rng.u8(..6) == 0 {
            all.push(Action::Pass {
                seconds: *rng.choice(&[5, 40, 120, 310, 700, 1300]).unwrap_or(&5),
            });
        }
    }
    all.push(go(rng));
    all
}

/// What has to meet for a drain to run into a halt; single troubles hardly ever do.
fn two_fall_back_while_one_drains() -> [Action; 5] {
    let falls_back = |node| Action::Reboots {
        node,
        fate: Fate::FallsBack,
    };
    let (pool, node) = (0, 0);
    [
        Action::Slots { pool, slots: 3 },
        Action::Timeouts {
            pool,
            drain: 120,
            reboot: 0,
        },
        Action::Block {
            node,
            blocked: true,
        },
        falls_back(1),
        falls_back(2),
    ]
}

fn go(rng: &mut Rng) -> Action {
    Action::Go {
        seed: rng.u32(..),
        steps: rng.u8(1..=40),
    }
}

const KINDS: u8 = 36;

#[expect(clippy::too_many_lines, reason = "a table")]
fn trouble(kind: u8, rng: &mut Rng) -> Action {
    let (node, pool) = (rng.u8(..4), rng.u8(..2));
    let image = rng.u8(1..=4);
    let coin = rng.bool();
    let kinds = Kind::ALL;
    let watch = kinds[rng.usize(..kinds.len())];
    match kind {
        0 | 1 => Action::Want { pool, image },
        2 => Action::WantTag {
            pool,
            tag: rng.u8(..2),
        },
        3 => Action::MoveTag {
            tag: rng.u8(..2),
            image,
        },
        4 => match rng.u8(..4) {
            0 => Action::Registry { down: coin },
            1 => Action::Typo { pool },
            // More often named than not: a change of its content is nothing to a pool that names none.
            2 => Action::Secret {
                pool,
                named: coin || image > 1,
            },
            _ => Action::SecretContent,
        },
        5 => Action::Pause { pool, paused: coin },
        6 if coin => Action::Share {
            pool,
            percent: *rng.choice(&[0, 1, 34, 50, 100]).unwrap_or(&50),
        },
        6 => Action::Slots {
            pool,
            slots: rng.u8(..4),
        },
        7 => Action::Room {
            pool,
            room: coin.then(|| rng.u8(1..=2)),
        },
        8 => Action::Timeouts {
            pool,
            drain: *rng.choice(&[0, 60, 120]).unwrap_or(&0),
            reboot: *rng.choice(&[0, 60, 300]).unwrap_or(&0),
        },
        9 => Action::MinReady {
            pool,
            seconds: *rng.choice(&[0, 10, 60]).unwrap_or(&0),
        },
        10 => Action::Retry { pool, node },
        11 => Action::DeletePool { pool },
        12 => Action::CreatePool { pool },
        13 | 14 => Action::Claim {
            node,
            pool,
            claimed: coin,
        },
        15 => Action::Recreate { node },
        16 => match rng.u8(..4) {
            0 => Action::DeleteNode { node },
            1 => Action::DeleteBootcNode { node },
            2 => Action::Hold {
                node,
                held: coin || image > 1,
            },
            _ => Action::Spoil { node, lost: coin },
        },
        17 => Action::Cordon {
            node,
            cordoned: coin,
        },
        18 => Action::CutOff {
            node,
            cut: coin || image > 1,
        },
        19 => Action::Block {
            node,
            blocked: coin || image > 1,
        },
        20 | 21 => Action::Reboots {
            node,
            fate: *rng
                .choice(&[
                    Fate::FallsBack,
                    Fate::FallsBackQueued,
                    Fate::Lost,
                    Fate::StaysDown,
                    Fate::Hangs,
                    Fate::Refused,
                ])
                .unwrap_or(&Fate::Up),
        },
        22 => Action::BadPulls {
            node,
            times: rng.u8(..4),
        },
        23 => match rng.u8(..3) {
            0 => Action::Unreadable { node, is: coin },
            _ => Action::BadSteps {
                node,
                times: rng.u8(..5),
            },
        },
        24 => Action::PowerCut { node },
        25 => match rng.u8(..3) {
            0 => Action::AdminReboot { node },
            1 => Action::AdminSwitch {
                node,
                image,
                locked: coin,
            },
            _ => Action::AdminRollback { node },
        },
        26 => Action::LateFallBack { node },
        27 if image == 1 => Action::Upgrade,
        27 => Action::KillAgent { node },
        28 | 29 => Action::Fail {
            how: sent(rng),
            after: rng.u8(..6),
        },
        30 => Action::FailAgent {
            how: sent(rng),
            after: rng.u8(..4),
        },
        31 => Action::RefuseNode {
            node,
            refused: coin,
        },
        32 => Action::KillOperator { late: coin },
        33 => Action::Depose {
            steps: rng.u8(1..=30),
        },
        34 => {
            if coin {
                Action::BreakWatch { kind: watch }
            } else {
                Action::StallWatch {
                    kind: watch,
                    stalled: rng.u8(..3) > 0,
                }
            }
        }
        _ => Action::Clock {
            node: coin.then_some(node),
            seconds: *rng.choice(&[-3600, -60, 60, 3600]).unwrap_or(&60),
        },
    }
}

fn sent(rng: &mut Rng) -> Sent {
    *rng.choice(&[Sent::Refuse, Sent::Lose, Sent::Drop, Sent::Late])
        .unwrap_or(&Sent::Drop)
}

/// How often an action could not be done is counted by its name.
pub(crate) fn name(action: &Action) -> String {
    let text = format!("{action:?}");
    text.split([' ', '{', '('])
        .next()
        .unwrap_or_default()
        .to_owned()
}
