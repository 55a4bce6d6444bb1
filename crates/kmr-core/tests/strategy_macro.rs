//! `processing_strategy!` with each form of each stage, compared with the builder calls written by
//! hand.

#[path = "ui/support.rs"]
mod support;

use std::convert::Infallible;

use kmr_core::{
    AsyncMapper, BoxError, Concurrency, DeadLetter, IntoPipeline, Mapper, OwnedRecord, Record, RetryPolicy,
    Strategy, async_trait, processing_strategy,
};
use support::{Count, Order, amount, look_up, parse};

struct Typed(u32);

impl Mapper for Typed {
    type Output = Order;

    fn map(&self, _: &Record<'_>) -> Result<Order, BoxError> {
        Ok(Order { amount: self.0 })
    }
}

struct AsyncTyped(u32);

#[async_trait]
impl AsyncMapper for AsyncTyped {
    type Output = Option<Order>;

    async fn map(&self, _: OwnedRecord) -> Result<Option<Order>, BoxError> {
        Ok((self.0 > 0).then_some(Order { amount: self.0 }))
    }
}

async fn half(amount: u32) -> Result<u32, Infallible> {
    Ok(amount / 2)
}

fn two(amount: u32) -> Result<[u32; 2], Infallible> {
    Ok([amount; 2])
}

fn orders() -> Count<Order> {
    Count::new()
}

fn amounts() -> Count<u32> {
    Count::new()
}

fn dead_letters() -> Count<DeadLetter> {
    Count::new()
}

fn debug(strategy: impl std::fmt::Debug) -> String {
    format!("{strategy:?}")
}

#[test]
fn macro_builds_what_the_builder_builds() {
    let listed = processing_strategy!({
        filter => |record| record.key().is_some(),
        map => parse,
        filter => |order| order.amount > 0,
        filter_map => |order| Ok::<_, Infallible>(Some(order)),
        map => amount,
        flat_map => two,
        reduce => amounts(),
        map => |count| Ok::<_, Infallible>(u32::try_from(count).unwrap_or(u32::MAX)),
        reduce => amounts(),
        map => |count| Ok::<_, Infallible>(count + 1),
        reduce_err => dead_letters(),
    });
    let by_hand = Strategy::new()
        .filter(|record| record.key().is_some())
        .map(parse)
        .filter(|order| order.amount > 0)
        .filter_map(|order| Ok::<_, Infallible>(Some(order)))
        .map(amount)
        .flat_map(two)
        .reduce(amounts())
        .map(|count| Ok::<_, Infallible>(u32::try_from(count).unwrap_or(u32::MAX)))
        .reduce(amounts())
        .map(|count| Ok::<_, Infallible>(count + 1))
        .reduce_err(dead_letters());
    let listed = debug(listed);
    assert_eq!(listed, debug(by_hand));
    for stage in ["reduce 1", "reduce 2", "reduce_err"] {
        assert!(listed.contains(stage), "{stage} is not in {listed}");
    }
}

#[test]
fn settings_are_those_of_the_builder_in_any_place() {
    let policy = || RetryPolicy::default().with_give_up_after(None);
    let by_hand = debug(Strategy::new().map_concurrency(4).map_retry(policy()).map(parse).reduce(orders()));
    assert!(
        by_hand.contains("records: 4, by_key: false") && by_hand.contains("give_up_after: None"),
        "{by_hand}"
    );
    let listed = processing_strategy!({ map_retry => policy(), map => parse, map_concurrency => 4, reduce => orders() });
    assert_eq!(debug(listed), by_hand);
    let listed = processing_strategy!({
        filter => |record| record.key().is_some(),
        map_concurrency => Concurrency::by_key(64),
        filter => |record| record.payload().is_some(),
        map => look_up,
        reduce => orders(),
        reduce_err => dead_letters(),
    });
    let listed = debug(listed);
    assert!(listed.contains("records: 64, by_key: true"), "{listed}");
}

