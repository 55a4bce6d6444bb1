//! Expands [`Call`]s to the builder calls that a user would write by hand, and errors to a stub.
//!
//! Each call carries the span of its stage, so rustc reports a type mismatch there.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::Error;

use crate::check::{Call, check};
use crate::parse::StageList;

/// The whole macro.
pub(crate) fn processing_strategy(input: TokenStream) -> TokenStream {
    match syn::parse2::<StageList>(input).map_err(|error| vec![error]).and_then(check) {
        Ok(calls) => chain(&calls),
        Err(errors) => stub(errors),
    }
}

/// `::kmr_core::Strategy::new().map(…).reduce(…)`.
fn chain(calls: &[Call]) -> TokenStream {
    let calls = calls.iter().map(|Call { method, argument }| {
        let argument = argument.to_token_stream();
        quote_spanned!(method.span()=> .#method(#argument))
    });
    quote!(::kmr_core::Strategy::new() #(#calls)*)
}

/// All errors at once, and a value of the type of a valid strategy. Without the value, rustc would
/// report errors where the strategy is used.
fn stub(errors: Vec<Error>) -> TokenStream {
    let errors = errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    });
    let errors = errors.map(Error::into_compile_error);
    quote!({
        #errors
        ::kmr_core::__private::stub()
    })
}
