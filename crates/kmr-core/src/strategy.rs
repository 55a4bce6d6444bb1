//! The typed chain of stages that a user writes: [`Strategy`].

use crate::record::Record;
use crate::reducer::Reducer;
use crate::stage::{
    Apply, Chain, Filter, Head, IntoRecordMap, IntoValueMap, Many, Maybe, One, Pass, Stage, Then,
};

pub struct Strategy;
