//! The committed field reference is the one that the types give.

#[path = "../examples/reference.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod reference;

#[test]
fn the_committed_page_is_the_printed_one() {
    let committed = std::fs::read_to_string(reference::FILE).unwrap_or_default();
    assert!(
        committed == reference::page(),
        "deploy/docs/reference.md is out of date: run `cargo run -p crd --example reference -- --write`"
    );
}

#[test]
fn every_field_has_a_meaning() {
    let page = reference::page();
    let bare: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `") && line.ends_with("|  |"))
        .collect();
    assert!(bare.is_empty(), "no words about {bare:#?}");
}
