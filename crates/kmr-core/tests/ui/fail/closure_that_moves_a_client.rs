//! A closure that moves what it captured. It can be called once.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

#[derive(Clone)]
struct Client;

impl Client {
    async fn country_of(&self, _: u32) -> Result<u32, BoxError> {
        Ok(44)
    }
}

pub fn on_records(client: Client) -> impl IntoPipeline {
    processing_strategy!({
        map => move |_: OwnedRecord| async move { client.country_of(1).await }, //~ expected a closure that implements the `Fn` trait | it moves the variable `client`
        reduce => Count::<u32>::new(),
    })
}

pub fn on_values(client: Client) -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        map => move |order: Order| async move { client.country_of(order.amount).await }, //~ cannot move out of `client`, a captured variable in an `Fn` closure | consider cloning
        reduce => Count::<u32>::new(),
    })
}
