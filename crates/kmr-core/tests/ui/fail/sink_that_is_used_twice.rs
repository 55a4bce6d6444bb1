//! One sink for two strategies.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategies() -> [Pipeline; 2] {
    let sink = Count::<Order>::new();
    let orders = processing_strategy!({ map => parse, reduce => sink });
    let returns = processing_strategy!({ map => parse, reduce => sink }); //~ use of moved value: `sink` | value moved here
    [orders.into_pipeline(), returns.into_pipeline()]
}
