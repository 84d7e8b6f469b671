//! Nodes as threads, and the dispatcher that tells them who should own what.
//!
//! The dispatcher asks each node's control port and posts to it, signed, as the operator does:
//! there is no second way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use control::posting::{Posting, Record};
use control::report::{InForce, Report};
use control::signature::{HEADER, OperatorKey, Request as Signed};
use control::{PLAN_PATH, REPORT_PATH, STATE_PATH};
use crds::sale::{SaleState, TrainSale};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inventory::dispatcher::{self, Dispatcher, Output, Sign, Wish};
use inventory::entry::{self, Limits};
use inventory::words::{Incarnation, Millis, NodeId};
use ledger::file::{FileLedger, FileLog};
use ledger::memory::{MemoryLedger, MemoryLog};
use node::{Identity, Ledgers, Role, Setup};
use tokio::sync::watch;

use crate::Arguments;
use crate::founding::Opened;

/// How often nodes are asked: as the operator does.
const PROBE: Duration = Duration::from_millis(250);
/// A node of this process that does not answer by then is dead or dying.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Ten minutes of beats of a few nodes.
const BOARD_RECORDS: usize = 20_000;
/// Who posts here.
const OPERATOR: &str = "local";

/// Why local mode ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The TrainSale's file.
    #[error("{0}")]
    Sale(String),
    /// The ledger's file.
    #[error("the ledger: {0}")]
    Ledger(String),
    /// A port.
    #[error("port {port} of this machine: {error}; choose others with --port and --admin-port")]
    Port {
        /// Which.
        port: u16,
        /// Why.
        error: std::io::Error,
    },
    /// The system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

struct Files {
    name: String,
    ledger: Arc<FileLedger>,
    board: MemoryLedger,
}

impl Ledgers for Files {
    type Log = FileLog;
    type Board = MemoryLog;

    fn name(&self) -> &str {
        &self.name
    }

    fn log(&self) -> FileLog {
        self.ledger.handle()
    }

    fn board(&self) -> MemoryLog {
        self.board.handle()
    }
}

/// A node as a thread.
#[derive(Debug)]
struct Thread {
    wish: watch::Sender<node::Wish>,
    control: SocketAddr,
    live: SocketAddr,
    handle: std::thread::JoinHandle<()>,
}

/// A node's place: its name and port stay, its thread comes and goes.
#[derive(Debug)]
struct Slot {
    node: NodeId,
    buyers: SocketAddr,
    thread: Option<Thread>,
}

