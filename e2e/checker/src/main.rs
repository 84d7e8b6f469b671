//! e2e/checker
fn main() {}
