#![doc = include_str!("../README.md")]

// In the order in which a stage list meets them.
mod parse;

mod check;

mod expand;

#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Writes a strategy as a list of stages. Use it as `kmr_core::processing_strategy!`: its documentation is there.
#[proc_macro]
pub fn processing_strategy(input: TokenStream) -> TokenStream {
    expand::processing_strategy(input.into()).into()
}
