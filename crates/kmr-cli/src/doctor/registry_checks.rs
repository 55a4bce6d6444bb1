//! The Schema Registry: whether each of its addresses can be used.

use kmr_formats::SchemaRegistry;

use super::check::{Check, State};
use super::facts::{Fact, Facts};

const NAME: &str = "schema registry";

/// Asks each address.
pub(super) async fn gather(registry: Option<&Result<SchemaRegistry, String>>) -> Vec<(String, Fact<()>)> {
    match registry {
        None => Vec::new(),
        Some(Err(problem)) => vec![(String::new(), Err(problem.clone()))],
        Some(Ok(registry)) => {
            let checked = registry.check().await.into_iter();
            checked.map(|(url, found)| (url, found.map_err(|error| error.to_string()))).collect()
        }
    }
}

/// One check for each address.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let check = |(url, found): &(String, Fact<()>)| match found {
        Ok(()) => Check::ok(NAME, format!("{url} accepts requests")),
        Err(problem) => {
            let remedy = "correct registry.urls, its user, password or token, or start the registry: \
                          until then, records whose schema is new wait";
            Check::new(NAME, State::Fail, problem.clone(), remedy)
        }
    };
    facts.registry.iter().map(check).collect()
}
