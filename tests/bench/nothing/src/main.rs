//! Does nothing, for ever: what any static program of ours costs, whatever it is for.

fn main() {
    loop {
        std::thread::park();
    }
}
