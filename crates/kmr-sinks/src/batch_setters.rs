//! The setters of the batch options, which all writers have.

/// Defines builder methods of a writer that set its field `options: BatchOptions`, one line each:
/// `name: Type => method of BatchOptions;`.
macro_rules! batch_setters {
    ($($(#[$doc:meta])* $setter:ident: $value:ty => $with:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $setter(mut self, $setter: $value) -> Self {
                self.options = self.options.$with($setter);
                self
            }
        )*
    };
}

pub(crate) use batch_setters;
