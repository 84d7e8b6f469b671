//! A whole sale through all the real parts: Kubernetes, Kafka, Redis, Helm, the operator.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::resale::{History, Kill};
use common::world::{Down, World, now_ms};
use e2e::Shape;
use e2e::process::{Signal, until};
use serde_json::Value;

const BED: &str = "saletest";
const SETTLERS_KILLED: usize = 10;

/// The sale of local mode's tests, whose orders are told of besides.
fn long() -> String {
    include_str!("sales/long.yaml").replace(
        "fleet: {replicas: 3}",
        "fleet: {replicas: 3, settle: {replicas: 2}}\n  settlement: {ordersTopic: long.orders}",
    )
}

/// What buyers heard between two times, and how often.
fn heard(answers: &Path, from: u64, until: u64) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(answers).expect("the crowd wrote it");
    let mut words = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let at = line["at"].as_u64().expect("a time");
        if line["op"] == "place" && (from..until).contains(&at) {
            let word = line["problem"].as_str().unwrap_or("held").to_owned();
            *words.entry(word).or_default() += 1;
        }
    }
    words
}

#[test]
#[ignore = "needs root, what `cargo e2e install` installs, `make programs`, E2E=1 and ten minutes"]
fn a_sale_goes_through_all_the_real_parts() {
    let down = Down::first(BED);
    let world = World::up(BED, &Shape { nodes: 2, brokers: 1 });
    world.install(&[]);
    the_smallest_sale_is_ready_and_sells(&world);
    a_wrong_sale_says_which_field(&world);
    a_long_sale_is_sold_out_once_through_faults(&world);
    drop(down);
}

fn the_smallest_sale_is_ready_and_sells(world: &World) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/minimal.yaml");
    let path = root.to_str().expect("a path in UTF-8");
    world.kubectl(&["apply", "-f", path]);
    world.ready("demo", Duration::from_secs(90));
    let answers = world.folder.join("demo.jsonl");
    let bought = world.crowd("demo", &answers, 1).args(["--orders", "5"]).run();
    assert!(bought["orders"].as_u64() >= Some(5), "{bought}");
    println!("{}", world.kubectl(&["get", "trainsales"]));
    world.judge("default.demo", &[&answers], None);
    world.kubectl(&["delete", "trainsale", "demo", "--timeout=60s"]);
}

fn a_wrong_sale_says_which_field(world: &World) {
    let good = &long();
    let unknown = good.replace("timetable: long}", "timetable: short}");
    let refused = world.cluster.apply(&unknown).expect_err("CEL refuses it").to_string();
    assert!(refused.contains("timetable"), "{refused}");
    // What CEL cannot say is said by the operator: times out of order.
    let late = out_of_order(good).replace("name: long\nspec", "name: late\nspec");
    world.cluster.apply(&late).expect("the API server cannot see it");
    world.accepted("late", "False", "stops[1].arrives");
    world.kubectl(&["delete", "trainsale", "late", "--timeout=60s"]);
}

fn out_of_order(sale: &str) -> String {
    sale.replace("arrives: \"06:20\"", "arrives: \"05:20\"")
}

/// Neither a change that the API server refuses nor one that only the operator can refuse
/// disturbs the fleet, and the right sale applied again is accepted again.
fn a_wrong_change_is_refused_in_mid_sale(world: &World) {
    let good = &long();
    let before = world.sellers("long");
    let renamed = good.replace("code: T05", "code: T55");
    let refused = world.cluster.apply(&renamed).expect_err("CEL refuses it").to_string();
    assert!(refused.contains("spec.timetables[0].stops"), "{refused}");
    world.cluster.apply(&out_of_order(good)).expect("the API server cannot see it");
    world.accepted("long", "False", "stops[1].arrives");
    let other = good.replace("train: L1", "train: L2");
    world.cluster.apply(&other).expect("the API server cannot see it");
    world.accepted("long", "False", "spec.runs");
    world.cluster.apply(good).expect("it is taken");
    world.accepted("long", "True", "");
    assert_eq!(world.sellers("long"), before, "the fleet is as it was");
}

