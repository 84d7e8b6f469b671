//! Against a redis-server (or valkey-server) that each test starts for itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use proptest::prelude::{Strategy, any, prop_oneof};
use tempfile::TempDir;

use super::*;

const LEDGER: Digest128 = Digest128([7; 16]);
const RUN: RunId = RunId(300);
const CLASS: ClassId = ClassId(2);
const SOON: Duration = Duration::from_secs(10);

fn program() -> Option<&'static str> {
    ["redis-server", "valkey-server"].into_iter().find(|name| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    })
}

struct Server {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    /// None, with a word about it, where there is no program for it and nobody insists.
    fn start() -> Option<Server> {
        let Some(_) = program() else {
            assert!(std::env::var_os("CI").is_none(), "redis-server is not installed");
            eprintln!("SKIPPED: neither redis-server nor valkey-server is installed");
            return None;
        };
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("an address").port();
        drop(socket);
        let folder = tempfile::tempdir().expect("a folder");
        Some(Server { process: run(port, &folder), port, folder })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn restart(&mut self) {
        self.stop();
        self.process = run(self.port, &self.folder);
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(port: u16, folder: &TempDir) -> Child {
    Command::new(program().expect("looked for before"))
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("a server")
}

/// Waits for what comes by itself.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A stock whose draws are patient, so that a busy machine fails no test of what they answer.
async fn connected(server: &Server) -> PoolStock {
    PoolStock { draw_max: SOON, ..hurried(server).await }
}

/// A stock as the node has it.
async fn hurried(server: &Server) -> PoolStock {
    let stock = PoolStock::start(&server.address(), LEDGER).expect("an address");
    until("a connection", async || stock.keeper.connection().is_some()).await;
    stock
}

/// A raw connection for what no caller may do.
async fn raw<T: FromRedisValue>(stock: &PoolStock, words: &[&str]) -> T {
    let (_, mut connection) = stock.keeper.connection().expect("a connection");
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut connection).await.expect("an answer")
}

fn blocks(indexes: impl IntoIterator<Item = u16>) -> Vec<BlockId> {
    indexes.into_iter().map(|index| BlockId { run: RUN, index }).collect()
}

fn drawn(indexes: impl IntoIterator<Item = u16>, at: u64) -> Draw {
    Draw::Drawn { blocks: blocks(indexes), at: Offset(at) }
}

async fn draw(stock: &PoolStock, want: u16, floor: u64) -> Draw {
    let want = NonZeroU16::new(want).expect("some");
    stock.draw(RUN, CLASS, want, Offset(floor)).await.expect("an answer")
}

async fn restock(stock: &PoolStock, indexes: impl IntoIterator<Item = u16>, at: u64) -> Restock {
    stock.restock(RUN, CLASS, blocks(indexes), Offset(at)).await.expect("an answer")
}

#[tokio::test]
async fn the_last_block_is_drawn_once_and_then_the_pool_is_empty() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    assert_eq!(draw(&stock, 1, 0).await, Draw::Missing);
    assert_eq!(restock(&stock, 0..5, 10).await, Restock::Stored);
    assert_eq!(draw(&stock, 2, 0).await, drawn([0, 1], 10));
    assert_eq!(draw(&stock, 2, 10).await, drawn([2, 3], 10));
    // Fewer than asked for, not none.
    assert_eq!(draw(&stock, 2, 10).await, drawn([4], 10));
    assert_eq!(draw(&stock, 2, 10).await, Draw::Empty { at: Offset(10) });
    assert_eq!(draw(&stock, 1, 10).await, Draw::Empty { at: Offset(10) });
}

#[tokio::test]
async fn a_pool_without_blocks_is_empty_and_not_missing() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    assert_eq!(restock(&stock, [], 3).await, Restock::Stored);
    assert_eq!(draw(&stock, 4, 3).await, Draw::Empty { at: Offset(3) });
}

#[tokio::test]
async fn draws_at_the_same_time_never_get_the_same_block() {
    let Some(server) = Server::start() else { return };
    let nodes = [connected(&server).await, connected(&server).await, connected(&server).await];
    restock(&nodes[0], 0..1_000, 1).await;
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            // No lease ends while the test runs.
            let stock = PoolStock { lease: KEEP, ..nodes[task % nodes.len()].clone() };
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    match draw(&stock, 3, 0).await {
                        Draw::Drawn { blocks, .. } => mine.extend(blocks),
                        other => return (mine, other),
                    }
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        let (mine, end) = task.await.expect("no panic");
        assert_eq!(end, Draw::Empty { at: Offset(1) });
        all.extend(mine);
    }
    all.sort_unstable();
    assert_eq!(all, blocks(0..1_000), "each once");
}

