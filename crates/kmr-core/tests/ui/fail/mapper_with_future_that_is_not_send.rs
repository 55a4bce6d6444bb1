//! An async mapper that holds an `Rc` while it waits. The one mistake with a follow-up: rustc
//! checks `Send` by itself.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

async fn shared(_: OwnedRecord) -> Result<Order, BoxError> {
    let amount = std::rc::Rc::new(1);
    std::future::ready(()).await;
    Ok(Order { amount: *amount })
}

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => shared, //~ future cannot be sent between threads safely | future returned by `shared` is not `Send` | has type `Rc<u32>` which is not `Send`
        reduce => Count::<Order>::new(), //~ the method `reduce` exists
    })
}
