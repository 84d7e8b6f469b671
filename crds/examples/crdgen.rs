//! Writes the definition of the TrainSale resource: `crds/trainsales.yaml`, which is released as
//! it is, and the same within the chart.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, text) in crds::crd::generated() {
        fs::write(here.join(file), text)?;
    }
    Ok(())
}
