//! Orders that travel: Sent, Held elsewhere, Placed, Returned, Refused, Closed.
//!
//! One buyer with one key, a home without seats, and two other shares with one seat each. Every
//! owner may be replaced once; the one before lives on: it reads what is delivered, writes
//! what no longer counts, and answers from memory what it knew to be in the log. A crash is a
//! replaced owner that does nothing. The network keeps requests and replies as long as it
//! likes, and may lose one.
//!
//! How a share gets one owner is `share`'s business; here, what a replaced owner has on its
//! way does not count.

use arrayvec::ArrayVec;
use stateright::{Model, Property};

use crate::check::Subject;

const HOME: u8 = 0;
const SHARES: usize = 3;
/// Home has no seats; the other two have one each.
const OTHERS: [u8; 2] = [1, 2];
/// One order of each home owner, tried twice.
const ATTEMPTS_MAX: u8 = 2;
/// Both orders of a home: sent, back, sent, there, over; less than this elsewhere.
const ENTRIES_MAX: usize = 10;
/// Every order and try asked for, asked after, and answered: never so many.
const MESSAGES_MAX: usize = 12;

/// A rule to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// A no to a question after an order is written down, and forbids it for ever.
    Refused,
    /// That no is said when it is confirmed.
    RefusedConfirmed,
    /// A request is made once; without this, silence makes home ask for seats again.
    Once,
    /// A request is made when its Sent is confirmed.
    SentConfirmed,
    /// A yes is said when it is confirmed.
    HeldConfirmed,
    /// Silence is no answer; without this, it is a no.
    Silence,
    /// An order of which nothing is heard is asked after.
    Resolve,
    /// A new home owner asks after what was on its way; without this, the old one's timers do.
    ResolveAfterTakeover,
}

/// An order is named by the home owner who made it: the first, or the second.
type Id = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Try {
    id: Id,
    attempt: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Entry {
    // At home.
    Sent(Try, u8),
    Placed(Try),
    Returned(Try),
    Closed(Try),
    // Elsewhere.
    Held(Try),
    Refused(Try),
    Ended(Id),
    /// The seat goes to a buyer of that share's own.
    Local,
    /// And comes back.
    Back,
}

/// Where an order is, at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtHome {
    Sent(Try, u8),
    Seeking(Try),
    Placed(Try, u8),
    Closed,
}

/// Where an order is, elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Held(Try),
    Ended(Try),
}

/// A share's log, folded. Small enough to be folded anew whenever it is looked at.
#[derive(Debug, Clone, Default)]
struct Fold {
    /// The key's only order, and where it is.
    order: Option<(Id, AtHome)>,
    there: ArrayVec<There, 2>,
    refused: ArrayVec<Try, 4>,
    sold: bool,
    fault: bool,
}

impl Fold {
    fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut fold = Self::default();
        for entry in entries {
            fold.fault |= !fold.apply(entry);
        }
        fold
    }

    /// Lets an entry happen. False if it contradicts.
    fn apply(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Sent(tried, to) => {
                let vacant = match self.order {
                    None => true,
                    Some((id, AtHome::Seeking(_))) => id == tried.id,
                    Some(_) => false,
                };
                self.order = Some((tried.id, AtHome::Sent(tried, to)));
                vacant
            }
            Entry::Placed(tried) => self.move_on(tried, |to| AtHome::Placed(tried, to)),
            Entry::Returned(tried) => self.move_on(tried, |_| AtHome::Seeking(tried)),
            Entry::Closed(tried) => {
                let placed =
                    matches!(self.order, Some((_, AtHome::Placed(there, _))) if there == tried);
                self.order = Some((tried.id, AtHome::Closed));
                placed
            }
            Entry::Held(tried) => {
                let sound = self.there_of(tried.id).is_none()
                    && !self.sold
                    && !self.refused.contains(&tried);
                self.sold = true;
                self.there.push(There::Held(tried));
                sound
            }
            Entry::Refused(tried) => {
                self.refused.push(tried);
                self.there_of(tried.id).is_none()
            }
            Entry::Ended(id) => self.end(id),
            Entry::Local => !std::mem::replace(&mut self.sold, true),
            Entry::Back => std::mem::replace(&mut self.sold, false),
        }
    }

    fn move_on(&mut self, tried: Try, to: impl Fn(u8) -> AtHome) -> bool {
        match self.order {
            Some((id, AtHome::Sent(sent, share))) if sent == tried => {
                self.order = Some((id, to(share)));
                true
            }
            _ => false,
        }
    }

    fn end(&mut self, id: Id) -> bool {
        for there in &mut self.there {
            if let There::Held(tried) = *there
                && tried.id == id
            {
                *there = There::Ended(tried);
                self.sold = false;
                return true;
            }
        }
        false
    }

    fn there_of(&self, id: Id) -> Option<There> {
        let of = |there: &&There| matches!(there, There::Held(t) | There::Ended(t) if t.id == id);
        self.there.iter().find(of).copied()
    }

    /// Orders of the key that hold a seat here.
    fn live(&self) -> usize {
        self.there.iter().filter(|there| matches!(there, There::Held(_))).count()
    }
}

