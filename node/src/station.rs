//! What the tasks of one core share: the folded pool, the board, who owns what.
//!
//! All of it lives on one thread; a `RefCell` is borrowed for the length of an expression and
//! never across an await, so there is nothing to lock.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use inventory::board::{Board, NodeState, ShareStage};
use inventory::owner::{Answer, Caller, Now, Owner, Reply};
use inventory::pool::Pool;
use inventory::words::{
    Address, Attempt, Epoch, Incarnation, Millis, NodeId, Offset, OrderId, ShareId,
};
use ledger::Fate;
use tokio::sync::{mpsc, oneshot};

use crate::courier::Courier;
use crate::desk::Desk;
use crate::draw::Drawer;
use crate::telemetry::Metrics;

/// Mail for the worker. Candidates send one each, orders on their way one each, postings one
/// each; all of them are bounded by what sent them, far below this.
pub(crate) const MAIL_MAX: usize = 8_192;

/// What a node does.
pub use control::config::Role;

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name.
    pub node: NodeId,
    /// Where peers reach its control port.
    pub address: Address,
    /// This process.
    pub incarnation: Incarnation,
    /// What it does.
    pub role: Role,
    /// How many shares it should own, relative to others.
    pub weight: u16,
}

/// Something for the worker that did not come through the desk.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A candidate's Claim was accepted; where partition 0 ended after that.
    Owns(Box<Owner>, Offset),
    /// A candidate gave up; the share may be tried again later.
    Gone(ShareId),
    /// What another node said to an order on its way.
    Reply(ShareId, OrderId, Attempt, Reply),
    /// What another node answered to a command that was passed on.
    Relayed(ShareId, OrderId, Caller, Answer),
    /// A record for partition 0; its fate, if anyone wants to know.
    AppendToPool(Vec<u8>, Option<oneshot::Sender<Fate>>),
    /// Give everything up and end.
    Drain,
}

/// What the worker has folded and heard.
#[derive(Debug)]
pub struct World {
    /// Partition 0.
    pub pool: Pool,
    /// The board; none before Genesis was read.
    pub board: Option<Board>,
    /// How far this node is.
    pub state: NodeState,
    /// Shares owned here.
    pub owned: BTreeMap<ShareId, (Epoch, ShareStage)>,
    /// Shares that are folded to be claimed.
    pub candidates: Vec<ShareId>,
    /// When the ledger last confirmed or gave anything.
    pub ledger_heard: Option<Millis>,
    /// When a beat of anyone was last read.
    pub board_heard: Option<Millis>,
}

/// What the tasks of one core share.
#[derive(Debug)]
pub struct Station {
    /// Who this node is.
    pub me: Identity,
    /// Where commands are left.
    pub desk: Rc<Desk>,
    /// What the worker has folded and heard.
    pub world: RefCell<World>,
    /// Connections that are open.
    pub connections: Cell<usize>,
    /// Counters.
    pub metrics: Metrics,
    /// The way to other nodes.
    pub courier: Courier,
    /// The way to the pool's stock.
    pub(crate) drawer: Drawer,
    pub(crate) mail: mpsc::Sender<Mail>,
    started: Instant,
}

/// Where a share is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Here,
    /// On that node.
    There(Address),
    /// Nobody was heard to own it.
    Unowned,
}

impl Station {
    pub(crate) fn new(
        me: Identity,
        pool: Pool,
        drawer: Drawer,
        mail: mpsc::Sender<Mail>,
    ) -> Rc<Self> {
        Rc::new(Self {
            me,
            desk: Rc::default(),
            world: RefCell::new(World {
                pool,
                board: None,
                state: NodeState::Starting,
                owned: BTreeMap::new(),
                candidates: Vec::new(),
                ledger_heard: None,
                board_heard: None,
            }),
            connections: Cell::new(0),
            metrics: Metrics::default(),
            courier: Courier::default(),
            drawer,
            mail,
            started: Instant::now(),
        })
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The monotonic clock starts at a minute, so that "10 s ago" is a time of its own.
        let mono = self.started.elapsed().as_millis() as u64 + 60_000;
        Now { wall: Millis(wall.as_millis() as u64), mono: Millis(mono) }
    }

    /// Where a share is owned.
    #[must_use]
    pub fn locate(&self, share: ShareId) -> Place {
        let world = self.world.borrow();
        if world.owned.contains_key(&share) {
            return Place::Here;
        }
        let Some(board) = &world.board else { return Place::Unowned };
        let node = board.share(share).map(|s| s.node).filter(|n| *n != self.me.node);
        node.and_then(|n| board.node(n)).map_or(Place::Unowned, |n| Place::There(n.address))
    }

    /// Sends mail to the worker; a full box is counted and the mail dropped, as if the network
    /// had lost it: every sender has a way to go on after that.
    pub(crate) fn post(&self, mail: Mail) {
        if self.mail.try_send(mail).is_err() {
            self.metrics.mail_dropped.inc();
        }
    }
}
