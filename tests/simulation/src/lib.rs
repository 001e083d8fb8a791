//! Whole rollouts in a model cluster with virtual time and every fault.
//!
//! `fsm::Rollout` (the operator's decisions) and `fsm::host` (the agent's) run against models of the
//! API server, of hosts and of all that comes between. A schedule is a list of things that happen,
//! drawn from a seed; after each step the guarantees are checked, and when the faults are over every
//! rollout must end and leave things as they were. The same seed gives the same schedule, and a
//! failing one is cut down to what makes it fail.
//!
//! | file | is |
//! |---|---|
//! | `api` | the API server: versions, UIDs, the logs that watches read |
//! | `operator` | the operator's shell: watches, lanes, drains, answers |
//! | `host`, `agent`, `status` | a host with bootc's ways, the agent's shell, and what it tells |
//! | `cluster`, `world` | what they share; who can make a step, and time |
//! | `action`, `act` | what else happens |
//! | `guard`, `finish` | what must hold always, and in the end |
//! | `run` | schedules by the thousand, and their shrinking |

#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "an action is matched by reference on its way down; its size is not the reader's concern"
)]

mod act;
mod action;
mod agent;
mod api;
mod cluster;
mod finish;
mod guard;
mod host;
mod marks;
mod operator;
mod run;
mod status;
mod words;
mod world;

pub use marks::{Mark, Marks};
pub use run::{Failure, Tally, replay, run};
