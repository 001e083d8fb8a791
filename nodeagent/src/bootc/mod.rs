//! bootc as it is on the host: its answers and its command line.

mod command;
mod progress;
mod status;

pub use command::{Bootc, ReadError, lock, rollback, stage, undo_soft_reboot, unlock};
pub use progress::{RUNTIME_FOLDER, newest as newest_progress};
pub use status::{BootEntry, HostStatus, Images, Status};
