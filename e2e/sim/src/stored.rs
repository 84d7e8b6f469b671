//! Seeds that are kept: those that found a bug in the product, and one for each planted bug.

const REGRESSIONS: &str = include_str!("../seeds/regressions.txt");
const TEETH: &str = include_str!("../seeds/teeth.txt");

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Seeds under which the product once failed. Each line of the file says why.
pub fn regressions() -> impl Iterator<Item = u64> {
    lines(REGRESSIONS).filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

/// Planted bugs, and the seed that finds each.
pub fn teeth() -> impl Iterator<Item = (&'static str, u64)> {
    lines(TEETH).filter_map(|line| {
        let (bug, seed) = line.split_once(char::is_whitespace)?;
        Some((bug, seed.trim().parse().ok()?))
    })
}
