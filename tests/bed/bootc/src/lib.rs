//! A stand-in for bootc on the hosts of the test bed.
//!
//! A host of the bed is no virtual machine and has no boot loader, so the real
//! bootc cannot run on it. This program takes its place: the same command
//! line, status JSON, exit codes, messages, sysroot lock and inotify traces as
//! bootc 1.16.9 on ostree, pulling real images from a real registry; what it
//! staged and finalised is the root that the host boots next.
//!
//! The binary runs on the host as `bootc` and, by its other name, as `ostree`.
//! The library is what the bed uses on the machine: [`install::install`] makes
//! a disk, [`boot::plan`] says what a disk boots, [`faults::Faults`] tells the
//! stand-in to misbehave.

mod access;
mod admin;
mod apply;
pub mod boot;
mod cli;
mod deploy;
pub mod faults;
pub mod files;
mod finalize;
mod host;
pub mod install;
mod lock;
pub mod origin;
mod progress;
mod pull;
mod registry;
mod rollback;
mod run;
mod soft_reboot;
mod stage;
mod staged;
mod status;
mod store;
mod switch;
pub mod sysroot;
mod unpack;

pub use run::main;
