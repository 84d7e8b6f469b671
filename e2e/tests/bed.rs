//! The bed's own proof: it comes up, carries a pod, takes its faults, and leaves nothing.
//!
//! It has a name of its own, so it disturbs no bed that somebody works with.

mod common;

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::world::Down;
use e2e::error::output_of;
use e2e::process::{Signal, until};
use e2e::{Bed, Cluster, Image, Shape};

const NAME: &str = "bedtest";

const HELLO: &str = include_str!("hello.yaml");

fn up() -> Bed {
    let begun = Instant::now();
    let shape = Shape { nodes: 2, brokers: 1 };
    let bed = Bed::up(NAME, &shape, &mut |line| println!("  {line}")).expect("the bed comes up");
    println!("up in {:.1} s", begun.elapsed().as_secs_f64());
    bed
}

/// A request from inside the bed; none if there is no whole answer within two seconds.
fn get(bed: &Bed, address: &str, path: &str) -> Option<String> {
    let ask = || {
        let patience = Duration::from_secs(2);
        let socket = address.to_socket_addrs().ok()?.next()?;
        let mut stream = TcpStream::connect_timeout(&socket, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        write!(stream, "GET /{path} HTTP/1.0\r\nHost: hello\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.trim().to_owned())
    };
    bed.within(ask).expect("the namespace can be entered")
}

fn kubectl(bed: &Bed, words: &str) -> String {
    output_of(bed.kubectl().args(words.split(' '))).expect("kubectl succeeds")
}

/// The pod on a node: its name and its address.
fn pod_on(bed: &Bed, node: &str) -> (String, String) {
    let field = format!("--field-selector=spec.nodeName={node}");
    let what = "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}";
    let mut get = bed.kubectl();
    get.args(["get", "pods", "--namespace=tickets", &field, "-o", what]);
    let answer = output_of(&mut get).expect("kubectl succeeds");
    let (name, address) = answer.split_once(' ').expect("the node has a pod");
    (name.to_owned(), format!("{address}:8080"))
}

fn answers(bed: &Bed, address: &str) {
    until("an answer", Duration::from_secs(30), address, || Ok(get(bed, address, "")))
        .expect("the pod answers");
}

#[test]
#[ignore = "needs root, what `cargo e2e install` installs, E2E=1 and two minutes"]
fn a_bed_carries_pods_takes_faults_and_leaves_nothing() {
    let down = Down::first(NAME);
    let bed = up();
    let service = a_restricted_pod_on_each_node_answers_through_its_service(&bed);
    pods_reach_the_engines_and_nothing_outside(&bed, &service);
    a_node_that_is_cut_off_is_silent_until_it_is_joined(&bed);
    a_killed_container_is_restarted_and_a_frozen_one_is_silent(&bed);
    kafka_and_redis_stop_and_come_back(&bed);
    let processes: Vec<_> = bed.processes().values().copied().collect();
    // What a killed run leaves: some parts dead, the rest running, notes that say "ready".
    let api = bed.processes()["apiserver"];
    api.signal(Signal::KILL).expect("it can be killed");
    api.gone_within(Duration::from_secs(10)).expect("it ends");
    drop(bed);
    let bed = up();
    assert!(processes.iter().all(|process| !process.alive()), "the earlier bed is cleared away");
    assert_eq!(bed.nodes_ready().expect("the API server answers"), 2);
    let processes: Vec<_> = bed.processes().values().copied().collect();
    let begun = Instant::now();
    drop(down);
    println!("down in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(processes.iter().all(|process| !process.alive()));
    nothing_is_left();
}

fn a_restricted_pod_on_each_node_answers_through_its_service(bed: &Bed) -> String {
    let tools = e2e::install::Tools::found().expect("the tools are built");
    let programs = [tools.guest("hello"), PathBuf::from("/usr/bin/redis-cli")];
    let image = Image::new("hello:1", &programs).expect("a good name");
    bed.load_image(&image).expect("every node takes the image");
    let begun = Instant::now();
    let cluster = Cluster::open(NAME, None).expect("it is up");
    cluster.apply(HELLO).expect("the API server takes the manifest");
    kubectl(bed, "rollout status --namespace=tickets deployment/hello --timeout=60s");
    println!("two pods Ready in {:.1} s", begun.elapsed().as_secs_f64());
    let what = "get service hello --namespace=tickets -o jsonpath={.spec.clusterIP}";
    let service = format!("{}:80", kubectl(bed, what));
    let mut heard = std::collections::BTreeSet::new();
    until("an answer of each pod", Duration::from_secs(30), "see kube-proxy's log", || {
        heard.extend(get(bed, &service, ""));
        Ok((heard.len() == 2).then_some(()))
    })
    .expect("both pods answer");
    service
}

fn pods_reach_the_engines_and_nothing_outside(bed: &Bed, service: &str) {
    let (pod, address) = pod_on(bed, "node-1");
    let asked = |path: &str| get(bed, &address, path).expect("the pod answers");
    let host = service.split(':').next().expect("an address");
    assert_eq!(asked("resolve?name=hello.tickets.svc.cluster.local"), host);
    assert_eq!(asked("resolve?name=hello"), host);
    for reached in [&bed.kafka_bootstrap(), &bed.redis_address(), "hello:80", "10.96.0.1:443"] {
        assert_eq!(asked(&format!("dial?to={reached}")), "reached", "{reached}");
    }
    // Its own Service, again and again: some connections come back to the pod itself.
    assert!((0..20).all(|_| asked("dial?to=hello:80") == "reached"));
    assert!(asked("dial?to=192.0.2.1:80").contains("unreachable"));
    assert!(
        asked("read?path=/var/run/secrets/kubernetes.io/serviceaccount/token").contains("no such")
    );
    assert!(asked("write?path=/x").contains("read-only"));
    let address = bed.redis_address();
    let host = address.split(':').next().expect("an address");
    // A program with shared libraries, by way of the API server, the kubelet and containerd.
    let ping = format!("exec --namespace=tickets {pod} -- redis-cli -h {host} ping");
    assert_eq!(kubectl(bed, &ping).trim(), "PONG");
}

fn a_node_that_is_cut_off_is_silent_until_it_is_joined(bed: &Bed) {
    let ((_, near), (_, far)) = (pod_on(bed, "node-1"), pod_on(bed, "node-2"));
    bed.cut("node-2").expect("it has a cable");
    assert!(!bed.is_joined("node-2").expect("it has a cable"));
    assert_eq!(get(bed, &far, ""), None);
    assert!(get(bed, &near, "").is_some());
    let joined = bed.join("node-2").expect("it has a cable");
    answers(bed, &far);
    println!("a joined node's pod answers after {:.1} s", joined.elapsed().as_secs_f64());
}

fn a_killed_container_is_restarted_and_a_frozen_one_is_silent(bed: &Bed) {
    let (pod, address) = pod_on(bed, "node-1");
    let container = bed.container("tickets", &pod, None).expect("it runs");
    assert_eq!((container.node.as_str(), container.processes().len()), ("node-1", 1));
    container.signal(Signal::STOP).expect("it runs");
    assert_eq!(get(bed, &address, ""), None);
    container.signal(Signal::CONT).expect("it runs");
    answers(bed, &address);
    let killed = container.signal(Signal::KILL).expect("it runs");
    until("a restart", Duration::from_secs(60), "see the kubelet's log", || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        let restarts = kubectl(bed, &format!("get pod --namespace=tickets {pod} -o {path}"));
        Ok((restarts != "0").then_some(()))
    })
    .expect("the kubelet restarts it");
    answers(bed, &address);
    println!("a killed container answers again after {:.1} s", killed.elapsed().as_secs_f64());
}

fn kafka_and_redis_stop_and_come_back(bed: &Bed) {
    let mut kafka = bed.kafka().expect("it was started");
    let mut topics = kafka.tool("topics").expect("the jars are there");
    output_of(topics.args(["--create", "--topic", "ledger"])).expect("Kafka takes a topic");
    kafka.stop_all().expect("it ends");
    assert!(kafka.process(0).is_none());
    let mut redis = bed.redis().expect("it was started");
    redis.ask("SET a b").expect("Redis answers");
    redis.flush().expect("Redis answers");
    assert_eq!(redis.ask("DBSIZE").expect("Redis answers"), ":0");
    redis.kill().expect("it ends");
    redis.start_again().expect("it comes back");
    kafka.start_all().expect("it comes back");
    let mut topics = kafka.tool("topics").expect("the jars are there");
    assert!(output_of(topics.arg("--list")).expect("Kafka answers").contains("ledger"));
}

fn nothing_is_left() {
    assert!(!e2e::bed::folder_of(NAME).exists());
    let namespaces = output_of(std::process::Command::new("ip").args(["netns", "list"]));
    assert!(!namespaces.expect("ip runs").contains(NAME));
    let mut find = std::process::Command::new("find");
    find.args(["/sys/fs/cgroup", "-maxdepth", "2", "-name", "bedtest*"]);
    assert_eq!(output_of(&mut find).expect("find runs"), "");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    assert!(!mounts.contains(NAME));
}
