//! spikeSystem: known to many as the design that sells a million tickets.

use std::fs;
use std::path::PathBuf;

/// Names a checkout.
const VARIABLE: &str = "SPIKESYSTEM";

/// Why it has no figures. With a checkout, it says what in it keeps a window from being run:
/// changing somebody's program to measure it would measure another one.
pub(super) fn why_not() -> String {
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return format!("set {VARIABLE} to a checkout");
    };
    let path = folder.join("main.go");
    match fs::read_to_string(&path) {
        Ok(main) => obstacles(&main),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

fn obstacles(main: &str) -> String {
    let stock = main.lines().find_map(|line| line.trim().strip_prefix("LocalInStock:"));
    let stock = stock.map_or("a fixed number of", |stock| stock.trim().trim_end_matches(','));
    let mut why = vec![format!("its main.go sells {stock} tickets and then none")];
    if !main.contains("redisConn.Close()") {
        why.push("keeps a Redis connection for each request until its pool is empty".to_owned());
    }
    why.push("needs Redis on port 6379 of this machine".to_owned());
    format!("{}; that is no load of seconds, and it is not supported", why.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_it_from_being_measured_is_read_from_its_source() {
        let said = obstacles("x = Spike{\n\tLocalInStock:     150,\n}\n");
        assert!(said.contains("sells 150 tickets"), "{said}");
        assert!(said.contains("keeps a Redis connection"), "{said}");
    }
}
