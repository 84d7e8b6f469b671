//! The buyer's page and the live view on a real cluster, in a real Chromium: the page's own tests,
//! by a browser inside the cluster's namespace.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::program;
use common::world::{Down, World};
use e2e::Shape;

const BED: &str = "pagetest";

/// What `kubectl` forwards, until this is dropped.
struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Where the pictures are kept, beside those of local mode.
fn pictures() -> PathBuf {
    program("node").parent().and_then(Path::parent).expect("a folder").join("page-cluster")
}

#[test]
#[ignore = "needs root, what `cargo e2e install` and `make page` install, `make programs`, E2E=1"]
fn the_page_sells_on_a_cluster() {
    let down = Down::first(BED);
    let world = World::up(BED, &Shape { nodes: 2, brokers: 1 });
    world.install(&[]);
    world.cluster.apply(include_str!("sales/page.yaml")).expect("it is taken");
    world.ready("page", Duration::from_secs(90));

    // As the README says to look on.
    let mut forward = world.cluster.kubectl();
    forward.args(["port-forward", "deployment/page-query", "8082"]).stdout(Stdio::null());
    let forward = Forward(forward.spawn().expect("kubectl starts"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("page/run");
    let mut run = world.bed.command_in("cluster", &script).expect("there is such a place");
    run.env("PAGE_PLACE", "./cluster.mjs").env("PAGE_BED", BED);
    run.env("PAGE_E2E", env!("CARGO_BIN_EXE_e2e")).env("PAGE_LIVE", "http://127.0.0.1:8082");
    run.env("PAGE_URL", world.service("page").trim_end_matches(":80"));
    run.env("PAGE_PICTURES", pictures());
    let ended = run.status().expect("the tests start");
    drop(forward);
    assert!(ended.success(), "the page's tests pass on a cluster");
    world.judge("default.page", &[], None);
    drop(down);
}
