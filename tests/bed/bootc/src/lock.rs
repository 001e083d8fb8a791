//! The sysroot lock, which every command holds from its start to its end.
//!
//! It is an OFD lock (flock(1) does not see it) on a file that is created and
//! deleted by each holder, so a waiter must check that it locked the file that
//! is still there.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_WRLCK, SEEK_SET, flock};

/// The lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct SysrootLock {
    path: PathBuf,
    _file: File,
}

impl SysrootLock {
    /// Waits for the lock without a word.
    pub(crate) fn wait(ostree: &Path) -> Result<Self> {
        Self::acquire(ostree, &mut |file| {
            fcntl(file, FcntlArg::F_OFD_SETLKW(&whole_file())).map(|_| true)
        })
    }

    /// Waits for the lock and says so every three seconds, as the finalizer does.
    pub(crate) fn wait_aloud(ostree: &Path) -> Result<Self> {
        let mut tries = 0;
        Self::acquire(
            ostree,
            &mut |file| match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    if tries % 30 == 0 {
                        println!("Waiting for sysroot lock...");
                    }
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(100));
                    Ok(false)
                }
                locked => locked.map(|_| true),
            },
        )
    }

    fn acquire(ostree: &Path, attempt: &mut dyn FnMut(&File) -> nix::Result<bool>) -> Result<Self> {
        let path = ostree.join("lock");
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path);
            let file =
                file.with_context(|| format!("Acquiring sysroot lock {}", path.display()))?;
            if attempt(&file).context("Acquiring sysroot lock")? && is_at(&file, &path)? {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for SysrootLock {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the lock itself goes with the process.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> Result<bool> {
    let locked = file.metadata()?;
    Ok(fs::metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino())))
}

#[expect(clippy::cast_possible_truncation, reason = "both constants are 0 or 1")]
fn whole_file() -> flock {
    flock {
        l_type: F_WRLCK as i16,
        l_whence: SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
