//! The machine of one node, row by row.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

#[path = "../examples/table.rs"]
mod table;

/// `from | event | to | effects`, for a typical node in that state.
const ROWS: &str = "
    Idle | Left | Leaving | Unlabel, Delete
    Idle | Revoked | Staging | Commit(Staged)
    Idle | RevokedToBooted | Verifying | Commit(Staged)
    Idle | Retargeted | Staging | Commit(Staged)
    Idle | RetargetedToBooted | Idle | Commit(Staged)
    Idle | Unbooted | Staging |
    Staging | Left | Leaving | Unlabel, Delete
    Staging | Contested | Staging | Uncordon, Commit(Staged)
    Staging | Revoked | Staging | Commit(Staged)
    Staging | RevokedToBooted | Verifying | Commit(Staged)
    Staging | Retargeted | Staging | Commit(Staged)
    Staging | RetargetedToBooted | Idle | Commit(Staged)
    Staging | Booted | Verifying |
    Staging | Staged | Staged |
    Staged | Left | Leaving | Unlabel, Delete
    Staged | Contested | Staged | Uncordon, Commit(Staged)
    Staged | Revoked | Staging | Commit(Staged)
    Staged | RevokedToBooted | Verifying | Commit(Staged)
    Staged | Retargeted | Staging | Commit(Staged)
    Staged | RetargetedToBooted | Idle | Commit(Staged)
    Staged | Booted | Verifying |
    Staged | Unstaged | Staging |
    Staged | SlotHeld | Cordoned | Commit(Staged, slot)
    Staged | Granted | Cordoned | Commit(Staged, slot), Cordon
    Cordoned | Left | Leaving | Unlabel, Delete
    Cordoned | Contested | Staged | Commit(Staged)
    Cordoned | Revoked | Staging | Commit(Staged, slot)
    Cordoned | RevokedToBooted | Verifying | Commit(Staged, slot)
    Cordoned | Retargeted | Staging | Commit(Staged, slot)
    Cordoned | RetargetedToBooted | Idle | Commit(Staged)
    Cordoned | Booted | Verifying | Commit(Staged, slot)
    Cordoned | Dead | Staged | Commit(Staged)
    Cordoned | CordonSeen | Draining | StartDrain
    Draining | Left | Leaving | CancelDrain, Uncordon, Unlabel, Delete
    Draining | Contested | Staged | CancelDrain, Uncordon, Commit(Staged)
    Draining | Revoked | Staging | CancelDrain, Commit(Staged, slot)
    Draining | RevokedToBooted | Verifying | CancelDrain, Commit(Staged, slot)
    Draining | Retargeted | Staging | CancelDrain, Commit(Staged, slot)
    Draining | RetargetedToBooted | Idle | CancelDrain, Uncordon, Commit(Staged)
    Draining | Booted | Verifying | CancelDrain, Commit(Staged, slot)
    Draining | Dead | Staged | CancelDrain, Uncordon, Commit(Staged)
    Draining | Drained | Rebooting | Commit(Booted, slot)
    Draining | DrainLate | Staged | CancelDrain, Uncordon, Commit(Staged)
    Draining | CordonLost | Cordoned | CancelDrain, Cordon
    Rebooting | Left | Leaving | Delete, Uncordon, Unlabel
    Rebooting | Revoked | Staging | Commit(Staged, slot)
    Rebooting | RevokedToBooted | Verifying | Commit(Staged, slot)
    Rebooting | Retargeted | Staging | Commit(Staged, slot)
    Rebooting | RetargetedToBooted | Idle | Uncordon, Commit(Staged)
    Rebooting | Booted | Verifying |
    Rebooting | Returned | Staging | Commit(Staged, slot)
    Rebooting | Strayed | Staging | Commit(Staged, slot)
    Verifying | Left | Leaving | Delete, Uncordon, Unlabel
    Verifying | Revoked | Staging | Commit(Staged, slot)
    Verifying | RevokedToBooted | Verifying | Commit(Staged, slot)
    Verifying | Retargeted | Staging | Commit(Staged, slot)
    Verifying | RetargetedToBooted | Idle | Uncordon, Commit(Staged)
    Verifying | Returned | Staging | Commit(Staged, slot)
    Verifying | Strayed | Staging | Commit(Staged, slot)
    Verifying | Proven | Idle | Uncordon, Commit(Booted)
";

/// A row as it stands in [`ROWS`].
fn line(row: &table::Row) -> String {
    let effects = row.effects.join(", ");
    let line = format!("{} | {:?} | {} | {effects}", row.from, row.event, row.to);
    line.trim_end().to_owned()
}

#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    let rows: Vec<String> = table::rows().iter().map(line).collect();
    let expected: Vec<&str> = ROWS
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    for (is, wanted) in rows.iter().zip(&expected) {
        assert_eq!(is, wanted);
    }
    assert_eq!(rows.len(), expected.len(), "rows that one of both has not");
}

#[test]
fn the_readme_shows_the_machine_as_it_is() {
    let readme = include_str!("../README.md");
    let wanted = table::put_into(readme).unwrap();
    assert!(
        readme == wanted,
        "fsm/README.md is out of date: run `cargo run -p fsm --example table -- --write`"
    );
}
