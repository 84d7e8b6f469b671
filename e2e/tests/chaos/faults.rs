//! Carries a plan out, each fault at its time on a thread of its own. It makes no choice: whom a
//! number means is the order of names, and a fault that cannot be made is told, not replaced.

#![allow(clippy::disallowed_types, reason = "a lock among threads that sleep, far from any order")]

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use e2e::fault::Container;
use e2e::process::{Signal, until};
use e2e::{Error, OneWay, Result};
use serde_json::Value;

use crate::common::world::{World, now_ms, owners, sellers};
use crate::plan::{Deed, Fault, Plan, Way, Wipe};

/// Finding a pod takes a question to the API server: a tenth of a second, or some seconds on a
/// machine that does much else. In a calm stretch nothing changes meanwhile.
const PREPARE: Duration = Duration::from_secs(5);
/// A fault that is over so much later than planned is told of: kills near it are not calm.
const LATE: Duration = Duration::from_secs(1);
/// How often somebody is looked for who can be hit.
const TRIES: u32 = 3;
/// Pods come back within seconds; a broker or a machine that is away delays them.
const TARGET_PATIENCE: Duration = Duration::from_secs(10);

/// A fault that was made.
pub(crate) struct Made {
    pub(crate) fault: Fault,
    /// When it hit, in milliseconds since 1970.
    pub(crate) at: u64,
    /// When it was ended; the same for what cannot be.
    pub(crate) ended: u64,
    /// The pod, or whatever it hit.
    pub(crate) target: String,
}

/// The end of a fault.
type Cure<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

pub(crate) struct Executor<'a> {
    world: &'a World,
    sale: &'a str,
    begun: Instant,
    /// Pods that are stopped now, which no second fault hits.
    stopped: Mutex<BTreeSet<String>>,
}

impl<'a> Executor<'a> {
    pub(crate) fn new(world: &'a World, sale: &'a str) -> Self {
        Self { world, sale, begun: Instant::now(), stopped: Mutex::default() }
    }

