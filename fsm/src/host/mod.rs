//! One host: what its agent does next, and what it reports.
//!
//! The mirror of the operator's machine. [`Facts`] are the newest that was seen of the host and of
//! its `BootcNode`; a later sighting replaces an earlier one, so that a lost or doubled event loses
//! nothing. [`Event`]s are conclusions drawn from them, in order of urgency. The machine takes them
//! to the next [`State`], and [`step`] names at most one [`Effect`] to carry out: a host does one
//! thing at a time. What must happen exactly once comes in as [`News`].
//!
//! The rules that shape it, all found by running the real bootc:
//! * status is believed, exit codes are not;
//! * nothing of ours runs bootc from the moment the reboot is asked for, or the host's finalization
//!   waits for its lock and the update is lost (see [`Step::quiet`]);
//! * an image is staged locked where the host can, and unlocked only after the report `Rebooting`
//!   stands in the API server and the `BootcNode` has been read again;
//! * a soft reboot is prepared with the unlock and never before: an image that is locked after that
//!   would come up with a pristine `/etc`, so the preparation is undone before anything is locked;
//! * whether an image came up is told by what is booted and by the *deployment* in the rollback
//!   slot, before and after: "the old one is booted and the rollback is the wanted image" is also
//!   true of a host that never left.

mod effect;
mod event;
mod facts;
mod machine;
mod record;
mod report;

pub use effect::{Effect, Task};
pub use event::{Event, due};
pub use facts::{
    Auth, Can, Deployment, Entry, Facts, Host, Image, Lock, News, Progress, Secret, Spec, Started,
    Unit, View, Wanted,
};
pub use machine::{Hop, MAX_HOPS, Step, step};
pub use record::{Attempt, Outcome, Record, Reported, State, StepName, StepTime, Trouble};
pub use report::{Degraded, DegradedReason, Report};
