//! What the tasks of one core share: the folded pool, the board, who owns what.
//!
//! All of it lives on one thread; a `RefCell` is borrowed for the length of an expression and
//! never across an await, so there is nothing to lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use inventory::board::{Board, NodeState};
use inventory::conductor::{self, Conductor, Me, Onward, Outcome, Place};
use inventory::owner::{Answer, Now};
use inventory::pool::Pool;
use inventory::words::{Address, Incarnation, Millis, NodeId, Offset, ShareId};
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
    /// For the conductor.
    Conductor(conductor::Mail),
    /// A record for partition 0; its fate, if anyone wants to know.
    AppendToPool(Vec<u8>, Option<oneshot::Sender<Fate>>),
}

/// What the worker has folded and heard.
#[derive(Debug)]
pub struct World {
    /// The node's deciding.
    pub conductor: Conductor,
    /// When the ledger last confirmed or gave anything.
    pub ledger_heard: Option<Millis>,
}

impl World {
    /// Partition 0.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.conductor.pool()
    }

    /// The board; none before Genesis was read.
    #[must_use]
    pub fn board(&self) -> Option<&Board> {
        self.conductor.board()
    }

    /// How far this node is.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.conductor.state()
    }
}

/// Both clocks of this process, for any of its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The monotonic clock starts at a day, so that "10 s ago" is a time of its own, and
        // "before a night's sleep" too.
        let mono = self.started.elapsed().as_millis() as u64 + 86_400_000;
        Now { wall: Millis(wall.as_millis() as u64), mono: Millis(mono) }
    }
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
    pub connections: Rc<Cell<usize>>,
    /// Counters.
    pub metrics: Metrics,
    /// The way to other nodes.
    pub courier: Courier,
    /// The way to the pool's stock.
    pub(crate) drawer: Drawer,
    pub(crate) mail: mpsc::Sender<Mail>,
    pub(crate) clock: Clock,
}

impl Station {
    pub(crate) fn new(
        me: Identity,
        pool: Pool,
        drawer: Drawer,
        mail: mpsc::Sender<Mail>,
    ) -> Rc<Self> {
        let sells = me.role == Role::Sell;
        let Identity { node, address, incarnation, .. } = me;
        // Not ready before the worker has asked where partition 0 ends.
        let conductor =
            Conductor::new(Me { node, address, incarnation, sells }, pool, Offset(u64::MAX));
        Rc::new(Self {
            me,
            desk: Rc::default(),
            world: RefCell::new(World { conductor, ledger_heard: None }),
            connections: Rc::default(),
            metrics: Metrics::default(),
            courier: Courier::default(),
            drawer,
            mail,
            clock: Clock { started: Instant::now() },
        })
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Where a share is owned.
    #[must_use]
    pub fn locate(&self, share: ShareId) -> Place {
        self.world.borrow().conductor.locate(share)
    }

    /// Sends mail to the worker; a full box is counted and the mail dropped, as if the network
    /// had lost it: every sender has a way to go on after that, or is answered here.
    pub(crate) fn post(&self, mail: Mail) {
        let Err(refused) = self.mail.try_send(mail) else { return };
        self.metrics.mail_dropped.inc();
        // Of whoever waits for what was passed on, nobody else knows.
        if let Mail::Conductor(conductor::Mail::Returned(Onward::Relay { caller, .. }, _)) =
            refused.into_inner()
        {
            self.desk.answer(caller, Outcome::Answered(Answer::Unknown));
        }
    }
}