    /// Makes all faults; those that could not be made are told.
    pub(crate) fn run(&self, plan: &Plan) -> (Vec<Made>, Vec<String>) {
        let results: Vec<Result<Made>> = thread::scope(|scope| {
            let one = |fault: &Fault| {
                let fault = *fault;
                scope.spawn(move || self.make(fault))
            };
            let threads: Vec<_> = plan.faults.iter().map(one).collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|done| done.unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        self.wait_until(plan.ends_ms, Duration::ZERO);
        let (mut made, mut failed) = (Vec::new(), Vec::new());
        for (result, fault) in results.into_iter().zip(&plan.faults) {
            match result {
                Ok(done) => made.push(done),
                Err(why) => failed.push(format!("{fault}: {why}")),
            }
        }
        (made, failed)
    }

    fn wait_until(&self, at_ms: u64, sooner: Duration) {
        let at = self.begun + Duration::from_millis(at_ms);
        let at = at.checked_sub(sooner).unwrap_or(self.begun);
        thread::sleep(at.saturating_duration_since(Instant::now()));
    }

    fn make(&self, fault: Fault) -> Result<Made> {
        self.wait_until(fault.at_ms, PREPARE);
        let mut tries = TRIES;
        let (target, cure) = loop {
            let prey = match fault.deed {
                Deed::Kill { node, .. } => Some(self.node(node, true)?),
                Deed::Stop { node } => Some(self.node(node, false)?),
                Deed::Duel => Some(self.leader()?),
                _ => None,
            };
            self.wait_until(fault.at_ms, Duration::ZERO);
            tries -= 1;
            match self.hit(fault, prey) {
                // Another fault had it between the look and the blow.
                Err(_)
                    if tries > 0 && matches!(fault.deed, Deed::Kill { .. } | Deed::Stop { .. }) => {
                }
                done => break done?,
            }
        };
        let at = now_ms();
        println!("{fault}: {target}");
        if let Some(cure) = cure {
            self.wait_until(fault.at_ms + fault.lasts_ms, Duration::ZERO);
            cure()?;
            let late = self
                .begun
                .elapsed()
                .saturating_sub(Duration::from_millis(fault.at_ms + fault.lasts_ms));
            if late > LATE {
                println!("{fault}: over {:.1} s later than planned", late.as_secs_f64());
            }
        }
        let ended = if fault.lasts_ms > 0 { now_ms() } else { at };
        Ok(Made { fault, at, ended, target })
    }

    fn hit(
        &self,
        fault: Fault,
        prey: Option<(String, Container)>,
    ) -> Result<(String, Option<Cure<'_>>)> {
        let bed = &self.world.bed;
        match (fault.deed, prey) {
            (Deed::Kill { .. }, Some((pod, container))) => {
                container.signal(Signal::KILL)?;
                Ok((pod, None))
            }
            (Deed::Stop { .. }, Some((pod, container))) => {
                container.signal(Signal::STOP)?;
                let name = pod.clone();
                let cure = move || {
                    // It may have been replaced meanwhile; then there is nobody to wake.
                    container
                        .processes()
                        .into_iter()
                        .try_for_each(|p| p.signal(Signal::CONT).map(drop))?;
                    self.release(&name);
                    Ok(())
                };
                Ok((pod, Some(Box::new(cure))))
            }
            (Deed::Duel, Some((pod, container))) => {
                container.signal(Signal::STOP)?;
                let name = pod.clone();
                let cure = move || {
                    let leads = self.lease();
                    container
                        .processes()
                        .into_iter()
                        .try_for_each(|p| p.signal(Signal::CONT).map(drop))?;
                    let leads = leads?;
                    if leads == name {
                        return Err(Error::Refused(format!("no operator took over from {name}")));
                    }
                    println!("           {leads} led while {name} was stopped");
                    Ok(())
                };
                Ok((pod, Some(Box::new(cure))))
            }
            (Deed::Cut { machine, way }, _) => {
                let name = format!("node-{machine}");
                match way {
                    Way::Both => bed.cut(&name)?,
                    Way::Deaf => bed.cut_one_way(&name, OneWay::Deaf)?,
                    Way::Mute => bed.cut_one_way(&name, OneWay::Mute)?,
                };
                let cured = name.clone();
                Ok((name, Some(Box::new(move || bed.join(&cured).map(drop)))))
            }
            (Deed::Wipe(wipe), _) => Ok(("redis".to_owned(), self.wipe(wipe)?)),
            (Deed::KillBroker { broker }, _) => {
                bed.kafka()?.kill_broker(broker)?;
                let cure = move || bed.kafka()?.start_broker(broker);
                Ok((format!("broker {}", broker + 1), Some(Box::new(cure))))
            }
            (Deed::Kill { .. } | Deed::Stop { .. } | Deed::Duel, None) => {
                Err(Error::Refused("nobody was found".to_owned()))
            }
        }
    }

    fn wipe(&self, wipe: Wipe) -> Result<Option<Cure<'_>>> {
        let redis = self.world.bed.redis()?;
        match wipe {
            Wipe::Flush => redis.flush().map(|()| None),
            Wipe::Kill => {
                redis.kill()?;
                Ok(Some(Box::new(move || self.world.bed.redis()?.start_again())))
            }
            Wipe::Stale => {
                redis.keep()?;
                Ok(Some(Box::new(move || {
                    let mut redis = self.world.bed.redis()?;
                    redis.kill()?;
                    redis.start_again()?;
                    redis.forget()
                })))
            }
        }
    }

    fn stopped(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // A set of names is whole whoever panicked.
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, pod: &str) {
        self.stopped().remove(pod);
    }

    /// The selling node of a number; to be killed, one that owns shares, and to be stopped, any.
    fn node(&self, number: usize, to_kill: bool) -> Result<(String, Container)> {
        until("a node to hit", TARGET_PATIENCE, "see `kubectl get pods`", || {
            // Asked once for both: under load every question takes a second.
            let seen = self.world.json(&["get", "pods,trainsales"]);
            let mut stopped = self.stopped();
            let choose = if to_kill { owners } else { sellers };
            let mut pods = choose(&seen, self.sale);
            pods.retain(|(name, _)| !stopped.contains(*name));
            let Some((name, pod)) = pods.get(number % pods.len().max(1)) else { return Ok(None) };
            // Between the two looks it may have ended.
            let Ok(container) = self.world.bed.container_of(pod, None) else { return Ok(None) };
            if !to_kill {
                stopped.insert((*name).to_owned());
            }
            Ok(Some(((*name).to_owned(), container)))
        })
    }

    fn lease(&self) -> Result<String> {
        let lease =
            self.world.json(&["get", "lease", "-n", "stationmaster", "stationmaster-operator"]);
        let holder = match &lease["spec"]["holderIdentity"] {
            Value::String(name) if !name.is_empty() => Some(name.clone()),
            _ => None,
        };
        holder.ok_or_else(|| Error::Refused("nobody holds the lease".to_owned()))
    }

    fn leader(&self) -> Result<(String, Container)> {
        let leader = self.lease()?;
        let container = self.world.bed.container("stationmaster", &leader, None)?;
        Ok((leader, container))
    }
}
