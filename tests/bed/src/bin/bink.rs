//! The bed by the command line of bink: see [`bed::bink`].

fn main() -> std::process::ExitCode {
    bed::bink::main()
}
