//! The stages and settings that exist, by name.

use std::fmt;

use proc_macro2::Ident;

/// A stage or a setting that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Concurrency,
    MapRetry,
    Filter,
    Map,
    FilterMap,
    FlatMap,
    Reduce,
    ReduceErr,
}

impl Kind {
    pub(crate) const STAGES: [Self; 6] =
        [Self::Filter, Self::Map, Self::FilterMap, Self::FlatMap, Self::Reduce, Self::ReduceErr];
    pub(crate) const SETTINGS: [Self; 2] = [Self::Concurrency, Self::MapRetry];

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::STAGES.into_iter().chain(Self::SETTINGS)
    }

    /// The stage or setting of that name.
    pub(crate) fn of(name: &Ident) -> Option<Self> {
        Self::all().find(|kind| name == kind.name())
    }

    /// The name, which is also the builder's method.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "map_concurrency",
            Self::MapRetry => "map_retry",
            Self::Filter => "filter",
            Self::Map => "map",
            Self::FilterMap => "filter_map",
            Self::FlatMap => "flat_map",
            Self::Reduce => "reduce",
            Self::ReduceErr => "reduce_err",
        }
    }

    pub(crate) fn is_map(self) -> bool {
        matches!(self, Self::Map | Self::FilterMap | Self::FlatMap)
    }

    pub(crate) fn is_setting(self) -> bool {
        Self::SETTINGS.contains(&self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name())
    }
}
