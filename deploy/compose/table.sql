CREATE TABLE IF NOT EXISTS measurements
(
    id UInt64,
    metric LowCardinality(String),
    value Float64,
    at DateTime64(3),
    kafka_partition Int32,
    kafka_offset Int64
)
ENGINE = MergeTree
ORDER BY (metric, at)
SETTINGS non_replicated_deduplication_window = 10000;
