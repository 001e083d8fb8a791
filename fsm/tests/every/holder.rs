//! The object that a record stands in; the example that prints the table uses it too.

use std::sync::Arc;

use fsm::{
    Record,
    view::{BootcNodeView, Kept, NodeSpec, Report},
};

/// The `BootcNode` that holds this record.
pub(crate) fn holder(record: &Record, report: Option<&Report>) -> BootcNodeView {
    BootcNodeView {
        uid: "b".to_owned(),
        generation: 1,
        spec: NodeSpec {
            image: record.image.clone(),
            booted: record.approval.is_some(),
            approved_boot: record
                .approval
                .as_ref()
                .and_then(|approval| approval.boot.clone()),
            ..NodeSpec::default()
        },
        kept: Kept::Is(Arc::new(record.clone())),
        in_reboot_slot: record.slot.is_some(),
        was_cordoned: record.slot.as_ref().map(|slot| slot.was_cordoned),
        report: report.cloned().map(Arc::new),
        ..BootcNodeView::default()
    }
}
