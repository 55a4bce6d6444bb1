//! Snapshots of the expansion, as formatted source, and the errors of invalid lists.

use proc_macro2::TokenStream;
use quote::quote;

use crate::expand::processing_strategy;

/// The expansion, formatted as the body of a function.
fn expansion(stages: TokenStream) -> String {
    let strategy = processing_strategy(stages);
    let file = syn::parse2(quote!(fn strategy() { #strategy })).expect("the expansion is an expression");
    let text = prettyplease::unparse(&file);
    let body =
        text.strip_prefix("fn strategy() {\n").and_then(|text| text.strip_suffix("}\n")).expect("a body");
    body.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The texts of the errors in an expansion.
fn errors(stages: TokenStream) -> Vec<String> {
    let text = expansion(stages);
    let errors = text.split("compile_error! {").skip(1);
    let text = |error: &str| error.split('"').nth(1).expect("a literal").to_owned();
    errors.map(text).collect()
}

#[test]
fn each_stage_becomes_the_builder_call_of_its_name() {
    let stages = quote!({
        filter => |record| record.key().is_some(),
        map => parse,
        filter => |order: &Order| order.amount > 0,
        filter_map => known,
        flat_map => lines,
        reduce => Writer::<Row>::new("url", "table").max_rows(32_768),
        map => receipt,
        reduce => Log::default(),
        reduce_err => Stream::new(Duration::from_secs(1)),
    });
    let expected = r#"
::kmr_core::Strategy::new()
    .filter(|record| record.key().is_some())
    .map(parse)
    .filter(|order: &Order| order.amount > 0)
    .filter_map(known)
    .flat_map(lines)
    .reduce(Writer::<Row>::new("url", "table").max_rows(32_768))
    .map(receipt)
    .reduce(Log::default())
    .reduce_err(Stream::new(Duration::from_secs(1)))"#;
    assert_eq!(expansion(stages), expected.trim_start());
}

#[test]
fn settings_are_builder_calls_like_stages() {
    let stages = quote!({
        map_concurrency => Concurrency::by_key(16),
        map => look_up,
        map_retry => RetryPolicy::default().with_give_up_after(None),
        reduce => sink,
    });
    let expected = r"
::kmr_core::Strategy::new()
    .map_concurrency(Concurrency::by_key(16))
    .map(look_up)
    .map_retry(RetryPolicy::default().with_give_up_after(None))
    .reduce(sink)";
    assert_eq!(expansion(stages), expected.trim_start());
}

#[test]
fn settings_are_written_once_before_the_first_reduce() {
    let stages = quote!({
        map_concurrency => 4,
        map => parse,
        map_concurrency => 8,
        reduce => sink,
        map_retry => policy,
        reduce_err => errors,
    });
    let found = errors(stages);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("duplicate `map_concurrency`"), "{found:#?}");
    assert!(found[1].starts_with("setting `map_retry` is after a `reduce`"), "{found:#?}");
    let found = errors(quote!({ map => parse, reduce => sink, reduce_err => errors, map_concurrency => 4 }));
    assert_eq!(found.len(), 1, "{found:#?}");
    let found = errors(quote!({ map => parse, map_concurrency => 4 }));
    assert_eq!(found, ["no `reduce` stage: the strategy needs one after this `map`"]);
    let found = errors(quote!({ map_concurrency => 4 }));
    assert!(found.len() == 1 && found[0].starts_with("the strategy is empty"), "{found:#?}");
}

#[test]
fn inner_braces_and_last_comma_are_optional() {
    let expected = "::kmr_core::Strategy::new().map(parse).reduce(sink)";
    for stages in [
        quote!({ map => parse, reduce => sink, }),
        quote!({ map => parse, reduce => sink }),
        quote!(map => parse, reduce => sink,),
        quote!(map => parse, reduce => sink),
    ] {
        assert_eq!(expansion(stages), expected);
    }
}

#[test]
fn value_is_any_expression() {
    let stages = quote!({
        map => |record: &Record<'_>| -> Result<(u32, u32), Infallible> { Ok((1, 2)) },
        map => move |(a, b)| async move { sum::<u32, u32>(a, b).await },
        reduce => if fast { Sink { rows: 1, ..one } } else { match size { 0 => none, _ => some } },
    });
    let expected = r"
::kmr_core::Strategy::new()
    .map(|record: &Record<'_>| -> Result<(u32, u32), Infallible> { Ok((1, 2)) })
    .map(move |(a, b)| async move { sum::<u32, u32>(a, b).await })
    .reduce(
        if fast {
            Sink { rows: 1, ..one }
        } else {
            match size {
                0 => none,
                _ => some,
            }
        },
    )";
    assert_eq!(expansion(stages), expected.trim_start());
}

#[test]
fn invalid_list_expands_to_a_stub_of_the_type_of_a_strategy() {
    let expected = r#"
{
    ::core::compile_error! {
        "no `reduce` stage: the strategy needs one after this `map`"
    }
    ::kmr_core::__private::stub()
}"#;
    assert_eq!(expansion(quote!({ map => parse })), expected.trim_start());
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let stages = quote!({
        reduce_err => errors,
        reduce => sink,
        mapp => parse,
        map parse,
        filter => ,
        reduce_err => errors,
        "map" => parse,
        map => parse
        filter => good,
    });
    let found = errors(stages);
    let expected = [
        "stage `map`: expected `=>`",
        "stage `filter`: expected a value",
        "expected the name of a stage",
        "expected `,` between the stage `map` and this one",
        "unknown stage `mapp`: did you mean `map`?",
        "stage `reduce` is before the first map stage",
        "`reduce_err` is not the last stage: move it after the `filter`",
        "duplicate `reduce_err`",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "error {found:?} does not start with {expected:?}");
    }
}

#[test]
fn stage_with_a_syntax_error_is_not_reported_as_missing() {
    assert_eq!(errors(quote!({ mop => parse, reducer => sink })).len(), 2);
    assert_eq!(errors(quote!({ map => parse, => sink })).len(), 1);
    assert_eq!(errors(quote!({ map => parse, reduce sink })).len(), 1);
}

#[test]
fn tokens_that_are_no_list_get_one_error() {
    for tokens in [quote!(parse, sink), quote!("map"), quote!([map, reduce]), quote!({ parse(1, 2) })] {
        let errors = errors(tokens);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("expected a list of stages"), "{errors:?}");
    }
}

#[test]
fn only_similar_names_are_suggested() {
    let suggestion = |name: &str| {
        let name: TokenStream = name.parse().expect("a name");
        let errors = errors(quote!({ #name => value }));
        errors[0]
            .split_once("did you mean `")
            .map(|(_, rest)| rest.split('`').next().unwrap_or("").to_owned())
    };
    for (written, near) in [
        ("Map", "map"),
        ("reduce_error", "reduce_err"),
        ("reduceErr", "reduce_err"),
        ("filtermap", "filter_map"),
        ("redcue", "reduce"),
        ("flatmap", "flat_map"),
        ("map_concurency", "map_concurrency"),
        ("mapretry", "map_retry"),
    ] {
        assert_eq!(suggestion(written).as_deref(), Some(near), "{written}");
    }
    for far in ["sink", "dead_letters", "for_each", "match"] {
        assert_eq!(suggestion(far), None, "{far}");
    }
}
