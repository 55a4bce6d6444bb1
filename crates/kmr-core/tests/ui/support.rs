//! A reducer and a few stages for the tests of strategies.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::needless_pass_by_value, reason = "stages receive their values")]

use std::convert::Infallible;
use std::marker::PhantomData;

use kmr_core::{
    Attempt, BoxError, Chunk, Delivered, Delivery, DeliveryError, OwnedRecord, Record, Reducer, async_trait,
};

/// Counts rows of the type `T`, and emits the count of each batch.
pub(crate) struct Count<T> {
    rows: usize,
    kind: PhantomData<fn() -> T>,
}

impl<T> Count<T> {
    /// A counter of no rows yet.
    pub(crate) fn new() -> Self {
        Self { rows: 0, kind: PhantomData }
    }
}

#[async_trait]
impl<T: Send + 'static> Reducer for Count<T> {
    type Rows = Vec<T>;
    type Output = usize;

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.rows += chunk.rows.len();
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        Ok(Box::new(Counted(std::mem::take(&mut self.rows))))
    }
}

struct Counted(usize);

#[async_trait]
impl Delivery for Counted {
    type Output = usize;

    async fn deliver(&self, _: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        Ok(Delivered::new(self.0))
    }
}

/// The output of the first map stage.
pub(crate) struct Order {
    pub(crate) amount: u32,
}

/// Another type.
pub(crate) struct Line(pub(crate) String);

pub(crate) fn parse(_: &Record<'_>) -> Result<Order, Infallible> {
    Ok(Order { amount: 1 })
}

pub(crate) async fn look_up(_: OwnedRecord) -> Result<Order, Infallible> {
    Ok(Order { amount: 2 })
}

pub(crate) fn amount(order: Order) -> Result<u32, Infallible> {
    Ok(order.amount)
}

pub(crate) fn length(line: Line) -> Result<usize, Infallible> {
    Ok(line.0.len())
}
