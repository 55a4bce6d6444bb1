//! An async mapper that holds an `Rc`, or the guard of a mutex, while it waits.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

async fn shared(_: OwnedRecord) -> Result<Order, BoxError> {
    let amount = std::rc::Rc::new(1);
    std::future::ready(()).await;
    Ok(Order { amount: *amount })
}

async fn guarded(_: Order) -> Result<Order, BoxError> {
    let amounts = std::sync::Mutex::new(1);
    let amount = amounts.lock().unwrap();
    std::future::ready(()).await;
    Ok(Order { amount: *amount })
}

pub fn on_records() -> impl IntoPipeline {
    processing_strategy!({
        map => shared, //~ the future of this map stage is not `Send` | use `Arc` instead of `Rc` || future cannot be sent between threads safely | has type `Rc<u32>` which is not `Send`
        reduce => Count::<Order>::new(),
    })
}

pub fn on_values() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        map => guarded, //~ the future of this map stage is not `Send` | drop the guard || future cannot be sent between threads safely | has type `std::sync::MutexGuard<'_, u32>` which is not `Send`
        reduce => Count::<Order>::new(),
    })
}
