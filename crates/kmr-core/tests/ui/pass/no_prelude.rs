//! The expansion needs no import and no prelude. Names of the caller that look like its own do not
//! matter.

#[path = "../support.rs"]
mod support;

pub mod strict {
    #![no_implicit_prelude]

    use super::support::{Count, parse};

    /// Without the root path in the expansion, this module would be used as the crate.
    mod kmr_core {
        pub struct Strategy;
    }

    pub struct Strategy;

    pub fn strategy() -> impl ::kmr_core::IntoPipeline {
        let _ = (kmr_core::Strategy, Strategy);
        ::kmr_core::processing_strategy!({
            filter => |record| record.partition() == 0,
            map => parse,
            filter => |order| order.amount > 0,
            map => |order| ::core::result::Result::<_, ::core::convert::Infallible>::Ok(order.amount),
            reduce => Count::<u32>::new(),
            reduce_err => Count::<::kmr_core::DeadLetter>::new(),
        })
    }
}