#[test]
fn without_reduce_err_it_is_a_strategy_with_numbered_stages() {
    let listed =
        processing_strategy!({ map => parse, map => amount, filter => |n| *n > 0, reduce => amounts() });
    let by_hand = Strategy::new().map(parse).map(amount).filter(|n| *n > 0).reduce(amounts());
    let listed_text = debug(&listed);
    assert_eq!(listed_text, debug(&by_hand));
    assert!(listed_text.contains("maps: 2, filters: 1, reduces: 1"), "{listed_text}");
    assert_eq!(debug(listed.into_pipeline()), debug(by_hand.into_pipeline()));
}

#[test]
fn braces_and_last_comma_may_be_left_out() {
    let with = debug(processing_strategy!({ map => parse, reduce => orders(), }));
    assert_eq!(with, debug(processing_strategy!({ map => parse, reduce => orders() })));
    assert_eq!(with, debug(processing_strategy!(map => parse, reduce => orders(),)));
    assert_eq!(with, debug(processing_strategy![map => parse, reduce => orders()]));
    assert_eq!(with, debug(processing_strategy! { map => parse, reduce => orders() }));
}

#[test]
fn first_map_stage_takes_functions_types_and_closures_with_a_type() {
    let least = 1;
    let _ = processing_strategy!({ map => parse, reduce => orders() });
    let _ = processing_strategy!({ map => look_up, reduce => orders() });
    let _ = processing_strategy!({ map => Typed(1), reduce => orders() });
    let _ = processing_strategy!({ filter_map => AsyncTyped(1), reduce => orders() });
    let _ = processing_strategy!({ map => |_: &Record<'_>| Ok::<_, Infallible>(1), reduce => amounts() });
    let _ = processing_strategy!({
        map => move |record: &Record<'_>| -> Result<u32, BoxError> {
            Ok(record.payload().map_or(least, |_| 2))
        },
        reduce => amounts(),
    });
    let _ = processing_strategy!({
        map => |record: OwnedRecord| async move { Ok::<_, Infallible>(u32::from(record.payload().is_some())) },
        reduce => amounts(),
    });
    let _ = processing_strategy!({
        map => async |record: OwnedRecord| Ok::<_, Infallible>(u32::from(record.payload().is_some())),
        reduce => amounts(),
    });
    let _ = processing_strategy!({
        filter_map => |_: &Record<'_>| Ok::<_, Infallible>(Some(1)),
        reduce => amounts(),
    });
    let _ = processing_strategy!({
        flat_map => |_: &Record<'_>| Ok::<_, Infallible>([1, 2]),
        reduce => amounts(),
    });
}

#[test]
fn later_map_stages_take_functions_and_closures_without_a_type() {
    let _ = processing_strategy!({ map => parse, map => amount, map => half, reduce => amounts() });
    let _ = processing_strategy!({
        map => parse,
        map => |order| Ok::<_, Infallible>(order.amount),
        map => |amount| async move { half(amount).await },
        map => async |amount: u32| half(amount).await,
        filter => |amount| *amount > 0,
        filter_map => |amount| Ok::<_, Infallible>(amount.checked_sub(1)),
        flat_map => |amount| Ok::<_, Infallible>(0..amount),
        flat_map => |amount| async move { Ok::<_, Infallible>(Some(amount)) },
        map => |amount| if amount > 1 { Ok(amount) } else { Err("too small") },
        reduce => amounts(),
    });
}

#[test]
fn values_are_any_expressions() {
    let twice = true;
    let _ = processing_strategy!({
        map => {
            let base = 3;
            move |_: &Record<'_>| Ok::<_, Infallible>(base)
        },
        map => if twice { |n: u32| Ok::<u32, Infallible>(n * 2) } else { |n: u32| Ok(n) },
        reduce => match twice { true => Count::<u32>::new(), false => amounts() },
        reduce_err => Count::<DeadLetter>::new(),
    });
}
