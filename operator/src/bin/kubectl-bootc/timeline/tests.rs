use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp(1_767_225_600_000 + seconds * 1000)
}

fn chart() -> Chart {
    let marks = [
        (State::Staging, at(0)),
        (State::Staged, at(10)),
        (State::Cordoned, at(20)),
        (State::Draining, at(20)),
        (State::Rebooting, at(30)),
        (State::Verifying, at(38)),
        (State::Idle, at(40)),
    ];
    let mut first = Bar::new("w1", &marks, at(100));
    first.note(at(25), "waiting for pod shop/web <1>");
    first.note(at(26), "waiting for pod shop/web <1>");
    let second = Bar::new("w2", &marks[..2], at(40));
    let idle = Bar::new("w3", &[(State::Idle, at(3))], at(40));
    Chart::new("workers", Some("r/os:2".into()), vec![first, second, idle]).unwrap()
}

#[test]
fn the_end_of_an_update_is_no_phase_and_nobody_without_one_is_drawn() {
    let chart = chart();
    assert_eq!((chart.from, chart.to), (at(0), at(40)));
    let names: Vec<_> = chart.nodes.iter().map(|bar| bar.node.as_str()).collect();
    assert_eq!(names, ["w1", "w2"]);
    assert_eq!(chart.nodes[0].phases.len(), 6);
    assert_eq!(chart.nodes[0].phases[3].waited_for.len(), 1);
    assert!(Chart::new("p", None, vec![]).is_err());
}

#[test]
fn who_knows_better_than_a_successor_when_it_was_is_believed() {
    let mut marks = [
        (State::Staging, at(0)),
        (State::Staged, at(19)),
        (State::Cordoned, at(20)),
        (State::Draining, at(31)),
        (State::Rebooting, at(32)),
    ];
    let known = [
        (State::Staging, State::Staged, vec![at(2)]),
        // Of the update before, of this one, and told again by the successor.
        (
            State::Cordoned,
            State::Draining,
            vec![at(-90), at(31), at(21)],
        ),
        (State::Rebooting, State::Verifying, vec![at(5)]),
    ];
    correct(&mut marks, &known);
    let times = marks.map(|(_, at)| at);
    assert_eq!(times, [at(0), at(2), at(20), at(21), at(32)]);
}

#[test]
fn a_chart_without_colours_has_letters() {
    let mut out = Vec::new();
    let style = crate::output::Style {
        width: Some(47),
        ..crate::output::Style::default()
    };
    draw::text(&chart(), &mut out, style).unwrap();
    let out = String::from_utf8(out).unwrap();
    let mut lines = out.lines().skip(1);
    assert_eq!(
        lines.next(),
        Some("w1    ggggggggggssssssssssddddddddddRRRRRRRRvv"),
        "{out}"
    );
    assert!(out.contains("40s") && out.contains("d Draining"), "{out}");
    assert!(!out.contains('\x1b'));
}

#[test]
fn a_picture_has_a_bar_a_phase_and_says_what_was_waited_for() {
    let svg = draw::svg(&chart());
    assert_eq!(svg.matches("<rect").count(), 1 + 6 + 2 + 6, "{svg}");
    assert!(svg.contains("waiting for pod shop/web &lt;1&gt;"));
}

#[test]
fn one_pool_needs_no_name() {
    let (a, b) = ("a".to_owned(), "b".to_owned());
    assert_eq!(one_of(None, &[&a]).unwrap(), "a");
    assert!(
        one_of(None, &[&a, &b])
            .unwrap_err()
            .to_string()
            .contains("a, b")
    );
    assert!(one_of(Some(&b), &[&a]).is_err());
}