/// The nodes of this process.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// What signatures name.
    sale: String,
    name: String,
    ledger: Arc<FileLedger>,
    board: MemoryLedger,
    key: OperatorKey,
    header: String,
    sample: [String; 4],
    wish: Wish,
    slots: RefCell<Vec<Slot>>,
    dispatcher: RefCell<Dispatcher>,
    reports: RefCell<BTreeMap<NodeId, Report>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Fleet {
    /// Starts all nodes.
    pub(crate) fn start(
        arguments: &Arguments,
        sale: &TrainSale,
        opened: Opened,
    ) -> Result<Rc<Self>, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| Error::Ledger(e.to_string()))?;
        let retained = NonZeroUsize::new(BOARD_RECORDS).unwrap_or(NonZeroUsize::MIN);
        let slots = (0..arguments.nodes).map(|i| {
            let port = arguments.port.checked_add(i).ok_or_else(|| {
                Error::Sale(format!(
                    "--port {}: no room for {} nodes",
                    arguments.port, arguments.nodes
                ))
            })?;
            let node = format!("node-{}", i + 1);
            Ok(Slot {
                node: node.parse().map_err(|_| Error::Sale(node))?,
                buyers: (Ipv4Addr::LOCALHOST, port).into(),
                thread: None,
            })
        });
        let slots: Vec<Slot> = slots.collect::<Result<_, Error>>()?;
        let fleet = Rc::new(Self {
            sale: format!("local/{}", sale.metadata.name.as_deref().unwrap_or_default()),
            name: opened.name,
            ledger: opened.file,
            board: MemoryLedger::retaining(NonZeroU16::MIN, retained),
            key: OperatorKey::from_seed(&seed),
            header: sale.spec.auth.header.clone().unwrap_or_default().name,
            sample: sample(sale),
            wish: wish(sale, usize::from(arguments.nodes)),
            slots: RefCell::new(slots),
            dispatcher: RefCell::new(Dispatcher::new(opened.shares)),
            reports: RefCell::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        });
        for at in 0..usize::from(arguments.nodes) {
            fleet.start_node(at)?;
        }
        Ok(fleet)
    }

    /// The place of the node with this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.slots.borrow().iter().position(|s| s.node.as_str() == name)
    }

    /// Starts the node of a place, unless it runs. False if it does.
    pub(crate) fn start_node(&self, at: usize) -> Result<bool, Error> {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[at];
        if slot.thread.as_ref().is_some_and(|t| !t.handle.is_finished()) {
            return Ok(false);
        }
        let bind = |address: SocketAddr| {
            node::port::bind(address).map_err(|error| Error::Port { port: address.port(), error })
        };
        let buyers = bind(slot.buyers)?;
        let control = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = control.local_addr()?;
        let live = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let looked_at = live.local_addr()?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| Error::Ledger(e.to_string()))?;
        let setup = Setup {
            me: Identity {
                node: slot.node,
                address: address.to_string().parse().map_err(|_| Error::Sale("address".into()))?,
                incarnation: Incarnation(u64::from_le_bytes(random)),
                role: Role::Sell,
                weight: 1,
            },
            sale: self.sale.clone(),
            buyers,
            control,
            live: Some(live),
            identity: control::config::Identity::Header {
                name: self.header.clone(),
                from: Vec::new(),
            },
            payment: control::config::Payment::Sandbox,
            origins: Vec::new(),
            operator: Some(self.key.public()),
            redis: None,
        };
        let files = Files {
            name: self.name.clone(),
            ledger: Arc::clone(&self.ledger),
            board: self.board.clone(),
        };
        let (wish, wanted) = watch::channel(node::Wish::Serve);
        let handle = std::thread::Builder::new()
            .name(slot.node.to_string())
            .spawn(move || serve(setup, files, wanted))?;
        slot.thread = Some(Thread { wish, control: address, live: looked_at, handle });
        Ok(true)
    }

    /// Ends a node at once, without a word to anybody. False if it does not run.
    pub(crate) fn kill(&self, at: usize) -> bool {
        let slots = self.slots.borrow();
        let running = slots[at].thread.as_ref().filter(|t| !t.handle.is_finished());
        running.is_some_and(|thread| thread.wish.send(node::Wish::Kill).is_ok())
    }

    /// A page of the live view, from the first node that answers.
    pub(crate) async fn live(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let all: Vec<SocketAddr> = {
            let slots = self.slots.borrow();
            let running = slots.iter().filter_map(|s| s.thread.as_ref());
            running.filter(|t| !t.handle.is_finished()).map(|t| t.live).collect()
        };
        for live in all {
            let request =
                Request::get(format!("http://{live}{path}")).body(Full::default()).ok()?;
            let exchange = async {
                let (head, body) = self.client.request(request).await.ok()?.into_parts();
                let body = body.collect().await.ok()?.to_bytes();
                Some(Response::from_parts(head, Full::new(body)))
            };
            if let Ok(Some(page)) = tokio::time::timeout(PROBE_TIMEOUT, exchange).await {
                return Some(page);
            }
        }
        None
    }

    /// Where buyers of the first node connect.
    pub(crate) fn buyers(&self) -> SocketAddr {
        self.slots.borrow()[0].buyers
    }

    /// The header that names the buyer.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// A run, two stops and a class that can be bought.
    pub(crate) fn sample(&self) -> &[String; 4] {
        &self.sample
    }

    /// Nodes, the shares they own, and whether they answer, for people.
    pub(crate) fn status(&self) -> Vec<(NodeId, SocketAddr, Option<Report>)> {
        let reports = self.reports.borrow();
        let slots = self.slots.borrow();
        slots.iter().map(|s| (s.node, s.buyers, reports.get(&s.node).cloned())).collect()
    }

    /// Whether every share is owned and the sale's policy is in force.
    pub(crate) fn is_ready(&self) -> bool {
        let dispatcher = self.dispatcher.borrow();
        let view = dispatcher.view(now());
        view.owned == view.shares && view.recovering == 0 && dispatcher.policy().is_some()
    }

    /// Asks, decides and posts, four times a second, for ever.
    pub(crate) async fn dispatch(&self) {
        let mut probe = tokio::time::interval(PROBE);
        probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut versions = (0, 0, 0);
        self.sign(Sign::Wish(self.wish));
        loop {
            probe.tick().await;
            let nodes: Vec<(NodeId, SocketAddr, bool)> = {
                let slots = self.slots.borrow();
                let started = slots.iter().filter_map(|s| Some((s.node, s.thread.as_ref()?)));
                started.map(|(n, t)| (n, t.control, t.handle.is_finished())).collect()
            };
            let mut ready = None;
            for (node, control, ended) in nodes {
                self.sign(Sign::PodSeen { node, sells: true, leaving: false });
                let asked = now();
                let report = self.ask::<Report>(node, control, REPORT_PATH).await;
                match report {
                    Some(report) => {
                        ready = Some((node, control));
                        let position = &report.pool;
                        let latest = (
                            position.definition_version,
                            position.assign_version,
                            position.policy_version,
                        );
                        if latest > versions
                            && let Some(state) =
                                self.ask::<InForce>(node, control, STATE_PATH).await
                            && self.in_force(state)
                        {
                            versions = latest;
                        }
                        if let Ok(said) = dispatcher::Report::try_from(&report) {
                            self.sign(Sign::Answered(Box::new(said)));
                        }
                        self.reports.borrow_mut().insert(node, report);
                    }
                    None => {
                        self.reports.borrow_mut().remove(&node);
                        self.sign(Sign::Unanswered { node, asked, refused: ended });
                    }
                }
            }
            let mut out = Vec::new();
            self.dispatcher.borrow_mut().handle(now(), Sign::Tick, &mut out);
            for output in out {
                self.perform(output, ready).await;
            }
        }
    }

    fn sign(&self, sign: Sign) {
        let mut out = Vec::new();
        self.dispatcher.borrow_mut().handle(now(), sign, &mut out);
        debug_assert!(out.is_empty(), "only a tick decides");
    }

    fn in_force(&self, state: InForce) -> bool {
        let plan = state.assign.map(entry::Assign::try_from).transpose();
        let Ok(plan) = plan else { return false };
        let policy = state.policy.map(Into::into);
        self.sign(Sign::InForce { plan: plan.unwrap_or_default(), policy });
        true
    }

    async fn perform(&self, output: Output, ready: Option<(NodeId, SocketAddr)>) {
        let (record, reason) = match output {
            Output::Post(plan) => (Record::Assign(plan.into()), "the plan changed"),
            Output::Policy(policy) => (Record::Policy(policy.into()), "the sale's policy"),
            // A killed node stays dead here until somebody starts it, so that it can be seen.
            Output::DeletePod(node) => {
                tracing::info!(%node, "held to be dead");
                return;
            }
            Output::Event { reason, message } => {
                let reason: &str = reason.into();
                tracing::info!(reason, message, "dispatcher");
                return;
            }
        };
        let posting = Posting { operator: OPERATOR.into(), reason: reason.into(), record };
        let Some((node, control)) = ready else { return };
        let Ok(body) = serde_json::to_vec(&posting) else { return };
        let answer = self.request(node, control, Method::POST, PLAN_PATH, body.into()).await;
        match answer {
            Some((StatusCode::OK, _)) => {}
            // It is decided anew at the next tick, from what is in force then.
            other => tracing::warn!(?other, "a posting was not taken"),
        }
    }

    async fn ask<T: for<'a> serde::Deserialize<'a>>(
        &self,
        node: NodeId,
        to: SocketAddr,
        path: &str,
    ) -> Option<T> {
        let (status, body) = self.request(node, to, Method::GET, path, Bytes::new()).await?;
        if status != StatusCode::OK {
            return None;
        }
        serde_json::from_slice(&body).ok()
    }

    async fn request(
        &self,
        node: NodeId,
        to: SocketAddr,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Option<(StatusCode, Bytes)> {
        let signed = Signed {
            method: method.as_str(),
            path,
            body: &body,
            sale: &self.sale,
            node: node.as_str(),
        };
        let signature = self.key.sign(now(), &signed);
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{to}{path}"))
            .header(HEADER, signature)
            .body(Full::new(body))
            .ok()?;
        let exchange = async {
            let response = self.client.request(request).await.ok()?;
            let status = response.status();
            Some((status, response.into_body().collect().await.ok()?.to_bytes()))
        };
        tokio::time::timeout(PROBE_TIMEOUT, exchange).await.ok()?
    }
}

