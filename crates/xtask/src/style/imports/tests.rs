use super::*;

fn found(package: &str, sources: &[(&str, &str)]) -> Vec<Finding> {
    let file = |(path, text): &(&str, &str)| SourceFile {
        path: format!("crates/{package}/src/{path}"),
        language: Language::Rust,
        text: (*text).to_owned(),
    };
    let limits = [
        Limit { package: "one-room", folder: Some("graph/coordinator/"), largest: 0 },
        Limit { package: "two-files", folder: None, largest: 2 },
    ];
    check_with(&limits, &sources.iter().map(file).collect::<Vec<_>>())
}

fn is_circle(sources: &[(&str, &str)]) -> bool {
    !found("any", sources).is_empty()
}

#[test]
fn imports_in_one_direction_are_good() {
    assert!(!is_circle(&[("a.rs", "use crate::b::B;"), ("b.rs", "use std::fmt; use crate::a_b;")]));
}

#[test]
fn two_files_that_import_each_other_are_named() {
    let sources =
        [("a.rs", "\nuse crate::b::B;"), ("b.rs", "fn f() { crate::a::g(); }"), ("c.rs", "use crate::a;")];
    let found = found("any", &sources);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].file.as_str(), found[0].line), ("crates/any/src/a.rs", 2));
    assert!(found[0].text.starts_with("2 files import each other in a circle: a.rs, b.rs;"));
    assert!(found[0].text.ends_with("a.rs -> b.rs -> a.rs"));
}

#[test]
fn every_form_of_an_import_counts() {
    let other = ("c/b.rs", "use super::a::A;");
    for import in [
        "use crate::c::b::B;",
        "use crate::{c::{self, b::{B as X, Y}}};",
        "use super::b;",
        "pub(crate) use super::b::*;",
        "fn f(x: super::b::B) {}",
        "mod inner { use super::super::b::B; }",
    ] {
        assert!(is_circle(&[("c/a.rs", import), other]), "{import}");
    }
    assert!(is_circle(&[("c/mod.rs", "fn f() { self::a::f(); }"), ("c/a.rs", "use super::C;")]));
    assert!(is_circle(&[("c.rs", "use self::a::A;"), ("c/a.rs", "use super::C;")]));
}

#[test]
fn what_is_no_import_does_not_count() {
    let other = ("c/b.rs", "use super::a::A;");
    for text in [
        "// use crate::c::b::B;",
        "let x = \"crate::c::b\";",
        "pub(in crate::c::b) fn f() {}",
        "mod b { fn f(x: super::B) {} }",
        "use other::c::b;",
    ] {
        assert!(!is_circle(&[("c/a.rs", text), other]), "{text}");
    }
}

#[test]
fn tests_are_left_out() {
    let other = ("b.rs", "use crate::a::A;");
    for text in [
        "#[cfg(test)]\nmod tests { use crate::b::B; }",
        "#[cfg(any(test, feature = \"testing\"))]\nuse crate::b::{B, C};",
        "#[cfg(test)]\n#[must_use]\npub(crate) fn f<A, B>(a: A) -> [u8; 2] { crate::b::f() }",
        "struct A { #[cfg(test)] b: crate::b::B }",
        "#![cfg(test)]\nuse crate::b::B;",
    ] {
        assert!(!is_circle(&[("a.rs", text), other]), "{text}");
        assert!(is_circle(&[("a.rs", &text.replace("test", "unix")), other]), "{text}");
    }
    let sources = [
        ("lib.rs", "#[cfg(test)]\nmod a;\nmod b;"),
        ("a/mod.rs", ""),
        ("a/c.rs", "use crate::b;"),
        ("b.rs", "use crate::a::c;"),
    ];
    assert!(!is_circle(&sources));
}

#[test]
fn a_name_of_the_root_counts_for_the_file_that_has_it() {
    let with_root = |root| [("lib.rs", root), ("a.rs", "use crate::B;"), ("b.rs", "use crate::a::A;")];
    assert!(is_circle(&with_root("mod a; mod b; pub use b::{B, C};")));
    assert!(is_circle(&with_root("mod a; mod b; pub use crate::b::X as B;")));
    assert!(!is_circle(&with_root("mod a; mod b; pub use a::B;")));
}

#[test]
fn a_folder_can_be_one_thing_in_several_files() {
    let inside = [("graph/coordinator/a.rs", "use super::b;"), ("graph/coordinator/b.rs", "use super::a;")];
    assert!(found("one-room", &inside).is_empty());
    assert_eq!(found("any", &inside).len(), 1);
    let outside =
        [("graph/coordinator/a.rs", "use crate::b;"), ("b.rs", "use crate::graph::coordinator::a;")];
    assert_eq!(found("one-room", &outside).len(), 1);
}

#[test]
fn a_circle_can_be_allowed_by_its_size() {
    let two = [("a.rs", "use crate::b;"), ("b.rs", "use crate::a;")];
    assert!(found("two-files", &two).is_empty());
    let three = [("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "use crate::a;")];
    assert_eq!(found("two-files", &three).len(), 1);
}
