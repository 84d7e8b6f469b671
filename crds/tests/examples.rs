//! Every example can be sold as it stands.

use std::fs;
use std::path::Path;

use crds::{TrainSale, checks, definition};

#[test]
fn every_example_passes_all_checks_and_asks_for_nothing_unbuilt() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let sale = TrainSale::from_yaml(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(checks::check(&sale), Vec::new(), "{path:?}");
        assert_eq!(checks::not_implemented(&sale), Vec::new(), "{path:?}");
        let ledger = definition::found(&sale).unwrap();
        assert_eq!(definition::amend(&ledger, &sale), Ok(ledger), "{path:?}");
        seen += 1;
    }
    assert_eq!(seen, 3, "minimal, demo, full");
}

#[test]
fn a_minimal_sale_gets_the_defaults_that_the_documents_promise() {
    let text = include_str!("../../examples/minimal.yaml");
    let sale = TrainSale::from_yaml(text).unwrap();
    let spec = &sale.spec;
    assert_eq!(spec.stock.shares, 16);
    assert_eq!((spec.fleet.replicas, spec.fleet.query.replicas), (3, 2));
    assert_eq!(spec.fleet.settle.replicas, 1);
    assert_eq!((spec.stock.buffer_percent, spec.stock.block_seats), (20, 8));
    assert_eq!(spec.stock.low_water_seats, 2);
    assert_eq!((spec.holds.payment_seconds, spec.holds.grace_seconds), (900, 2));
    assert_eq!(spec.buyer_header().as_deref(), Some("X-Buyer-Id"));
    assert_eq!(spec.timetables[0].coaches[0].row_layout, "ABC-DF");
    assert_eq!(sale.ledger_name(), "default.demo");
    let replicated = text.replace("  ledger: {replicas: 1, minInSyncReplicas: 1}\n", "");
    let spec = TrainSale::from_yaml(&replicated).unwrap().spec;
    assert_eq!((spec.ledger.replicas, spec.ledger.min_in_sync_replicas), (3, 2));
    // Ninety seats are too few to be spread.
    assert_eq!(definition::found(&sale).unwrap().runs[0].homes, 1);
}