fn serve(setup: Setup, files: Files, wish: watch::Receiver<node::Wish>) {
    let node = setup.me.node;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(node::Error::from).and_then(|runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, node::run(setup, files, wish, |_| ()))
    });
    if let Err(error) = result {
        tracing::error!(%node, %error, "a node ended");
    }
}

fn now() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(now.as_millis() as u64)
}

/// The first run from end to end, in its last and so most likely largest class.
fn sample(sale: &TrainSale) -> [String; 4] {
    let spec = &sale.spec;
    let run = spec.runs.first();
    let timetable = run.and_then(|r| spec.timetables.iter().find(|t| t.name == r.timetable));
    let stop = |at: fn(&[crds::sale::Stop]) -> Option<&crds::sale::Stop>| {
        timetable.and_then(|t| at(&t.stops)).map(|s| s.code.clone()).unwrap_or_default()
    };
    [
        run.map(|r| format!("{}/{}", r.train, r.date)).unwrap_or_default(),
        stop(<[_]>::first),
        stop(<[_]>::last),
        timetable.and_then(|t| t.classes.last()).map(|c| c.name.clone()).unwrap_or_default(),
    ]
}

/// What the sale should be like, from its spec.
fn wish(sale: &TrainSale, sellers: usize) -> Wish {
    let spec = &sale.spec;
    let millis = |ms: i64| u64::try_from(ms).ok().map(Millis);
    Wish {
        sellers,
        begin_at: None,
        state: match spec.state {
            SaleState::Active => entry::SaleState::Active,
            SaleState::Suspended => entry::SaleState::Suspended,
            SaleState::Stopped => entry::SaleState::Stopped,
        },
        open: spec.open_time.as_ref().and_then(|t| millis(t.0.as_millisecond())),
        close: spec.close_time.as_ref().and_then(|t| millis(t.0.as_millisecond())),
        limits: Limits {
            passengers_per_order: spec.limits.passengers_per_order,
            live_holds: spec.limits.live_holds_per_buyer_per_run,
            orders: spec.limits.orders_per_buyer_per_run,
            payment_ms: spec.holds.payment_seconds.saturating_mul(1_000),
            grace_ms: spec.holds.grace_seconds.saturating_mul(1_000),
            low_water_seats: spec.stock.low_water_seats.into(),
        },
    }
}
