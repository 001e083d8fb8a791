//! Running a command line: the faults told for it, the checks before it, its
//! errors in the words that bootc puts around them.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ArgMatches;

use crate::cli::{self, given};
use crate::faults::{CommandFault, Faults};
use crate::host::{Host, require_privilege};
use crate::lock::SysrootLock;
use crate::origin::{ImageRef, Signature};
use crate::progress::Progress;
use crate::stage::Work;
use crate::status::{Document, human};
use crate::{admin, finalize, rollback, soft_reboot, switch};

/// What every bootc command costs on a real host beside its work: mounts, child processes.
const OVERHEAD: Duration = Duration::from_millis(50);

/// Runs `bootc` or, if that is the first argument's file name, `ostree`.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.collect();
    let host = Host::from_env();
    let name = args
        .first()
        .and_then(|a| Path::new(a).file_name())
        .unwrap_or_default()
        .to_owned();
    let run = Faults::load(&host.path("var")).and_then(|faults| {
        if name == "ostree" {
            ostree(&host, &faults, args)
        } else {
            bootc(&host, &faults, args)
        }
    });
    run.unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::FAILURE
    })
}

fn bootc(host: &Host, faults: &Faults, args: Vec<OsString>) -> Result<ExitCode> {
    let matches = cli::bootc(faults.release).get_matches_from(args);
    let Some((verb, matches)) = matches.subcommand() else {
        return Ok(ExitCode::FAILURE);
    };
    with_fault(host, faults, &format!("bootc {verb}"), || match verb {
        "status" => status(host, faults, matches).context("Status"),
        "switch" => storage(host, faults, |lock| run_switch(host, faults, matches, lock))
            .context("Switching"),
        "upgrade" => run_upgrade(host, faults, matches),
        _ => storage(host, faults, |_| {
            rollback::rollback(host, &mut host.load()?, cli::after(matches))
        })
        .context("Rollback"),
    })
}

fn ostree(host: &Host, faults: &Faults, args: Vec<OsString>) -> Result<ExitCode> {
    if args.iter().any(|a| a == "--version") {
        println!("libostree:\n Version: '2026.4'");
        return Ok(ExitCode::SUCCESS);
    }
    let matches = cli::ostree().get_matches_from(args);
    let Some((verb, matches)) = matches
        .subcommand_matches("admin")
        .and_then(ArgMatches::subcommand)
    else {
        return Ok(ExitCode::FAILURE);
    };
    let index = || {
        matches
            .get_one::<usize>("index")
            .copied()
            .context("INDEX must be specified")
    };
    with_fault(
        host,
        faults,
        &format!("ostree admin {verb}"),
        || match verb {
            "status" => admin::status(host, given(matches, "json")),
            "undeploy" => locked(host, || admin::undeploy(host, index()?)),
            "pin" => locked(host, || {
                admin::pin(host, index()?, !given(matches, "unpin"))
            }),
            "lock-finalization" => locked(host, || {
                admin::lock_finalization(host, !given(matches, "unlock"))
            }),
            "prepare-soft-reboot" => locked(host, || soft_reboot::reset(host)),
            "finalize-staged" => finalize::finalize_staged(host, &faults.finalize),
            _ => locked(host, || finalize::boot_complete(host)),
        },
    )
}

/// Does the work, or what the fault told for `name` says instead of it or after it.
fn with_fault(
    host: &Host,
    faults: &Faults,
    name: &str,
    work: impl FnOnce() -> Result<()>,
) -> Result<ExitCode> {
    let fault = faults.commands.get(name).cloned().unwrap_or_default();
    if !fault.after
        && let Some(code) = misbehave(host, &fault)?
    {
        return Ok(code);
    }
    work()?;
    let after = if fault.after {
        misbehave(host, &fault)?
    } else {
        None
    };
    Ok(after.unwrap_or(ExitCode::SUCCESS))
}

