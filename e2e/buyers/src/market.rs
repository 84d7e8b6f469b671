//! What is on sale, and when nothing is.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Crowd;
use crate::shopper::Line;

/// How often the counts are read. Buyers need no better picture, and the end is told by two
/// empty ones in a row.
const LOOK: Duration = Duration::from_millis(300);
/// How long to wait for the first picture: a fleet that just started has not heard itself yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// A class of a run.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) run: String,
    pub(crate) class: String,
    pub(crate) stops: Vec<String>,
    /// Seats that are free on each leg, as last read.
    pub(crate) free: Vec<u64>,
}

/// All that is on sale.
#[derive(Debug)]
pub(crate) struct Market {
    pub(crate) offers: Vec<Offer>,
}

impl Market {
    /// Reads the runs, or the only one that is wanted, from the first target that answers.
    pub(crate) async fn open(targets: &[String], run: Option<&str>) -> Result<Self, String> {
        let began = Instant::now();
        let mut line = Line::new(targets, 0);
        loop {
            if let Ok((200, body)) = line.get("/v1/runs").await {
                let mut offers = offers(&body);
                offers.retain(|offer| run.is_none_or(|run| run == offer.run));
                if !offers.is_empty() {
                    return Ok(Self { offers });
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("nothing is on sale at {}", targets.join(", ")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn offers(body: &Value) -> Vec<Offer> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let empty = Vec::new();
    let list = |v: &'_ Value| v.as_array().cloned().unwrap_or_default();
    let mut offers = Vec::new();
    for run in body["runs"].as_array().unwrap_or(&empty) {
        let stops: Vec<String> = list(&run["stops"]).iter().map(|s| text(&s["code"])).collect();
        for class in list(&run["classes"]) {
            let free = vec![u64::MAX; stops.len().saturating_sub(1)];
            let (run, class) = (text(&run["run"]), text(&class["name"]));
            offers.push(Offer { run, class, stops: stops.clone(), free });
        }
    }
    offers
}

/// Reads the counts of every leg again and again; ends the crowd when all are zero twice.
pub(crate) async fn watch(crowd: &Rc<Crowd>) {
    let mut line = Line::new(&crowd.arguments.targets, 1);
    let mut empty_before = false;
    while !crowd.is_over() {
        let began = Instant::now();
        let empty = look(crowd, &mut line).await;
        if empty == Some(true) && empty_before {
            crowd.ended.set(true);
        }
        empty_before = empty == Some(true);
        // Looking at many runs must not become the crowd's main load.
        tokio::time::sleep(LOOK.max(began.elapsed() * 4)).await;
    }
}

/// Whether all is sold; none if some count could not be read.
async fn look(crowd: &Rc<Crowd>, line: &mut Line) -> Option<bool> {
    let offers = crowd.market.borrow().offers.clone();
    let mut runs: Vec<(String, Vec<String>)> =
        offers.iter().map(|o| (o.run.clone(), o.stops.clone())).collect();
    runs.dedup();
    let mut all = Some(true);
    for (run, stops) in runs {
        for (leg, pair) in stops.windows(2).enumerate() {
            let path = format!("/v1/runs/{run}?from={}&to={}", pair[0], pair[1]);
            let Ok((200, body)) = line.get(&path).await else { return None };
            for class in body["classes"].as_array()? {
                let free = class["available"].as_u64()?;
                if class["complete"] != true {
                    all = None;
                }
                if free > 0 {
                    all = all.map(|_| false);
                }
                let mut market = crowd.market.borrow_mut();
                let mut same = market.offers.iter_mut();
                let offer =
                    same.find(|o| o.run == run && Some(&*o.class) == class["name"].as_str());
                offer?.free[leg] = free;
            }
        }
    }
    all
}
