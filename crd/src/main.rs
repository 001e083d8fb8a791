//! Prints both CRDs as one YAML stream: `cargo run -p crd > deploy/crd/crds.yaml`.

use std::{error::Error, io::Write as _};

fn main() -> Result<(), Box<dyn Error>> {
    std::io::stdout().write_all(crd::yaml()?.as_bytes())?;
    Ok(())
}
