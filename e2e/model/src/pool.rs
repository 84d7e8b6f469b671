//! Stock on its way from the pool to shares, and the proof that none is left.
//!
//! Two blocks of one seat each, in the pool; two shares that sell; every owner may be replaced
//! once, and its successor lives on a node that may have read less of the pool. Redis is not
//! drawn at all: a draw may name any block at any time, which is what a stale, flushed or
//! doubled Redis can do at worst. What is left without Redis is the draw from one's own fold.
//!
//! Seats do not come back here, so that "sold out", once true, stays true: a proof that can be
//! had must be true at that moment.

use arrayvec::ArrayVec;
use stateright::{Model, Property};

use crate::check::Subject;

const BLOCKS: usize = 2;
const SHARES: usize = 2;
/// Draws that Redis answers. With these, both shares can be after one block, or each after
/// the other's.
const DRAWS: usize = 2;
/// With those from folds: each of the shares may lose each block to the other, and a successor
/// that has read less may draw once more what is gone.
const TAKES_MAX: usize = 8;
/// Every block accepted and sold, and room for what a left-out rule adds.
const ENTRIES_MAX: usize = 8;

/// A rule to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// The first Take of a block gets it.
    FirstTake,
    /// A block is a share's when its Take is read; without this, when it was drawn.
    TakeDecides,
    /// A Take is accepted once.
    OnceAccepted,
    /// An empty Redis is no answer: one's own fold is.
    FoldDraw,
    /// A proof needs a row of every share (N1).
    EveryRow,
    /// A proof needs every Take up to one's own position to be accepted (N3).
    TakesAccepted,
    /// A proof needs the pool to be empty (N4).
    EmptyPool,
    /// Rows tell what is confirmed to be left; without this, what a frame in flight leaves.
    ConfirmedRows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Take {
    share: u8,
    block: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Entry {
    /// The Take at this place of the pool's log, and what it gave.
    Accept(u8, u8),
    Sold(u8),
}

/// Where a block is by the pool's log.
type Gone = [Option<u8>; BLOCKS];

/// A share's log, folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stock {
    /// One more than the last Take that was accepted.
    accepted: u8,
    entered: [u8; BLOCKS],
    sold: [u8; BLOCKS],
}

impl Stock {
    fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut stock = Self::default();
        for entry in entries {
            match entry {
                Entry::Accept(take, block) => {
                    stock.accepted = take + 1;
                    stock.entered[usize::from(block)] += 1;
                }
                Entry::Sold(block) => stock.sold[usize::from(block)] += 1,
            }
        }
        stock
    }

    fn free(&self) -> impl Iterator<Item = u8> + '_ {
        let left = |block: &u8| self.entered[usize::from(*block)] > self.sold[usize::from(*block)];
        (0..BLOCKS as u8).filter(left)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    /// How much of the pool its writer had read.
    position: u8,
    accepted: u8,
    free: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Share {
    log: ArrayVec<Entry, ENTRIES_MAX>,
    /// How much of the pool its owner's node has read.
    position: u8,
    flight: Option<Entry>,
    row: Option<Row>,
    succeeded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pool: ArrayVec<Take, TAKES_MAX>,
    /// Takes on their way, sorted.
    net: ArrayVec<Take, TAKES_MAX>,
    shares: [Share; SHARES],
    may_lose: bool,
    may_take_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A share draws a block from Redis, which may name any.
    Draw(u8, u8),
    /// A share draws a block from its own fold.
    DrawFromFold(u8, u8),
    /// A Take lands in the pool's log.
    Land(Take),
    /// A Take is lost.
    Lose(Take),
    /// A share's node reads the next record of the pool.
    Read(u8),
    /// An owner accepts its next Take.
    Accept(u8),
    /// An owner sells a seat.
    Sell(u8, u8),
    /// A share's frame lands in its log, and its owner hears so: whoever takes over in between
    /// finds what it would find behind.
    Confirm(u8),
    /// Its owner tells the board.
    Tell(u8),
    /// Another process, which has read that much of the pool, claims the share.
    TakeOver(u8, u8),
}