#[tokio::test]
async fn a_node_that_is_behind_cannot_bring_back_what_was_taken() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    restock(&stock, 0..4, 20).await;
    draw(&stock, 2, 0).await;
    assert_eq!(restock(&stock, 0..9, 19).await, Restock::Newer { at: Offset(20) });
    assert_eq!(draw(&stock, 9, 0).await, drawn([2, 3], 20));
}

#[tokio::test]
async fn a_restock_keeps_leases_whose_takes_are_on_the_way() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    restock(&stock, 0..6, 20).await;
    assert_eq!(draw(&stock, 3, 0).await, drawn([0, 1, 2], 20));
    // The Take of 0 is folded, those of 1 and 2 are not; 9 is new. At the same offset too.
    assert_eq!(restock(&stock, [1, 2, 3, 4, 5, 9], 21).await, Restock::Stored);
    assert_eq!(restock(&stock, [1, 2, 3, 4, 5, 9], 21).await, Restock::Stored);
    assert_eq!(draw(&stock, 9, 21).await, drawn([3, 4, 5, 9], 21));
    assert_eq!(draw(&stock, 9, 21).await, Draw::Empty { at: Offset(21) });
}

#[tokio::test]
async fn a_set_older_than_the_floor_is_stale() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    restock(&stock, 0..6, 20).await;
    assert_eq!(draw(&stock, 1, 21).await, Draw::Stale { at: Offset(20) });
    assert_eq!(draw(&stock, 1, 20).await, drawn([0], 20));
}

#[tokio::test]
async fn a_dead_drawers_blocks_come_back_with_the_next_restock_and_not_before() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    let short = PoolStock { lease: Duration::from_millis(1), ..stock.clone() };
    restock(&short, 0..2, 20).await;
    assert_eq!(draw(&short, 2, 0).await, drawn([0, 1], 20));
    // When the leases have ended nobody knows whether the Takes are there: "stale", and
    // neither "empty" nor the blocks once more.
    until("the leases' end", async || {
        let draw = draw(&short, 2, 0).await;
        assert!(!matches!(draw, Draw::Drawn { .. }));
        draw == Draw::Stale { at: Offset(20) }
    })
    .await;
    // The fold has not moved, so both are in the pool still.
    assert_eq!(restock(&short, 0..2, 20).await, Restock::Stored);
    assert_eq!(draw(&stock, 2, 0).await, drawn([0, 1], 20));
}

#[tokio::test]
async fn a_clock_set_back_does_not_make_leases_longer() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    restock(&stock, 0..1, 20).await;
    // As if given by a clock that was a day ahead.
    let far = u64::MAX / 4096;
    raw::<()>(&stock, &["HSET", &stock.key(RUN, CLASS), "0", &far.to_string()]).await;
    assert_eq!(draw(&stock, 1, 0).await, Draw::Stale { at: Offset(20) });
    assert_eq!(restock(&stock, 0..1, 20).await, Restock::Stored);
    assert_eq!(draw(&stock, 1, 0).await, drawn([0], 20));
}

#[tokio::test]
async fn after_a_flush_the_stock_is_missing_and_not_empty() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    restock(&stock, 0..4, 20).await;
    draw(&stock, 1, 0).await;
    // Scripts go as well, so the next draw has to bring its own.
    raw::<()>(&stock, &["FLUSHALL"]).await;
    raw::<()>(&stock, &["SCRIPT", "FLUSH"]).await;
    assert_eq!(draw(&stock, 1, 0).await, Draw::Missing);
    assert_eq!(restock(&stock, 1..4, 21).await, Restock::Stored);
    raw::<()>(&stock, &["SCRIPT", "FLUSH"]).await;
    assert_eq!(draw(&stock, 9, 0).await, drawn([1, 2, 3], 21));
}

