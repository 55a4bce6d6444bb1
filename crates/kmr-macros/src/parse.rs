//! Parses tokens into a [`StageList`], without checking its order.
//!
//! A mistake in one stage does not hide those in the others. The parser keeps its error and
//! continues at the next stage.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, Ident, Token, braced, token};

use crate::kind::Kind;

/// The stages as written, and the syntax errors.
pub(crate) struct StageList {
    pub(crate) stages: Vec<Stage>,
    /// Span for errors about the list as a whole.
    pub(crate) span: Span,
    pub(crate) errors: Vec<Error>,
    /// Whether every stage name was parsed. Only then can a stage be reported as missing.
    pub(crate) complete: bool,
}

/// `name => value`.
pub(crate) struct Stage {
    pub(crate) name: Ident,
    /// `None` after a syntax error, which [`StageList::errors`] holds.
    pub(crate) value: Option<Expr>,
}

impl Parse for StageList {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut list =
            Self { stages: Vec::new(), span: Span::call_site(), errors: Vec::new(), complete: true };
        if !input.peek(token::Brace) {
            list.read(input)?;
            return Ok(list);
        }
        let content;
        list.span = braced!(content in input).span.join();
        list.read(&content)?;
        if !input.is_empty() {
            let text = "expected nothing after the `}` that ends the list of stages";
            list.errors.push(Error::new(input.span(), text));
            input.parse::<TokenStream>()?;
        }
        Ok(list)
    }
}

impl StageList {
    fn read(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        if !is_stage_list(input) {
            let text = "expected a list of stages, as in `{ map => parse, reduce => writer }`";
            self.errors.push(Error::new(input.span(), text));
            self.complete = false;
            input.parse::<TokenStream>()?;
        }
        while !input.is_empty() {
            self.stage(input)?;
        }
        Ok(())
    }

    /// Parses one stage and the comma after it.
    fn stage(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        if !input.peek(Ident::peek_any) {
            let text = "expected the name of a stage, as in `map => parse`";
            self.errors.push(Error::new(input.span(), text));
            self.complete = false;
            return skip_stage(input);
        }
        let name = input.call(Ident::parse_any)?;
        let value = match value(input, &name) {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.push(error);
                None
            }
        };
        let failed = value.is_none();
        let previous = name.clone();
        self.stages.push(Stage { name, value });
        if failed {
            return skip_stage(input);
        }
        if input.is_empty() || input.peek(Token![,]) {
            input.parse::<Option<Token![,]>>()?;
            return Ok(());
        }
        if starts_stage(input) {
            let text = format!("expected `,` between the stage `{previous}` and this one");
            self.errors.push(Error::new(input.span(), text));
            return Ok(());
        }
        let text = format!("stage `{previous}`: expected `,` after its value");
        self.errors.push(Error::new(input.span(), text));
        skip_stage(input)
    }
}

/// Parses `=> value`.
fn value(input: ParseStream<'_>, name: &Ident) -> syn::Result<Expr> {
    let missing_value = || {
        let text = format!("stage `{name}`: expected a value, as in `{name} => value`");
        Error::new(name.span(), text)
    };
    if input.is_empty() || input.peek(Token![,]) {
        return Err(missing_value());
    }
    if !input.peek(Token![=>]) {
        let text = format!("stage `{name}`: expected `=>` after its name, as in `{name} => value`");
        return Err(Error::new(name.span(), text));
    }
    input.parse::<Token![=>]>()?;
    if input.is_empty() || input.peek(Token![,]) {
        return Err(missing_value());
    }
    let explain = |error: Error| Error::new(error.span(), format!("stage `{name}`: {error}"));
    input.parse().map_err(explain)
}

/// Whether this looks like a list of stages. If not, one error is clearer than one for each token.
fn is_stage_list(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    let starts_with_known_name = ahead.call(Ident::parse_any).is_ok_and(|name| Kind::of(&name).is_some());
    let ahead = input.fork();
    let mut has_arrow = false;
    while !ahead.is_empty() && !has_arrow {
        has_arrow = ahead.peek(Token![=>]);
        if ahead.parse::<TokenTree>().is_err() {
            break;
        }
    }
    input.is_empty() || starts_with_known_name || has_arrow
}

/// Whether `name =>` is next.
fn starts_stage(input: ParseStream<'_>) -> bool {
    input.peek(Ident::peek_any) && input.peek2(Token![=>])
}

/// Skips to the next `name =>`, or to the end.
fn skip_stage(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() {
        if input.parse::<Option<Token![,]>>()?.is_some() {
            if starts_stage(input) {
                return Ok(());
            }
        } else if starts_stage(input) {
            return Ok(());
        } else {
            input.parse::<TokenTree>()?;
        }
    }
    Ok(())
}