/// The model, perhaps without one rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool {
    without: Option<Without>,
}

impl Pool {
    fn is_without(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    /// Who has each block after that many records.
    fn gone(takes: &[Take]) -> Gone {
        let mut gone = Gone::default();
        for take in takes {
            gone[usize::from(take.block)].get_or_insert(take.share);
        }
        gone
    }

    /// Whether the Take at `at` gets its block.
    fn gets(&self, takes: &[Take], at: usize) -> bool {
        let before = Self::gone(&takes[..at]);
        before[usize::from(takes[at].block)].is_none() || self.is_without(Without::FirstTake)
    }

    /// The share's next Take behind `accepted` that got something.
    fn next_take(&self, state: &State, share: u8, accepted: u8) -> Option<(u8, u8)> {
        let known = usize::from(state.shares[usize::from(share)].position);
        (usize::from(accepted)..known).find_map(|at| {
            let take = state.pool[at];
            (take.share == share && self.gets(&state.pool, at)).then_some((at as u8, take.block))
        })
    }

    /// What an owner's memory has: ahead of the log by what is in flight.
    fn memory(share: &Share) -> Stock {
        Stock::of(share.log.iter().copied().chain(share.flight))
    }

    fn known(share: &Share) -> Stock {
        Stock::of(share.log.iter().copied())
    }

    /// By rules N1, N3 and N4, as the owner of `share` sees it.
    fn proves(&self, state: &State, share: u8) -> bool {
        let there = &state.shares[usize::from(share)];
        let takes = &state.pool[..usize::from(there.position)];
        let gone = Self::gone(takes);
        if !self.is_without(Without::EmptyPool) && gone.contains(&None) {
            return false;
        }
        // An answer that writes nothing waits for the frame in flight.
        let own = Self::known(there);
        if there.flight.is_some()
            || own.free().next().is_some()
            || self.next_take(state, share, own.accepted).is_some()
        {
            return false;
        }
        (0..SHARES as u8).filter(|other| *other != share && gone.contains(&Some(*other))).all(
            |other| match state.shares[usize::from(other)].row {
                None => self.is_without(Without::EveryRow),
                Some(row) => {
                    let last = (0..takes.len())
                        .rev()
                        .find(|at| takes[*at].share == other && self.gets(takes, *at));
                    let accepted = last.is_none_or(|at| usize::from(row.accepted) > at)
                        || self.is_without(Without::TakesAccepted);
                    row.free == 0 && accepted && row.position <= there.position
                }
            },
        )
    }

    fn send(state: &mut State, take: Take) {
        state.net.push(take);
        state.net.sort_unstable();
    }

    fn draw(&self, state: &mut State, share: u8, block: u8) {
        Self::send(state, Take { share, block });
        if self.is_without(Without::TakeDecides) {
            let there = &mut state.shares[usize::from(share)];
            there.flight = Some(Entry::Accept(Self::known(there).accepted, block));
        }
    }

    fn is_drawing(state: &State, share: u8) -> bool {
        let there = &state.shares[usize::from(share)];
        let unread = &state.pool[usize::from(there.position)..];
        state.net.iter().chain(unread).any(|take| take.share == share)
    }

    /// What goes on without anybody's doing, and comes to rest.
    fn progress(&self, state: &State, actions: &mut Vec<Action>) {
        let mut before = None;
        for take in &state.net {
            if before.replace(take) != Some(take) {
                actions.push(Action::Land(*take));
            }
        }
        for s in 0..SHARES as u8 {
            let there = &state.shares[usize::from(s)];
            let known = usize::from(there.position);
            if known < state.pool.len() {
                actions.push(Action::Read(s));
            }
            match there.flight {
                Some(_) => actions.push(Action::Confirm(s)),
                None => self.owner_progress(state, s, actions),
            }
        }
    }

    fn owner_progress(&self, state: &State, s: u8, actions: &mut Vec<Action>) {
        let there = &state.shares[usize::from(s)];
        let known = usize::from(there.position);
        if self.next_take(state, s, Self::known(there).accepted).is_some() {
            actions.push(Action::Accept(s));
        }
        let gone = Self::gone(&state.pool[..known]);
        if !Self::is_drawing(state, s) && !self.is_without(Without::FoldDraw) {
            let free = (0..BLOCKS as u8).find(|b| gone[usize::from(*b)].is_none());
            actions.extend(free.map(|b| Action::DrawFromFold(s, b)));
        }
    }

    /// What buyers, machines and a Redis without sense do.
    fn troubles(&self, state: &State, actions: &mut Vec<Action>) {
        let room = state.pool.len() + state.net.len() < DRAWS;
        for s in 0..SHARES as u8 {
            let there = &state.shares[usize::from(s)];
            if there.flight.is_none() {
                if room && !Self::is_drawing(state, s) {
                    actions.extend((0..BLOCKS as u8).map(|b| Action::Draw(s, b)));
                }
                actions.extend(Self::known(there).free().map(|b| Action::Sell(s, b)));
            }
            // A row that differs in its position alone only makes proofs harder.
            let told = |row: Row| (row.accepted, row.free);
            if there.row.map(told) != Some(told(self.row(there))) {
                actions.push(Action::Tell(s));
            }
            if state.may_take_over {
                let positions = 0..=state.pool.len() as u8;
                actions.extend(positions.map(|at| Action::TakeOver(s, at)));
            }
        }
        if state.may_lose {
            actions.extend(state.net.first().map(|take| Action::Lose(*take)));
        }
    }

    fn row(&self, share: &Share) -> Row {
        let memory = self.is_without(Without::ConfirmedRows);
        let told = if memory { Self::memory(share) } else { Self::known(share) };
        let (position, accepted) = (share.position, told.accepted);
        Row { position, accepted, free: told.free().count() as u8 }
    }
}

impl Model for Pool {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let share =
            Share { log: ArrayVec::new(), position: 0, flight: None, row: None, succeeded: false };
        vec![State {
            pool: ArrayVec::new(),
            net: ArrayVec::new(),
            shares: [share.clone(), share],
            may_lose: true,
            may_take_over: true,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if self.init_states().contains(state) {
            // Shares and blocks are alike: whichever comes first is the first.
            actions.push(Action::Draw(0, 0));
            return;
        }
        self.progress(state, actions);
        self.troubles(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Draw(s, block) => self.draw(&mut state, s, block),
            Action::DrawFromFold(s, block) => Self::send(&mut state, Take { share: s, block }),
            Action::Land(take) => {
                let at = state.net.iter().position(|t| *t == take)?;
                state.net.remove(at);
                state.pool.push(take);
            }
            Action::Lose(take) => {
                let at = state.net.iter().position(|t| *t == take)?;
                state.net.remove(at);
                state.may_lose = false;
            }
            Action::Read(s) => state.shares[usize::from(s)].position += 1,
            Action::Accept(s) => {
                let accepted = Self::known(&state.shares[usize::from(s)]).accepted;
                let (take, block) = self.next_take(&state, s, accepted)?;
                state.shares[usize::from(s)].flight = Some(Entry::Accept(take, block));
            }
            Action::Sell(s, block) => {
                state.shares[usize::from(s)].flight = Some(Entry::Sold(block));
            }
            Action::Confirm(s) => {
                let there = &mut state.shares[usize::from(s)];
                there.log.push(there.flight.take()?);
            }
            Action::Tell(s) => {
                let row = self.row(&state.shares[usize::from(s)]);
                state.shares[usize::from(s)].row = Some(row);
            }
            Action::TakeOver(s, position) => {
                state.may_take_over = false;
                self.take_over(&mut state, s, position);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_PLACE, |_, s: &State| s.is_in_one_place()),
            Property::always(ONE_SALE, |_, s: &State| {
                (0..BLOCKS).all(|b| s.stocks().map(|stock| stock.sold[b]).sum::<u8>() <= 1)
            }),
            Property::always(TRUE_PROOF, |m: &Self, s: &State| {
                s.is_sold_out() || (0..SHARES as u8).all(|share| !m.proves(s, share))
            }),
            Property::always(ALL_ENTERED, |m: &Self, s: &State| {
                let mut actions = Vec::new();
                m.progress(s, &mut actions);
                !actions.is_empty() || s.has_all_entered()
            }),
            Property::sometimes("two shares draw one block", |_, s: &State| {
                s.pool.iter().any(|t| s.pool.iter().any(|u| t.block == u.block && *t != *u))
            }),
            Property::sometimes("a successor accepts what was taken before it", |_, s: &State| {
                s.shares.iter().any(|there| {
                    there.succeeded && matches!(there.log.first(), Some(Entry::Accept(..)))
                })
            }),
            Property::sometimes("sold out is proven by two shares' rows", |m: &Self, s: &State| {
                m.proves(s, 0) && s.stocks().all(|stock| stock.sold.iter().sum::<u8>() > 0)
            }),
            Property::sometimes("one share has both blocks", |_, s: &State| {
                s.stocks().any(|stock| stock.entered == [1, 1])
            }),
        ]
    }
}

impl Pool {
    /// The log tells the successor what was accepted, the pool's log what was taken.
    fn take_over(&self, state: &mut State, s: u8, position: u8) {
        let there = &mut state.shares[usize::from(s)];
        if self.is_without(Without::OnceAccepted) {
            // It goes by its own memory, which begins here.
            there.flight = there.log.first().copied();
        } else {
            there.flight = None;
        }
        there.position = position;
        there.succeeded = true;
    }
}

impl State {
    fn stocks(&self) -> impl Iterator<Item = Stock> {
        self.shares.iter().map(|there| Stock::of(there.log.iter().copied()))
    }