#[tokio::test]
async fn classes_runs_and_ledgers_do_not_mix_and_each_is_one_key_in_one_slot() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    let other = PoolStock { ledger: Digest128([8; 16]), ..stock.clone() };
    restock(&stock, 0..2, 5).await;
    assert_eq!(draw(&other, 1, 0).await, Draw::Missing);
    let want = NonZeroU16::MIN;
    let elsewhere = stock.draw(RunId(301), CLASS, want, Offset(0)).await;
    assert!(matches!(elsewhere, Ok(Draw::Missing)));
    let elsewhere = stock.draw(RUN, ClassId(1), want, Offset(0)).await;
    assert!(matches!(elsewhere, Ok(Draw::Missing)));
    draw(&stock, 1, 0).await;
    let keys: Vec<String> = raw(&stock, &["KEYS", "*"]).await;
    assert_eq!(keys, [stock.key(RUN, CLASS)]);
    assert_eq!(keys[0].matches(['{', '}']).count(), 2);
    let left: i64 = raw(&stock, &["PTTL", &keys[0]]).await;
    assert!(left > 0, "a stock that nobody touches goes away: {left}");
}

#[tokio::test]
async fn the_largest_restock_is_written_whole_and_a_larger_one_refused() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    let most = BLOCKS_MAX as u16;
    assert_eq!(restock(&stock, 0..most, (1 << 53) - 1).await, Restock::Stored);
    let length: usize = raw(&stock, &["HLEN", &stock.key(RUN, CLASS)]).await;
    assert_eq!(length, BLOCKS_MAX + 1);
    assert_eq!(draw(&stock, 1, 0).await, drawn([0], (1 << 53) - 1));
    let more = stock.restock(RUN, CLASS, blocks(0..=most), Offset(1)).await;
    assert!(matches!(more, Err(Failure::TooLarge(_))));
    let beyond = stock.restock(RUN, CLASS, [], Offset(1 << 53)).await;
    assert!(matches!(beyond, Err(Failure::TooLarge(_))));
    let beyond = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(1 << 53)).await;
    assert!(matches!(beyond, Err(Failure::TooLarge(_))));
}

#[tokio::test]
async fn a_server_that_hangs_is_slow_then_away_and_comes_back_by_itself() {
    let Some(server) = Server::start() else { return };
    let stock = hurried(&server).await;
    restock(&stock, 0..4, 20).await;
    server.signal("-STOP");
    let started = Instant::now();
    let slow = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await;
    assert!(matches!(slow, Err(Failure::Slow(_))), "{slow:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    until("no more waiting", async || {
        let draw = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await;
        matches!(draw, Err(Failure::Away))
    })
    .await;
    let silent = stock.answered();
    server.signal("-CONT");
    until("an answer", async || stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await.is_ok())
        .await;
    assert!(stock.answered() > silent);
}

#[tokio::test]
async fn a_server_that_dies_is_away_and_its_successor_is_found() {
    let Some(mut server) = Server::start() else { return };
    let stock = hurried(&server).await;
    restock(&stock, 0..4, 20).await;
    server.stop();
    let failure = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await;
    assert!(matches!(failure, Err(Failure::Broken(_) | Failure::Away)), "{failure:?}");
    server.restart();
    let mut seen = None;
    until("the successor", async || {
        seen = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await.ok();
        seen.is_some()
    })
    .await;
    assert_eq!(seen, Some(Draw::Missing));
}

#[tokio::test]
async fn without_a_server_a_draw_fails_at_once() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address").to_string();
    drop(socket);
    let stock = PoolStock::start(&address, LEDGER).expect("an address");
    let started = Instant::now();
    let failure = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await;
    assert!(matches!(failure, Err(Failure::Away)), "{failure:?}");
    assert!(started.elapsed() < Duration::from_millis(DRAW_MS_MAX));
    assert_eq!(stock.answered(), None);
    assert!(matches!(PoolStock::start("ftp://redis:6379", LEDGER), Err(Failure::Address(_))));
}

#[tokio::test]
async fn too_many_commands_at_once_are_refused_and_not_queued() {
    let Some(server) = Server::start() else { return };
    let stock = hurried(&server).await;
    restock(&stock, 0..4, 20).await;
    server.signal("-STOP");
    let draws = (0..WAITING_MAX + 10).map(|_| stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)));
    let answers = futures::future::join_all(draws).await;
    server.signal("-CONT");
    let busy = answers.iter().filter(|answer| matches!(answer, Err(Failure::Busy))).count();
    assert_eq!(busy, 10);
    assert!(answers.iter().all(Result::is_err));
}

