//! Prints the machine of one node as a table and as a drawing, by trying every event in every
//! state: `cargo run -p fsm --example table` prints what stands in `fsm/README.md`, and with
//! `--write` puts it there.

#[path = "../tests/every/holder.rs"]
mod holder;

use std::{collections::BTreeMap, fmt::Write as _};

use fsm::{
    Image, PoolName, Record, Running, State, Timestamp,
    command::Effect,
    node::{
        Approval, Drain, DrainStage, Event, Facts, Slot, Wanted,
        effects::{Extras, Site, effects},
        handle,
    },
    view::{Activity, NodeView, Owner, Report},
};

use holder::holder;

/// The generated part of the README stands between these.
pub(crate) const BEGIN: &str = "<!-- generated: cargo run -p fsm --example table -- --write -->\n";
/// The end of it.
pub(crate) const END: &str = "<!-- end of the generated part -->\n";

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// From this state.
    pub from: State,
    /// On this event.
    pub event: Event,
    /// To this one.
    pub to: State,
    /// What is done then, in order.
    pub effects: Vec<String>,
}

fn image(n: u8) -> Option<Image> {
    Image::of("r/os", &format!("sha256:{n}"))
}

/// A record as it typically is in this state. A node that is asked to use a slot has one.
fn typical(state: State, event: Event) -> Record {
    let down = matches!(state, State::Cordoned | State::Draining);
    let up = matches!(state, State::Rebooting | State::Verifying);
    let held = down
        || up
        || event == Event::SlotHeld
        || (event == Event::Contested && state != State::Idle);
    Record {
        state,
        image: image(1),
        slot: held.then_some(Slot {
            was_cordoned: false,
            since: Timestamp(0),
        }),
        approval: up.then(|| Approval {
            boot: Some("b1".into()),
            before: None,
            at: Timestamp(0),
        }),
        attempt: u32::from(held),
        ..Record::default()
    }
}

fn row(from: State, event: Event) -> Option<Row> {
    let record = typical(from, event);
    let pool = PoolName::from("pool");
    let cordoned = record.slot.is_some() && from != State::Cordoned && event != Event::CordonLost;
    let node = NodeView {
        labelled: true,
        cordoned: cordoned || event == Event::CordonSeen,
        cordoned_by: cordoned.then(|| pool.clone()),
        ..NodeView::default()
    };
    let report = Report {
        boot: Some("b1".into()),
        booted: Some(Running {
            image: None,
            digest: "sha256:0".into(),
        }),
        activity: Activity::Staged,
        ..Report::default()
    };
    let drain = Drain {
        attempt: 1,
        stage: DrainStage::Running,
    };
    let facts = Facts {
        wanted: image(2).map_or(Wanted::Unknown, Wanted::Wants),
        node: Some(&node),
        report: Some(&report),
        drain: (from == State::Draining && event != Event::Drained).then_some(&drain),
        ..Facts::default()
    };
    let bootc = holder(&record, Some(&report));
    let owner = Owner {
        pool,
        uid: String::new(),
    };
    let after = handle(&record, &facts, event);
    if after == record {
        return None;
    }
    let site = Site {
        owner: Some(&owner),
        extras: &Extras::default(),
        bootc: Some(&bootc),
        kept: Some(&record),
        doubtful: false,
    };
    let effects = effects(&after, &facts, &site).iter().map(text).collect();
    Some(Row {
        from,
        event,
        to: after.state,
        effects,
    })
}

fn text(effect: &Effect) -> String {
    match effect {
        Effect::Commit(write) => {
            let state = if write.spec.booted {
                "Booted"
            } else {
                "Staged"
            };
            let slot = if write.in_reboot_slot { ", slot" } else { "" };
            format!("Commit({state}{slot})")
        }
        Effect::Cordon { .. } => "Cordon".into(),
        Effect::StartDrain { .. } => "StartDrain".into(),
        other => format!("{other:?}"),
    }
}

/// All transitions, in the order of a rollout and of urgency.
#[must_use]
pub(crate) fn rows() -> Vec<Row> {
    let pairs = State::ALL
        .into_iter()
        .flat_map(|from| Event::ALL.map(|event| (from, event)));
    pairs.filter_map(|(from, event)| row(from, event)).collect()
}

/// The generated part of the README.
#[must_use]
pub(crate) fn render() -> String {
    let rows = rows();
    let mut out = String::from("| from | event | to | done |\n|---|---|---|---|\n");
    for row in &rows {
        let _ = writeln!(
            out,
            "| {} | {:?} | {} | {} |",
            row.from,
            row.event,
            row.to,
            row.effects.join(", ")
        );
    }
    out.push_str("\n```mermaid\nstateDiagram-v2\n    [*] --> Idle\n");
    let mut arrows: BTreeMap<(State, State), Vec<String>> = BTreeMap::new();
    for row in rows
        .iter()
        .filter(|row| row.from != row.to && is_drawn(row.event))
    {
        arrows
            .entry((row.from, row.to))
            .or_default()
            .push(format!("{:?}", row.event));
    }
    for ((from, to), events) in arrows {
        let _ = writeln!(out, "    {from} --> {to}: {}", events.join(", "));
    }
    out.push_str("    Leaving --> [*]\n```\n\nNot drawn, since they lead there from every state: Left to Leaving, Revoked and Retargeted to\nStaging, RevokedToBooted to Verifying, RetargetedToBooted to Idle.\n");
    out
}

fn is_drawn(event: Event) -> bool {
    use Event as E;
    !matches!(
        event,
        E::Left | E::Revoked | E::Retargeted | E::RevokedToBooted | E::RetargetedToBooted
    )
}

/// The README with the generated part replaced; `None` if its marks are not there.
#[must_use]
pub(crate) fn put_into(readme: &str) -> Option<String> {
    let (head, rest) = readme.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}{}{END}{tail}", render()))
}

#[allow(
    dead_code,
    reason = "the test that compares the README includes this file as a module"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() != Some("--write") {
        print!("{}", render());
        return Ok(());
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = put_into(&std::fs::read_to_string(path)?).ok_or("README.md has no marks")?;
    Ok(std::fs::write(path, readme)?)
}