fn a_long_sale_is_sold_out_once_through_faults(world: &World) {
    world.cluster.apply(&long()).expect("it is taken");
    world.ready("long", Duration::from_secs(90));
    let first = world.folder.join("first.jsonl");
    // So slow that every fault falls into the sale, however fast this machine is.
    let crowd = world.crowd("long", &first, 7).args(["--party", "1", "--think-ms", "1000"]);
    let mut crowd = crowd.args(["--orders", "4600"]).start();
    pause(2);
    a_wrong_change_is_refused_in_mid_sale(world);
    let kills = nodes_are_killed(world);
    let shopping = AtomicBool::new(true);
    let away = std::thread::scope(|scope| {
        let settlers = scope.spawn(|| settlers_are_killed(world, &shopping));
        a_node_and_redis_stop(world);
        let away = kafka_stops(world);
        world.bed.cut("node-2").expect("it has a cable");
        pause(20);
        world.bed.join("node-2").expect("it has a cable");
        assert!(crowd.is_under_way(), "every fault falls into the sale");
        crowd.finish();
        shopping.store(false, Ordering::Relaxed);
        let killed = settlers.join().expect("it ends");
        println!("settle nodes were killed {killed} times");
        assert!(killed >= SETTLERS_KILLED, "often enough");
        away
    });
    println!("orders in each 10 s: {:?}", common::pace(&first));

    // In the last second before it stops Kafka may have taken what is answered after it.
    let meanwhile = heard(&first, away.stopped + 1_000, away.started);
    println!("while Kafka was stopped buyers heard: {meanwhile:?}");
    assert!(!meanwhile.contains_key("sold-out") && !meanwhile.contains_key("held"));
    assert!(meanwhile.contains_key("busy") || meanwhile.contains_key("unknown"));
    let after = heard(&first, away.back, away.back + 15_000);
    println!("in the 15 s after that: {after:?}");
    assert!(after.contains_key("held"), "the sale goes on");

    // Each journey that the checker finds free is really sold to one who asks.
    let free = world.folder.join("free.jsonl");
    world.judge("default.long", &[&first], Some(&free));
    let asked = world.folder.join("asked.jsonl");
    let wanted = world.crowd("long", &asked, 8).wanted(&free).args(["--give-back"]).run();
    println!("journeys that were free by the checker, all bought: {}", wanted["orders"]);

    let rest = world.folder.join("rest.jsonl");
    let sold = world.crowd("long", &rest, 9).args(["--party", "1"]).run();
    assert_eq!(sold["soldOut"], true, "{sold}");
    world.judge("default.long", &[&first, &asked, &rest], None);
    world.kubectl(&["wait", "trainsale/long", "--for=condition=Settled", "--timeout=60s"]);
    every_change_of_an_order_is_told_once(world);

    let mut cat = world.inside("checker");
    cat.args(["cat", &world.ledger("default.long")]);
    let history = History::read(cat, None);
    let again = |kill: &Kill| {
        let gaps = history.gaps(kill);
        let last = gaps.last().expect("it owned shares when it was killed");
        assert_ne!(last.sold_ms, u64::MAX, "share {} was sold from again", last.share);
        last.sold_ms as f64 / 1_000.0
    };
    let mut times: Vec<f64> = kills.iter().map(again).collect();
    times.sort_by(f64::total_cmp);
    println!("seconds from SIGKILL until all of those shares sold again: {times:?}");
    assert!(times[times.len() / 2] <= 3.0, "the median of five is at most 3 s");
}

/// Settle nodes are killed again and again until the crowd has gone; returns how often.
fn settlers_are_killed(world: &World, crowd: &AtomicBool) -> usize {
    let mut kills = 0;
    while crowd.load(Ordering::Relaxed) {
        pause(6);
        let pods = world.settlers("long");
        let Some(pod) = pods.get(kills % pods.len().max(1)) else { continue };
        world.signal(pod, Signal::KILL);
        // In the place of one that waits longer and longer before it starts again comes another.
        world.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"]);
        kills += 1;
    }
    kills
}

/// The topic of orders is what the checker reads in the ledger: nothing more, nothing less.
fn every_change_of_an_order_is_told_once(world: &World) {
    let (ledger, orders) = (world.ledger("default.long"), world.ledger("long.orders"));
    let mut said = String::new();
    let complete = until("every change being told", Duration::from_secs(60), "", || {
        let mut checker = world.inside("checker");
        checker.args(["settled", &ledger, &orders, "--json"]);
        let output = checker.output().expect("the checker runs");
        said = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: Value = serde_json::from_str(&said).unwrap_or_default();
        let worse = ["duplicated", "alien", "wrong", "disordered"];
        assert!(worse.iter().all(|what| report[what] == 0), "{said}");
        Ok((report["changes"].as_u64() > Some(0) && output.status.success()).then_some(()))
    });
    println!("the topic of orders: {said}");
    complete.expect("nothing is missing in the end");
}

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn nodes_are_killed(world: &World) -> Vec<Kill> {
    let mut kills = Vec::new();
    for at in 0..common::KILLS {
        let pods = world.owners("long");
        let node = pods[at % pods.len()].clone();
        world.signal(&node, Signal::KILL);
        kills.push(Kill { node, at: now_ms() });
        pause(8);
    }
    kills
}

fn a_node_and_redis_stop(world: &World) {
    let pods = world.sellers("long");
    world.signal(&pods[0], Signal::STOP);
    let mut redis = world.bed.redis().expect("it runs");
    redis.flush().expect("it can be flushed");
    pause(5);
    redis.kill().expect("it can be killed");
    pause(15);
    // The pod may have been replaced meanwhile; then there is nobody to wake.
    if let Ok(container) = world.bed.container("default", &pods[0], None) {
        container.signal(Signal::CONT).expect("it can be signalled");
    }
    redis.start_again().expect("it starts again");
}

/// How Kafka was away.
struct Away {
    stopped: u64,
    /// When it began to start.
    started: u64,
    /// When it answered again.
    back: u64,
}

fn kafka_stops(world: &World) -> Away {
    let mut kafka = world.bed.kafka().expect("it runs");
    kafka.stop_all().expect("it can be stopped");
    let stopped = now_ms();
    pause(20);
    let started = now_ms();
    kafka.start_all().expect("it starts again");
    let back = now_ms();
    println!("Kafka was away for {:.1} s", (back - stopped) as f64 / 1_000.0);
    pause(15);
    Away { stopped, started, back }
}
