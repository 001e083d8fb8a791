//! `bootc` and, called by that name, `ostree`.

fn main() {}
