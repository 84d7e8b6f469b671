//! Folding shares and claiming them, on a thread of their own.
//!
//! Folding a long log takes seconds of CPU; buyers of the shares that this node owns already
//! must not wait for it. The finished owner is mailed to the worker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use inventory::claim::{Standing, may_claim, patience_ms};
use inventory::owner::{Candidate, Now, Progress};
use inventory::words::{Millis, Offset, ShareId};
use ledger::{Log, Partition, Slip, Tail, Torn};
use tokio::sync::{mpsc, watch};

use crate::station::Mail;

/// Starts of candidates that wait for the thread: one for each share of the largest ledger.
const STARTS_MAX: usize = 1_024;

/// A Claim that was not read back by then is appended again; a second one of the same epoch
/// by the same process is void or harmless.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// What a candidate knows of its chances; none once the node has lost interest.
type Prospect = watch::Receiver<Option<(Standing, Now)>>;

struct Start<L> {
    share: ShareId,
    candidate: Candidate,
    log: L,
    prospect: Prospect,
}

/// The worker's end: which shares are being folded, and what they are told.
pub(crate) struct Candidates<L> {
    starts: mpsc::Sender<Start<L>>,
    running: BTreeMap<ShareId, watch::Sender<Option<(Standing, Now)>>>,
}

impl<L: Log> Candidates<L> {
    /// Starts the thread. It ends when this is dropped and no claim is in flight.
    pub(crate) fn new(mail: mpsc::Sender<Mail>) -> std::io::Result<Self> {
        let (starts, inbox) = mpsc::channel(STARTS_MAX);
        std::thread::Builder::new().name("candidates".into()).spawn(move || serve(inbox, &mail))?;
        Ok(Self { starts, running: BTreeMap::new() })
    }

    /// Whether the share is being folded.
    pub(crate) fn contains(&self, share: ShareId) -> bool {
        self.running.contains_key(&share)
    }

    /// Shares that are being folded.
    pub(crate) fn shares(&self) -> impl Iterator<Item = ShareId> + '_ {
        self.running.keys().copied()
    }

    /// Begins to fold a share.
    pub(crate) fn start(&mut self, candidate: Candidate, log: L, standing: (Standing, Now)) {
        let share = candidate.state().share();
        let (tell, prospect) = watch::channel(Some(standing));
        if self.starts.try_send(Start { share, candidate, log, prospect }).is_ok() {
            self.running.insert(share, tell);
        }
    }

    /// Tells a candidate how it stands; none ends it unless its Claim is in flight.
    pub(crate) fn tell(&self, share: ShareId, standing: Option<(Standing, Now)>) {
        if let Some(tell) = self.running.get(&share) {
            tell.send_replace(standing);
        }
    }

    /// Forgets a candidate that has ended.
    pub(crate) fn ended(&mut self, share: ShareId) {
        self.running.remove(&share);
    }
}

fn serve<L: Log>(mut inbox: mpsc::Receiver<Start<L>>, mail: &mpsc::Sender<Mail>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        tracing::error!("no runtime for candidates: this node will own nothing");
        return;
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(start) = inbox.recv().await {
            let mail = mail.clone();
            tasks.spawn_local(async move {
                let share = start.share;
                let end = match stand(start).await {
                    Ok(Some((owner, end))) => Mail::Owns(owner, end),
                    Ok(None) => Mail::Gone(share),
                    Err(torn) => {
                        tracing::warn!(%share, %torn, "a share's log could not be folded");
                        Mail::Gone(share)
                    }
                };
                // The worker is gone only when the process is.
                let _ = mail.send(end).await;
            });
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    });
}

type Owns = (Box<inventory::owner::Owner>, Offset);

/// A candidate's whole life: fold to the end, wait for a reason, claim, read the Claim back.
async fn stand<L: Log>(start: Start<L>) -> Result<Option<Owns>, Torn> {
    let Start { share, mut candidate, mut log, mut prospect } = start;
    let partition = Partition(share.0);
    let mut tail = log.tail(partition, 0);
    let mut end = log.end(partition).await?;
    let (mut fruitless, mut not_before) = (0_u32, Instant::now());
    let mut claimed: Option<Instant> = None;
    let mut yielded: Option<Instant> = None;
    let mut records = Vec::new();
    let mut last = prospect.borrow().map_or(Now { wall: Millis(0), mono: Millis(0) }, |p| p.1);
    loop {
        let behind = candidate.state().position().0 < end;
        if !behind && claimed.is_none_or(|at| at.elapsed() > CLAIM_PATIENCE) {
            let known = *prospect.borrow_and_update();
            let Some((mut standing, now)) = known else { return Ok(None) };
            last = now;
            standing.yielded_ms = yielded.map_or(0, |at| at.elapsed().as_millis() as u64);
            let reason = may_claim(candidate.state(), &standing);
            if let Some(reason) = reason.filter(|_| Instant::now() >= not_before) {
                // A Claim is for a log that was read to its end: ask once more where that is.
                let latest = log.end(partition).await?;
                if latest > candidate.state().position().0 {
                    end = latest;
                    continue;
                }
                let claim = candidate.claim(now.wall);
                let why: &str = reason.into();
                tracing::info!(%share, why, "claiming a share");
                if log.append(partition, Slip(0), &claim).is_ok() {
                    claimed = Some(Instant::now());
                }
            }
        }
        if !records_or_news(&mut tail, &mut log, &mut records, &mut prospect).await? {
            if claimed.is_none() {
                return Ok(None);
            }
            // Wanted no more, but the Claim is out: whoever it makes an owner has to serve.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for record in records.drain(..) {
            let (verdict, progress) = candidate.read(Offset(record.offset), &record.bytes);
            tracing::trace!(%share, offset = record.offset, ?verdict, "folded");
            if candidate.state().yielded().is_none() {
                yielded = None;
            } else {
                yielded.get_or_insert_with(Instant::now);
            }
            match progress {
                Progress::Reading => {}
                Progress::Lost => {
                    fruitless += 1;
                    claimed = None;
                    not_before = Instant::now() + Duration::from_millis(patience_ms(fruitless));
                }
                Progress::Owns => {
                    let pool_end = log.end(Partition(0)).await?;
                    let now = prospect.borrow().map_or(last, |p| p.1);
                    return Ok(Some((Box::new(candidate.into_owner(now)), Offset(pool_end))));
                }
            }
        }
    }
}

/// Waits for records, or for word from the worker. False when the worker wants no more.
async fn records_or_news<L: Log>(
    tail: &mut L::Tail,
    log: &mut L,
    records: &mut Vec<ledger::Record>,
    prospect: &mut Prospect,
) -> Result<bool, Torn> {
    let read = std::future::poll_fn(|cx| {
        // What became of the Claim is read in the log; its fate is only taken off the queue.
        let _ = log.poll_fates(cx, &mut Vec::new());
        tail.poll_records(cx, records)
    });
    tokio::select! {
        biased;
        result = read => result.map(|()| true),
        changed = prospect.changed() => Ok(changed.is_ok() && prospect.borrow().is_some()),
    }
}