/// What will be said when a frame is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flight {
    entry: Entry,
    /// Where it is in the log, once it is there.
    at: Option<u8>,
    /// Who asked, if it answers.
    asker: Option<u8>,
}

/// An owner, present or former.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    /// The first, or the second.
    number: u8,
    /// How much of the log it knows to be there.
    confirmed: u8,
    flight: Option<Flight>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Share {
    log: ArrayVec<Entry, ENTRIES_MAX>,
    owner: Owner,
    /// The one before, until it learns of it.
    former: Option<Owner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Answer {
    Held,
    Ended,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    /// Seats, please.
    Host { tried: Try, to: u8, asker: u8 },
    /// What became of it?
    Resolve { tried: Try, to: u8, asker: u8 },
    /// To a home owner.
    Reply { tried: Try, asker: u8, answer: Answer },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    shares: [Share; SHARES],
    /// Sorted, so that one multitude is one state.
    net: ArrayVec<Message, MESSAGES_MAX>,
    may_lose: bool,
    takeovers: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The buyer presses; home sends the order there.
    Press(u8),
    /// A frame of the present owner lands in the log.
    Land(u8),
    /// An owner hears of its frame; the former one, if so said.
    Confirm(u8, bool),
    /// A message arrives; at the former owner, if so said.
    Arrive(usize, bool),
    /// Home asks after its order.
    Ask,
    /// The order ends where it lives: cancelled, or past its deadline.
    End(u8, u8),
    /// The seat goes to a buyer of that share's own.
    Sell(u8),
    /// And comes back.
    Free(u8),
    /// Another process claims the share.
    TakeOver(u8),
    /// A message is lost.
    Lose(usize),
}

/// The model, perhaps without one rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Travel {
    without: Option<Without>,
}

