//! The compression of a request's body.

/// How a batch is compressed for the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// No compression. The least work on both sides; for a server on the same machine.
    None,
    /// An LZ4 frame (`Content-Encoding: lz4`). The default.
    #[default]
    Lz4,
    /// A Zstandard frame of level 1 (`Content-Encoding: zstd`): smaller than LZ4, for more CPU time
    /// on both sides. For remote servers.
    #[cfg(feature = "clickhouse-zstd")]
    Zstd,
}

impl Compression {
    /// The value of the `Content-Encoding` header.
    pub(crate) fn content_encoding(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Lz4 => Some("lz4"),
            #[cfg(feature = "clickhouse-zstd")]
            Compression::Zstd => Some("zstd"),
        }
    }

    #[cfg(test)]
    pub(crate) const ALL: &[Compression] = &[
        Compression::None,
        Compression::Lz4,
        #[cfg(feature = "clickhouse-zstd")]
        Compression::Zstd,
    ];
}
