//! bootc as it is on the host: its answers and its command line.

mod command;
mod status;

pub use command::{Bootc, ReadError, lock, rollback, stage, unlock};
pub use status::{BootEntry, HostStatus, Images, Status};