impl Travel {
    fn is_without(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    /// What an owner knows to be in the log.
    fn known(share: &Share, owner: &Owner) -> Fold {
        Fold::of(share.log[..usize::from(owner.confirmed)].iter().copied())
    }

    /// What an owner's memory says: ahead of the log by what is in flight.
    fn memory(share: &Share, owner: &Owner) -> Fold {
        let flight = owner.flight.map(|f| f.entry);
        let known = share.log[..usize::from(owner.confirmed)].iter().copied();
        Fold::of(known.chain(flight))
    }

    fn send(state: &mut State, message: Message) {
        state.net.push(message);
        state.net.sort_unstable();
    }

    fn write(state: &mut State, share: u8, entry: Entry, asker: Option<u8>) {
        let owner = &mut state.shares[usize::from(share)].owner;
        owner.flight = Some(Flight { entry, at: None, asker });
    }

    /// Whose questions are answered by this entry once it is confirmed, and how.
    fn answer_of(entry: Entry) -> Option<(Try, Answer)> {
        match entry {
            Entry::Held(tried) => Some((tried, Answer::Held)),
            Entry::Refused(tried) => Some((tried, Answer::No)),
            _ => None,
        }
    }

    fn confirm(&self, state: &mut State, at: u8, former: bool) -> Option<()> {
        let share = &mut state.shares[usize::from(at)];
        let owner = if former { share.former.as_mut()? } else { &mut share.owner };
        let (flight, number) = (owner.flight.take()?, owner.number);
        owner.confirmed = flight.at? + 1;
        if let Entry::Sent(tried, to) = flight.entry
            && !self.is_without(Without::SentConfirmed)
        {
            Self::send(state, Message::Host { tried, to, asker: number });
        }
        if let (Some(asker), Some((tried, answer))) = (flight.asker, Self::answer_of(flight.entry))
        {
            Self::reply(state, tried, asker, answer);
        }
        Some(())
    }

    fn press(&self, state: &mut State, to: u8) -> Option<()> {
        let home = &state.shares[usize::from(HOME)];
        let number = home.owner.number;
        let tried = match Self::known(home, &home.owner).order {
            Some((_, AtHome::Seeking(last))) => Try { attempt: last.attempt + 1, ..last },
            _ => Try { id: number, attempt: 1 },
        };
        Self::write(state, HOME, Entry::Sent(tried, to), None);
        if self.is_without(Without::SentConfirmed) {
            Self::send(state, Message::Host { tried, to, asker: number });
        }
        Some(())
    }

    /// Only a present owner waits for replies: what a former one writes does not count.
    fn reply(state: &mut State, tried: Try, asker: u8, answer: Answer) {
        if state.shares[usize::from(HOME)].owner.number == asker {
            Self::send(state, Message::Reply { tried, asker, answer });
        }
    }

    fn arrive(&self, state: &mut State, message: Message, former: bool) -> Option<()> {
        match message {
            Message::Host { tried, to, asker } => {
                self.host(state, (tried, to, asker), former)?;
            }
            Message::Resolve { tried, to, asker } => {
                self.resolve(state, (tried, to, asker), former)?;
            }
            Message::Reply { tried, answer, .. } => Self::hear(state, tried, answer),
        }
        Some(())
    }

    fn host(&self, state: &mut State, asked: (Try, u8, u8), former: bool) -> Option<()> {
        let (tried, to, asker) = asked;
        let share = &state.shares[usize::from(to)];
        let owner = if former { share.former.as_ref()? } else { &share.owner };
        let memory = Self::memory(share, owner);
        let answer = match memory.there_of(tried.id) {
            _ if memory.refused.contains(&tried) => Answer::No,
            Some(There::Held(_)) => Answer::Held,
            Some(There::Ended(_)) => Answer::Ended,
            None if memory.sold => Answer::No,
            // What a former owner writes never counts, and so is never answered.
            None if former => return Some(()),
            None => {
                Self::write(state, to, Entry::Held(tried), Some(asker));
                if !self.is_without(Without::HeldConfirmed) {
                    return Some(());
                }
                Answer::Held
            }
        };
        Self::reply(state, tried, asker, answer);
        Some(())
    }

    fn resolve(&self, state: &mut State, asked: (Try, u8, u8), former: bool) -> Option<()> {
        let (tried, to, asker) = asked;
        let share = &state.shares[usize::from(to)];
        let owner = if former { share.former.as_ref()? } else { &share.owner };
        let memory = Self::memory(share, owner);
        let answer = match memory.there_of(tried.id) {
            Some(There::Held(there)) if there == tried => Answer::Held,
            Some(There::Ended(there)) if there == tried => Answer::Ended,
            _ if memory.refused.contains(&tried) => Answer::No,
            // Of another try: nothing certain can be said of this one.
            Some(_) => return Some(()),
            None if self.is_without(Without::Refused) => Answer::No,
            None if former => return Some(()),
            None => {
                Self::write(state, to, Entry::Refused(tried), Some(asker));
                if !self.is_without(Without::RefusedConfirmed) {
                    return Some(());
                }
                Answer::No
            }
        };
        Self::reply(state, tried, asker, answer);
        Some(())
    }

    /// A reply at home.
    fn hear(state: &mut State, tried: Try, answer: Answer) {
        let home = &state.shares[usize::from(HOME)];
        let entry = match (Self::known(home, &home.owner).order, answer) {
            (Some((_, AtHome::Sent(sent, _))), Answer::No) if sent == tried => {
                Entry::Returned(tried)
            }
            (Some((_, AtHome::Sent(sent, _))), _) if sent == tried => Entry::Placed(tried),
            (Some((_, AtHome::Placed(there, _))), Answer::Ended | Answer::No) if there == tried => {
                Entry::Closed(tried)
            }
            _ => return,
        };
        Self::write(state, HOME, entry, None);
    }

    /// The question that home would ask now.
    fn question(&self, state: &State) -> Option<Message> {
        let home = &state.shares[usize::from(HOME)];
        if home.owner.flight.is_some() || self.is_without(Without::Resolve) {
            return None;
        }
        let asker = home.owner.number;
        if asker > 1 && self.is_without(Without::ResolveAfterTakeover) {
            return None;
        }
        let (tried, to) = match Self::known(home, &home.owner).order? {
            (_, AtHome::Sent(tried, to)) => (tried, to),
            // While it lives there, asking changes nothing.
            (_, AtHome::Placed(tried, to)) if Self::has_ended(state, tried, to) => (tried, to),
            _ => return None,
        };
        let waits = |m: &Message| match m {
            Message::Resolve { tried: t, asker: a, .. }
            | Message::Reply { tried: t, asker: a, .. } => *t == tried && *a == asker,
            Message::Host { .. } => false,
        };
        if state.net.iter().any(waits) || Self::answers(state, to, tried) {
            return None;
        }
        let host = Message::Host { tried, to, asker };
        // Twice on its way is enough to show what repeating does.
        if state.net.iter().filter(|m| **m == host).count() > 1 {
            return None;
        }
        Some(match self.without {
            Some(Without::Once) => host,
            Some(Without::Silence) => Message::Reply { tried, asker, answer: Answer::No },
            _ => Message::Resolve { tried, to, asker },
        })
    }

    /// Whether the share is about to answer.
    fn answers(state: &State, share: u8, tried: Try) -> bool {
        let flight = state.shares[usize::from(share)].owner.flight;
        flight.and_then(|f| Self::answer_of(f.entry)).is_some_and(|(t, _)| t == tried)
    }

    fn has_ended(state: &State, tried: Try, share: u8) -> bool {
        let there = Fold::of(state.shares[usize::from(share)].log.iter().copied());
        there.there_of(tried.id) == Some(There::Ended(tried))
    }

    fn may_press(&self, state: &State, to: u8) -> bool {
        let home = &state.shares[usize::from(HOME)];
        let free = home.owner.flight.is_none();
        free && match Self::known(home, &home.owner).order {
            None => to == OTHERS[0],
            Some((_, AtHome::Seeking(last))) => last.attempt < ATTEMPTS_MAX,
            _ => false,
        }
    }

    /// What goes on without anybody's doing, and comes to rest.
    fn progress(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..SHARES as u8 {
            let share = &state.shares[usize::from(at)];
            match share.owner.flight {
                Some(Flight { at: None, .. }) => actions.push(Action::Land(at)),
                Some(_) => actions.push(Action::Confirm(at, false)),
                None => {}
            }
        }
        for (at, message) in state.net.iter().enumerate() {
            let to = match message {
                Message::Host { to, .. } | Message::Resolve { to, .. } => *to,
                Message::Reply { .. } => HOME,
            };
            let hasty = [Without::HeldConfirmed, Without::RefusedConfirmed];
            let hasty = to != HOME && self.without.is_some_and(|w| hasty.contains(&w));
            let busy = state.shares[usize::from(to)].owner.flight;
            // An answer that writes nothing would wait for the frame in flight anyway.
            if busy.is_none() || hasty && Self::only_answers(state, *message) {
                actions.push(Action::Arrive(at, false));
            }
        }
        if self.question(state).is_some() {
            actions.push(Action::Ask);
        }
    }

    fn only_answers(state: &State, message: Message) -> bool {
        let (Message::Host { tried, to, .. } | Message::Resolve { tried, to, .. }) = message else {
            return false;
        };
        let share = &state.shares[usize::from(to)];
        Self::memory(share, &share.owner).there_of(tried.id).is_some()
    }

    /// What buyers, networks and machines do.
    fn troubles(&self, state: &State, actions: &mut Vec<Action>) {
        for to in OTHERS {
            if self.may_press(state, to) {
                actions.push(Action::Press(to));
            }
            let share = &state.shares[usize::from(to)];
            let known = Self::known(share, &share.owner);
            if share.owner.flight.is_none() {
                for there in &known.there {
                    if let There::Held(tried) = there {
                        actions.push(Action::End(to, tried.id));
                    }
                }
                let (sold, back) = (Entry::Local, Entry::Back);
                if to == OTHERS[0] && !known.sold && !share.log.contains(&sold) {
                    actions.push(Action::Sell(to));
                }
                if share.log.contains(&sold) && !share.log.contains(&back) {
                    actions.push(Action::Free(to));
                }
            }
        }
        for at in 0..SHARES as u8 {
            let share = &state.shares[usize::from(at)];
            if state.takeovers > 0 && share.owner.number == 1 {
                actions.push(Action::TakeOver(at));
            }
            if share.former.as_ref().is_some_and(|f| f.flight.is_some()) {
                actions.push(Action::Confirm(at, true));
            }
        }
        for (at, message) in state.net.iter().enumerate() {
            if let Message::Host { to, .. } | Message::Resolve { to, .. } = message
                && state.shares[usize::from(*to)].former.is_some()
            {
                actions.push(Action::Arrive(at, true));
            }
            if state.may_lose {
                actions.push(Action::Lose(at));
            }
        }
    }

    fn take_over(state: &mut State, at: u8) {
        let share = &mut state.shares[usize::from(at)];
        let confirmed = share.log.len() as u8;
        let owner = Owner { number: share.owner.number + 1, confirmed, flight: None };
        let mut former = std::mem::replace(&mut share.owner, owner);
        // What has not landed is void from here on; its writer hears so, and is gone.
        former.flight = former.flight.filter(|f| f.at.is_some());
        share.former = Some(former);
        if at == HOME {
            state.net.retain(|m| !matches!(m, Message::Reply { .. }));
        }
    }
}

impl Model for Travel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let owner = Owner { number: 1, confirmed: 0, flight: None };
        let share = Share { log: ArrayVec::new(), owner, former: None };
        let shares = [share.clone(), share.clone(), share];
        vec![State { shares, net: ArrayVec::new(), may_lose: true, takeovers: 2 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.progress(state, actions);
        self.troubles(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Press(to) => self.press(&mut state, to)?,
            Action::Land(at) => {
                let share = &mut state.shares[usize::from(at)];
                let flight = share.owner.flight.as_mut()?;
                flight.at = Some(share.log.len() as u8);
                share.log.push(flight.entry);
            }
            Action::Confirm(at, former) => self.confirm(&mut state, at, former)?,
            Action::Arrive(at, former) => {
                let message = state.net.remove(at);
                self.arrive(&mut state, message, former)?;
            }
            Action::Ask => {
                let question = self.question(&state)?;
                Self::send(&mut state, question);
            }
            Action::End(at, id) => Self::write(&mut state, at, Entry::Ended(id), None),
            Action::Sell(at) => Self::write(&mut state, at, Entry::Local, None),
            Action::Free(at) => Self::write(&mut state, at, Entry::Back, None),
            Action::TakeOver(at) => {
                state.takeovers -= 1;
                Self::take_over(&mut state, at);
            }
            Action::Lose(at) => {
                state.net.remove(at);
                state.may_lose = false;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_ORDER, |_, s: &State| {
                s.others().map(|(_, fold)| fold.live()).sum::<usize>() <= 1
            }),
            Property::always(NO_FAULT, |_, s: &State| s.folds().all(|fold| !fold.fault)),
            Property::always(PLACED, |_, s: &State| {
                s.home_entries().all(|entry| match entry {
                    Entry::Placed(tried) => s.was_held(tried),
                    _ => true,
                })
            }),
            Property::always(RETURNED, |_, s: &State| {
                s.home_entries().all(|entry| match entry {
                    Entry::Returned(tried) => !s.was_held(tried),
                    _ => true,
                })
            }),
            Property::always(RESOLVED, |m: &Self, s: &State| {
                let mut actions = Vec::new();
                m.progress(s, &mut actions);
                !actions.is_empty() || s.is_resolved()
            }),
            Property::sometimes("a try is refused, and its request comes later", |_, s: &State| {
                s.net.iter().any(|m| match m {
                    Message::Host { tried, to, .. } => s.fold(*to).refused.contains(tried),
                    _ => false,
                })
            }),
            Property::sometimes("a second try is placed", |_, s: &State| {
                s.home_entries().any(|e| matches!(e, Entry::Placed(Try { attempt: 2, .. })))
            }),
            Property::sometimes(
                "a second owner learns of the first one's order",
                |_, s: &State| {
                    let home = &s.shares[usize::from(HOME)];
                    home.owner.number == 2 && home.log.last() == Some(&Entry::Placed(FIRST))
                },
            ),
            Property::sometimes("an order is closed at home", |_, s: &State| {
                s.home_entries().any(|entry| matches!(entry, Entry::Closed(_)))
            }),
            Property::sometimes(
                "a lost frame's key comes again as another order",
                |_, s: &State| {
                    s.home_entries().any(|entry| matches!(entry, Entry::Sent(Try { id: 2, .. }, _)))
                },
            ),
        ]
    }
}

const FIRST: Try = Try { id: 1, attempt: 1 };

impl State {
    fn fold(&self, share: u8) -> Fold {
        Fold::of(self.shares[usize::from(share)].log.iter().copied())
    }

