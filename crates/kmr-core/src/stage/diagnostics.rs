//! Checks and names whose only purpose is a clear message of the compiler.

use crate::dead_letter::DeadLetter;
use crate::reducer::Rows;

/// The names of the stages as types, for the compiler's messages about stages that do not fit each
/// other.
///
/// Messages show these names unchanged only if they are public. They have no other use.
#[expect(non_camel_case_types, reason = "messages show these names, and users know the stages by them")]
pub mod stage_name {
    /// `map`
    #[derive(Debug)]
    pub struct map;
    /// `filter`
    #[derive(Debug)]
    pub struct filter;
    /// `filter_map`
    #[derive(Debug)]
    pub struct filter_map;
    /// `flat_map`
    #[derive(Debug)]
    pub struct flat_map;
    /// `reduce`
    #[derive(Debug)]
    pub struct reduce;
}

/// Marks the real impl of a trait that has two. Of a trait with one impl, rustc explains why that
/// impl does not fit. Of a trait with two, it prints the trait's own message, which is in the words
/// of a strategy.
#[derive(Debug)]
pub struct Fits;

/// Marks the second impl, which no type can use; see [`Fits`].
#[derive(Debug)]
pub struct Decoy;

/// Implemented by no type; see [`Fits`].
pub trait Nothing {}

/// Rows of a reducer that accepts what the stage before it emits. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "this `reduce` does not take what the `{From}` before it emits: its rows are `{Self}`, not rows of `{T}`",
    label = "the `{From}` before this `reduce` emits `{T}`, but the reducer collects `{Self}`",
    note = "put a `map` between them that makes the one into the other"
)]
pub trait RowsOf<T, From, Marker>: Rows<Item = T> {}

impl<R: Rows, From> RowsOf<R::Item, From, Fits> for R {}
impl<R: Rows<Item = T> + Nothing, T, From> RowsOf<T, From, Decoy> for R {}

/// Rows of a reducer that accepts dead letters. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "this `reduce_err` does not take `DeadLetter`: its rows are `{Self}`",
    label = "the records that failed at the stages before arrive as `DeadLetter`, but the reducer collects `{Self}`"
)]
pub trait RowsOfDeadLetters<Marker>: Rows<Item = DeadLetter> {}

impl<R: Rows<Item = DeadLetter>> RowsOfDeadLetters<Fits> for R {}
impl<R: Rows<Item = DeadLetter> + Nothing> RowsOfDeadLetters<Decoy> for R {}
