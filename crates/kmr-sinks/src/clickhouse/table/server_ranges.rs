//! The ranges of the server's dates and times: queries show what it makes of the first and the last
//! day.

use std::time::Duration;

use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::hosts::Hosts;
use crate::clickhouse::http::query::select;
use crate::clickhouse::table::name::literal;
use crate::clickhouse::table::ranges::{TimeZone, Years};
use crate::clickhouse::table::startup::until_ready;
use crate::clickhouse::table::types::{ServerRanges, ZoneRange};

/// The year in which the server places the last day of 9999. One that does not know the day takes
/// the last one that it knows.
const LAST_YEARS: &str = "SELECT toYear(toDate32('9999-12-31')) AS date_32, \
                          toYear(toDateTime64('9999-12-31 00:00:00', 0, 'UTC')) AS date_time_64";

#[derive(Deserialize)]
struct LastYears {
    date_32: u16,
    date_time_64: u16,
}

/// The ranges of the server, with those of `DateTime64` in `zones`.
pub(crate) async fn read(
    hosts: &Hosts,
    table: &str,
    zones: &[TimeZone],
    start_timeout: Duration,
) -> Result<ServerRanges, ClickHouseError> {
    let request = |endpoint| select::<LastYears>(endpoint, table, LAST_YEARS);
    let (_, found) = until_ready(hosts, start_timeout, request).await?;
    let Some(last) = found.first() else { return Ok(ServerRanges::default()) };
    let years = |last| if last == 9999 { Years::Wide } else { Years::Narrow };
    let date_32 = years(last.date_32);
    if zones.is_empty() {
        return Ok(ServerRanges { date_32, date_time_64: Vec::new() });
    }
    let statement = zones_statement(zones, years(last.date_time_64));
    let request = |endpoint| select::<ZoneLimits>(endpoint, table, &statement);
    let (_, limits) = until_ready(hosts, start_timeout, request).await?;
    let limits = limits.into_iter().next().map(|found| found.limits).unwrap_or_default();
    let ranges = zones.iter().zip(limits);
    let date_time_64 = ranges.map(|(zone, [first, last])| ZoneRange { zone: zone.clone(), first, last });
    Ok(ServerRanges { date_32, date_time_64: date_time_64.collect() })
}

#[derive(Deserialize)]
struct ZoneLimits {
    limits: Vec<[i64; 2]>,
}

/// A query for the first and the last second of each zone.
fn zones_statement(zones: &[TimeZone], years: Years) -> String {
    let limits = zones.iter().map(|zone| {
        let zone = zone.as_deref().map(|zone| format!(", {}", literal(zone))).unwrap_or_default();
        let second = |text| format!("toInt64(toDateTime64('{text}', 0{zone}))");
        format!("[{}]", years.limits().map(second).join(", "))
    });
    format!("SELECT [{}] AS limits", limits.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_has_each_zone_and_the_servers_own() {
        let statement = zones_statement(&[None, Some("Asia/Tokyo".into())], Years::Narrow);
        assert_eq!(
            statement,
            "SELECT [[toInt64(toDateTime64('1900-01-01 00:00:00', 0)), toInt64(toDateTime64('2299-12-31 23:59:59', 0))], \
             [toInt64(toDateTime64('1900-01-01 00:00:00', 0, 'Asia/Tokyo')), \
             toInt64(toDateTime64('2299-12-31 23:59:59', 0, 'Asia/Tokyo'))]] AS limits"
        );
    }
}
