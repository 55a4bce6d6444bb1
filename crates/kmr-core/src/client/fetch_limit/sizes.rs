//! The sizes of polled records. Headers are in no statistics of librdkafka.

/// The sizes of records of one partition that one poll has returned.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::client) struct PolledSizes {
    pub(in crate::client) records: u64,
    /// Bytes of the headers of all of them.
    pub(in crate::client) header_bytes: u64,
    /// Bytes of the largest one, with its headers.
    pub(in crate::client) largest: u64,
}

/// A mean of fewer records than this counts less, because it may be that of an exception.
const FEW: u64 = 64;

/// What polls have shown, up to the last statistics.
#[derive(Debug, Default)]
pub(super) struct RecordSizes {
    /// Mean bytes of the headers of a record.
    pub(super) headers: u64,
    /// The same of the partition where it is highest.
    pub(super) heaviest_headers: u64,
    /// Bytes of the largest record.
    pub(super) largest: u64,
    polled: PolledSizes,
    heaviest: u64,
}

impl RecordSizes {
    pub(super) fn polled(&mut self, sizes: &PolledSizes) {
        self.polled.records += sizes.records;
        self.polled.header_bytes += sizes.header_bytes;
        self.polled.largest = self.polled.largest.max(sizes.largest);
        self.heaviest = self.heaviest.max(sizes.header_bytes / (sizes.records + FEW));
    }

    /// Records since the last statistics, and the bytes of the largest one.
    pub(super) fn since_statistics(&self) -> (u64, u64) {
        (self.polled.records, self.polled.largest)
    }

    /// Must be called at each report of statistics. Without polls, the records that are fetched
    /// next are expected to be as the last ones. The largest ones are forgotten slowly.
    pub(super) fn update(&mut self) {
        let PolledSizes { records, header_bytes, largest } = std::mem::take(&mut self.polled);
        let heaviest = std::mem::take(&mut self.heaviest);
        if let Some(mean) = header_bytes.checked_div(records) {
            self.headers = mean;
            self.heaviest_headers = heaviest.max(less(self.heaviest_headers)).max(self.headers);
            self.largest = largest.max(less(self.largest));
        }
    }
}

/// What is left of a measured maximum after one report of statistics.
pub(super) fn less(maximum: u64) -> u64 {
    maximum - maximum.div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_the_last_polls_and_maxima_are_forgotten_slowly() {
        let mut sizes = RecordSizes::default();
        let polled = |records, header_bytes, largest| PolledSizes { records, header_bytes, largest };
        sizes.polled(&polled(936, 0, 500));
        sizes.polled(&polled(936, 936 * 4000, 4500));
        sizes.update();
        assert_eq!((sizes.headers, sizes.largest), (2000, 4500));
        assert!((3700..=4000).contains(&sizes.heaviest_headers), "{}", sizes.heaviest_headers);
        sizes.update();
        assert_eq!((sizes.headers, sizes.largest), (2000, 4500), "nothing was polled");
        sizes.polled(&polled(10, 0, 500));
        sizes.update();
        assert_eq!(sizes.headers, 0);
        assert!((3000..3500).contains(&sizes.heaviest_headers) && (3500..4000).contains(&sizes.largest));
    }

    #[test]
    fn a_single_record_does_not_stand_for_its_partition() {
        let mut sizes = RecordSizes::default();
        sizes.polled(&PolledSizes { records: 1000, header_bytes: 0, largest: 500 });
        sizes.polled(&PolledSizes { records: 1, header_bytes: 65_000, largest: 65_500 });
        sizes.update();
        assert_eq!((sizes.headers, sizes.heaviest_headers), (64, 1000));
    }
}