    /// Every block is in the pool, or was taken by the one share that it may enter, once.
    fn is_in_one_place(&self) -> bool {
        let gone = Pool::gone(&self.pool);
        self.stocks().enumerate().all(|(s, stock)| {
            (0..BLOCKS).all(|b| match stock.entered[b] {
                0 => true,
                1 => gone[b] == Some(s as u8),
                _ => false,
            })
        })
    }

    fn is_sold_out(&self) -> bool {
        (0..BLOCKS).all(|b| self.stocks().any(|stock| stock.sold[b] > 0))
    }

    fn has_all_entered(&self) -> bool {
        (0..BLOCKS).all(|b| self.stocks().any(|stock| stock.entered[b] > 0))
    }
}

const ONE_PLACE: &str = "a block is in exactly one place";
const ONE_SALE: &str = "a seat is sold once";
const TRUE_PROOF: &str = "who proves that nothing is left is right";
const ALL_ENTERED: &str = "at rest no block is left behind";

impl Subject for Pool {
    type Without = Without;
    const NAME: &'static str = "pool";
    const RULES: &'static [(Without, &'static str)] = &[
        (Without::FirstTake, ONE_PLACE),
        (Without::TakeDecides, ONE_SALE),
        (Without::OnceAccepted, ONE_PLACE),
        (Without::FoldDraw, ALL_ENTERED),
        (Without::EveryRow, TRUE_PROOF),
        (Without::TakesAccepted, TRUE_PROOF),
        (Without::EmptyPool, TRUE_PROOF),
        (Without::ConfirmedRows, TRUE_PROOF),
    ];

    fn without(rule: Option<Without>) -> Self {
        Self { without: rule }
    }
}
