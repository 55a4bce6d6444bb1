#![doc = include_str!("../README.md")]

// A stage list passes through `parse`, then `check`, then `expand`. All of them use `kind`.
mod check;
mod expand;
mod kind;
mod parse;

#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Builds a strategy from a list of stages. Use it as `kmr_core::processing_strategy!`, which
/// documents it.
#[proc_macro]
pub fn processing_strategy(input: TokenStream) -> TokenStream {
    expand::processing_strategy(input.into()).into()
}