#[tokio::test]
async fn an_answer_that_is_an_error_or_makes_no_sense_is_never_empty() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    let key = stock.key(RUN, CLASS);
    raw::<()>(&stock, &["SET", &key, "of another kind"]).await;
    let wrong = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await;
    assert!(matches!(wrong, Err(Failure::Refused(_))), "{wrong:?}");
    raw::<()>(&stock, &["DEL", &key]).await;
    raw::<()>(&stock, &["HSET", &key, "at", "5", "70000", ""]).await;
    let wrong = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await;
    assert!(matches!(wrong, Err(Failure::Nonsense(_))), "{wrong:?}");
    // A server out of memory refuses to write, so a draw fails rather than lease nothing.
    restock(&stock, 0..4, 20).await;
    raw::<()>(&stock, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = stock.draw(RUN, CLASS, NonZeroU16::MIN, Offset(0)).await;
    assert!(matches!(full, Err(Failure::Refused(_))), "{full:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Draw { want: u16, floor: u64 },
    Restock { free: BTreeSet<u16>, at: u64 },
    Flush,
}

fn any_step() -> impl Strategy<Value = Step> {
    let free = proptest::collection::btree_set(0..12_u16, 0..12);
    prop_oneof![
        6 => (1..5_u16, 0..8_u64).prop_map(|(want, floor)| Step::Draw { want, floor }),
        3 => (free, 0..8_u64).prop_map(|(free, at)| Step::Restock { free, at }),
        1 => any::<()>().prop_map(|()| Step::Flush),
    ]
}

/// What the scripts should do, while no lease ends.
#[derive(Default)]
struct Model(Option<(u64, BTreeMap<u16, bool>)>);

impl Model {
    fn draw(&mut self, want: u16, floor: u64) -> Draw {
        let Some((at, set)) = &mut self.0 else { return Draw::Missing };
        if *at < floor {
            return Draw::Stale { at: Offset(*at) };
        }
        let free = set.iter_mut().filter(|(_, leased)| !**leased).take(usize::from(want));
        let got: Vec<u16> = free
            .map(|(index, leased)| {
                *leased = true;
                *index
            })
            .collect();
        if got.is_empty() { Draw::Empty { at: Offset(*at) } } else { drawn(got, *at) }
    }

    fn restock(&mut self, free: &BTreeSet<u16>, offset: u64) -> Restock {
        if let Some((at, _)) = &self.0
            && *at > offset
        {
            return Restock::Newer { at: Offset(*at) };
        }
        let before = self.0.take().map(|(_, set)| set).unwrap_or_default();
        let leased = |index: &u16| before.get(index).copied().unwrap_or(false);
        self.0 = Some((offset, free.iter().map(|index| (*index, leased(index))).collect()));
        Restock::Stored
    }
}

#[test]
fn any_sequence_of_draws_restocks_and_flushes_does_what_the_model_says() {
    let Some(server) = Server::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let stock = runtime.block_on(connected(&server));
    // No lease ends while the test runs.
    let stock = PoolStock { lease: KEEP, ..stock };
    let steps = proptest::collection::vec(any_step(), 1..40);
    proptest::proptest!(|(steps in steps)| {
        runtime.block_on(async {
            raw::<()>(&stock, &["FLUSHALL"]).await;
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Draw { want, floor } => {
                        assert_eq!(draw(&stock, want, floor).await, model.draw(want, floor));
                    }
                    Step::Restock { free, at } => {
                        let stored = restock(&stock, free.iter().copied(), at).await;
                        assert_eq!(stored, model.restock(&free, at));
                    }
                    Step::Flush => {
                        raw::<()>(&stock, &["FLUSHALL"]).await;
                        model = Model::default();
                    }
                }
            }
        });
    });
}

/// Prints what a draw costs; asserts half its budget, and of the median only.
#[tokio::test]
async fn a_draw_takes_a_small_part_of_its_budget() {
    let Some(server) = Server::start() else { return };
    let stock = connected(&server).await;
    restock(&stock, 0..200, 1).await;
    let mut times = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        assert!(matches!(draw(&stock, 2, 0).await, Draw::Drawn { .. }));
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!("a draw of 2 from 200 blocks: median {:?}, worst {:?}", times[50], times[99]);
    assert!(times[50] < Duration::from_millis(DRAW_MS_MAX) / 2);
}