    fn folds(&self) -> impl Iterator<Item = Fold> {
        (0..SHARES as u8).map(|at| self.fold(at))
    }

    fn others(&self) -> impl Iterator<Item = (u8, Fold)> {
        OTHERS.into_iter().map(|at| (at, self.fold(at)))
    }

    fn home_entries(&self) -> impl Iterator<Item = Entry> {
        self.shares[usize::from(HOME)].log.iter().copied()
    }

    fn was_held(&self, tried: Try) -> bool {
        self.others().any(|(_, fold)| {
            matches!(fold.there_of(tried.id), Some(There::Held(t) | There::Ended(t)) if t == tried)
        })
    }

    /// Home knows of every order what its seats know, and nothing is on its way.
    fn is_resolved(&self) -> bool {
        let home = self.fold(HOME).order;
        let on_its_way = matches!(home, Some((_, AtHome::Sent(..))));
        let known = |(at, fold): (u8, Fold)| {
            fold.there.iter().all(|there| match there {
                There::Held(tried) => home == Some((tried.id, AtHome::Placed(*tried, at))),
                There::Ended(tried) => home != Some((tried.id, AtHome::Placed(*tried, at))),
            })
        };
        !on_its_way && self.others().all(known)
    }
}

const ONE_ORDER: &str = "one live order per key";
const NO_FAULT: &str = "no frame contradicts another: nothing both Refused and Held";
const PLACED: &str = "what home calls placed was held there";
const RETURNED: &str = "what home calls returned was never held there";
const RESOLVED: &str = "at rest every order is resolved, and home knows it";

impl Subject for Travel {
    type Without = Without;
    const NAME: &'static str = "travel";
    const RULES: &'static [(Without, &'static str)] = &[
        (Without::Refused, RETURNED),
        (Without::RefusedConfirmed, RETURNED),
        (Without::Once, RETURNED),
        (Without::SentConfirmed, ONE_ORDER),
        (Without::HeldConfirmed, PLACED),
        (Without::Silence, RETURNED),
        (Without::Resolve, RESOLVED),
        (Without::ResolveAfterTakeover, RESOLVED),
    ];

    fn without(rule: Option<Without>) -> Self {
        Self { without: rule }
    }
}