fn misbehave(host: &Host, fault: &CommandFault) -> Result<Option<ExitCode>> {
    let lock = fault
        .hold_lock
        .then(|| SysrootLock::wait(&host.sysroot().ostree()))
        .transpose()?;
    std::thread::sleep(Duration::from_secs(fault.hang_seconds));
    drop(lock);
    print!("{}", fault.stdout);
    eprint!("{}", fault.stderr);
    Ok(fault.exit.map(ExitCode::from))
}

fn status(host: &Host, faults: &Faults, matches: &ArgMatches) -> Result<()> {
    let version = matches
        .get_one::<u32>("format-version")
        .copied()
        .unwrap_or_default();
    if version > 1 {
        bail!("Unsupported format version: {version}");
    }
    let mut document = Document::null(faults.release);
    if !host.in_container() && host.is_bootc() {
        require_privilege().context("Preparing for write")?;
        let _lock = SysrootLock::wait(&host.sysroot().ostree())?;
        std::thread::sleep(OVERHEAD);
        document = Document::of(&host.load()?, faults)?;
    }
    if given(matches, "booted") {
        document.only_booted();
    }
    let mut out = std::io::stdout();
    // JSON is YAML too.
    let format = if given(matches, "json") {
        Some("json".to_owned())
    } else {
        cli::text(matches, "format")
    };
    match format.as_deref() {
        Some("json") => write!(out, "{}", serde_json::to_string(&document)?)?,
        Some("yaml") => writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?,
        None if !out.is_terminal() => {
            writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
        }
        _ => write!(out, "{}", human(&document))?,
    }
    Ok(out.flush()?)
}

fn run_switch(
    host: &Host,
    faults: &Faults,
    matches: &ArgMatches,
    _lock: &SysrootLock,
) -> Result<()> {
    let after = cli::after(matches);
    let mut work = work(host, faults, matches)?;
    let result = match cli::text(matches, "target") {
        Some(image) => {
            let signature =
                given(matches, "enforce-container-sigpolicy").then_some(Signature::ContainerPolicy);
            let transport =
                cli::text(matches, "transport").unwrap_or_else(|| "registry".to_owned());
            let target = ImageRef {
                image,
                signature,
                transport,
            };
            switch::switch(&mut work, &target, given(matches, "download-only"), after)
        }
        None => switch::unlock(&work, after),
    };
    result.context("Switching (ostree)")
}

fn run_upgrade(host: &Host, faults: &Faults, matches: &ArgMatches) -> Result<()> {
    // Unlike switch, upgrade prepares the storage outside of its own context.
    storage(host, faults, |_| {
        Ok(switch::upgrade(
            &mut work(host, faults, matches)?,
            &cli::upgrade_options(matches),
        )
        .context("Upgrading"))
    })?
}

fn work<'a>(host: &'a Host, faults: &'a Faults, matches: &ArgMatches) -> Result<Work<'a>> {
    let progress = matches
        .get_one::<u32>("progress-fd")
        .copied()
        .map(Progress::to)
        .transpose()?;
    Work::new(
        host,
        host.load()?,
        &faults.pull,
        progress.unwrap_or_default(),
    )
}

/// Checks that this is a booted host whose storage may be written, and takes the lock.
fn storage<T>(
    host: &Host,
    faults: &Faults,
    run: impl FnOnce(&SysrootLock) -> Result<T>,
) -> Result<T> {
    let check = || -> Result<()> {
        if host.in_container() {
            bail!("Detected container; this command requires a booted host system.");
        }
        if !host.is_bootc() {
            bail!("This command requires an ostree-booted host system");
        }
        require_privilege()?;
        if faults.read_only {
            bail!("/sysroot is on a read-only device; this command requires a writable one");
        }
        Ok(())
    };
    check()
        .context("Preparing for write")
        .context("Initializing storage")?;
    let lock = SysrootLock::wait(&host.sysroot().ostree())?;
    std::thread::sleep(OVERHEAD);
    run(&lock)
}

fn locked(host: &Host, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let _lock = SysrootLock::wait(&host.sysroot().ostree())?;
    run()
}
