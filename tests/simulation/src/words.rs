//! Inputs and effects in few words, for the log of a failed schedule.

use fsm::{Input, command::Effect};

use crate::api::What;

pub(crate) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Commit(write) => format!(
            "Commit({}{}{})",
            write.record.state,
            if write.spec.booted { ", Booted" } else { "" },
            if write.in_reboot_slot { ", slot" } else { "" }
        ),
        Effect::Create { write, .. } => format!("Create({})", write.record.state),
        other => format!("{other:?}"),
    }
}

pub(crate) fn what(what: &What) -> String {
    match what {
        What::Effect(it) => effect(it),
        What::Pool(it) => format!("{it:?}").chars().take(200).collect(),
        What::Waiting(it) => format!("Waiting {}", it.reason),
    }
}

pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Node(name, view) => format!(
            "Node {name} {:?}",
            view.as_ref().map(|it| (
                it.ready,
                it.cordoned,
                &it.cordoned_by,
                it.labelled,
                &it.boot_id,
                &it.claims
            ))
        ),
        Input::BootcNode(name, view) => format!(
            "BootcNode {name} {:?}",
            view.as_ref().map(|it| (
                it.generation,
                it.spec.image.as_ref().map(|it| it.digest().to_owned()),
                it.spec.booted,
                &it.spec.approved_boot,
                it.in_reboot_slot,
                it.report.as_ref().map(|it| (
                    it.observed_generation,
                    it.activity,
                    it.boot.clone(),
                    it.booted.as_ref().map(|it| it.digest.clone()),
                    it.staged.as_ref().map(|it| it.digest.clone()),
                    it.degraded.clone()
                ))
            ))
        ),
        Input::Pool(name, view) => format!(
            "Pool {name} {:?}",
            view.as_ref()
                .map(|it| (it.generation, it.deleting, it.finalizer, &it.spec.image))
        ),
        other => format!("{other:?}"),
    }
}
