//! Settings that users set, and those that the client receives.

use super::*;

#[test]
fn debug_hides_secrets() {
    let config = ClientConfig::new().set("sasl.password", "hunter2").set("group.id", "g");
    let text = format!("{config:?}");
    assert!(!text.contains("hunter2") && text.contains("(hidden)") && text.contains("\"g\""), "{text}");
}

#[test]
fn settings_that_the_delivery_guarantee_depends_on_cannot_be_changed() {
    let config = ClientConfig::new().set("enable.auto.commit", "true").set("fetch.min.bytes", "1");
    let notes = config.lint();
    assert_eq!(
        (notes.len(), notes[0].name, notes[0].effect),
        (1, "enable.auto.commit", WarningKind::Replaced)
    );
    let effective = config.effective(16 << 20, false);
    assert_eq!(effective["enable.auto.commit"], "false");
    assert_eq!(effective["auto.offset.reset"], "error");
    assert_eq!(effective["fetch.min.bytes"], "1", "the user's value overrides the default");
    assert_eq!(effective["partition.assignment.strategy"], "cooperative-sticky");
}

#[test]
fn settings_that_kip_848_rejects_are_removed() {
    let config = ClientConfig::new().set("group.protocol", "consumer");
    let config = NOT_WITH_KIP_848.iter().fold(config, |config, name| config.set(*name, "1"));
    let effective = config.effective(16 << 20, false);
    assert!(NOT_WITH_KIP_848.iter().all(|name| !effective.contains_key(*name)), "{effective:?}");
}

#[test]
fn settings_that_are_not_used_or_weaken_a_guarantee_are_reported() {
    let names = |config: ClientConfig| config.lint().iter().map(|note| note.name).collect::<Vec<_>>();
    let harmless = ["enable.auto.commit=false", "auto.offset.reset=latest", "isolation.level=read_committed"];
    let set = |settings: &[&str]| {
        settings.iter().filter_map(|s| s.split_once('=')).fold(ClientConfig::new(), |c, (n, v)| c.set(n, v))
    };
    assert_eq!(names(set(&harmless)), [""; 0]);
    let risky =
        set(&["isolation.level=read_uncommitted", "queued.min.messages=1", "session.timeout.ms=6000"]);
    assert_eq!(names(risky.clone()), ["queued.min.messages", "isolation.level"]);
    assert_eq!(names(risky.set("group.protocol", "consumer"))[0], "session.timeout.ms");
}

#[test]
fn a_setting_from_a_file_is_read_late_and_never_shown() {
    let path = std::env::temp_dir().join(format!("kmr-config-{}", std::process::id()));
    let config = ClientConfig::new().set("sasl.password", "old").set_from_file("sasl.password", &path);
    assert_eq!(config.get("sasl.password"), None);
    let error = config.resolved().unwrap_err().to_string();
    assert!(error.contains("sasl.password") && error.contains(&path.display().to_string()), "{error}");
    for password in ["hunter2", "hunter3"] {
        std::fs::write(&path, format!("{password}\r\n")).unwrap();
        assert_eq!(config.resolved().unwrap().get("sasl.password"), Some(password));
    }
    let shown = format!("{config:?}");
    assert!(shown.contains(&path.display().to_string()) && !shown.contains("hunter"), "{shown}");
    std::fs::remove_file(&path).unwrap();
    let replaced = config.set("sasl.password", "new");
    assert_eq!(replaced.resolved().unwrap().get("sasl.password"), Some("new"));
}

#[test]
fn oauthbearer_needs_a_source_of_tokens() {
    for name in ["sasl.mechanism", "sasl.mechanisms"] {
        let config = ClientConfig::new().set(name, "OAUTHBEARER");
        let error = config.check_tokens().unwrap_err().to_string();
        assert!(error.contains("no source of tokens"), "{error}");
        assert!(config.clone().set("enable.sasl.oauthbearer.unsecure.jwt", "false").check_tokens().is_err());
        assert!(config.clone().set("enable.sasl.oauthbearer.unsecure.jwt", "true").check_tokens().is_ok());
        let provider = async || Err("no identity".into());
        assert!(config.set("sasl.oauthbearer.method", "oidc").check_tokens().is_err());
        let config = ClientConfig::new().set("sasl.oauthbearer.client.id", "kmr");
        let config = config.set("https.ca.location", "/ca.pem").token_provider(provider);
        assert!(config.check_tokens().is_ok());
        let resolved = config.resolved().unwrap();
        let settings: Vec<(&str, &str)> = resolved.iter().collect();
        assert_eq!(settings, [("sasl.mechanism", "OAUTHBEARER")]);
    }
    assert!(ClientConfig::new().set("sasl.mechanism", "SCRAM-SHA-512").check_tokens().is_ok());
}

#[test]
fn ends_are_reported_only_when_requested() {
    let config = ClientConfig::new().set("enable.partition.eof", "true");
    assert_eq!(config.effective(16 << 20, false)["enable.partition.eof"], "false");
    assert_eq!(config.effective(16 << 20, true)["enable.partition.eof"], "true");
}

#[test]
fn times_are_milliseconds_since_1970() {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    assert_eq!(StartAt::time(time), StartAt::Timestamp(1_700_000_000_000));
    assert_eq!(StartAt::time(std::time::UNIX_EPOCH - Duration::from_secs(5)), StartAt::Timestamp(0));
}

#[test]
fn earliest_resend_follows_the_backoff_and_its_limit() {
    let resend = |config: ClientConfig| config.for_exactly_once().earliest_resend().as_millis();
    assert_eq!(resend(ClientConfig::new()), 2000);
    assert_eq!(resend(ClientConfig::new().set("retry.backoff.ms", "100")), 80);
    let limited = ClientConfig::new().set("retry.backoff.max.ms", "1000");
    assert_eq!(resend(limited), 1000, "librdkafka cuts the backoff after its jitter");
}

#[test]
fn missing_settings_are_named() {
    let error = ClientConfig::new().required("group.id").unwrap_err().to_string();
    assert!(error.contains("group.id is not set"), "{error}");
}

#[test]
fn fetch_limits_of_the_user_are_kept_and_noted() {
    let config = ClientConfig::new().set("fetch.max.bytes", "5000000");
    assert_eq!(config.lint()[0].effect, WarningKind::Risky);
    let effective = config.effective(16 << 20, false);
    assert_eq!(effective["fetch.max.bytes"], "5000000");
    assert_eq!(effective["statistics.interval.ms"], "500", "no limit is adapted, and positions are read");
    let config = ClientConfig::new().set("fetch.message.max.bytes", "70000");
    assert!(!config.effective(16 << 20, false).contains_key("max.partition.fetch.bytes"));
    let default = ClientConfig::new().effective(16 << 20, false);
    assert_eq!(default["max.partition.fetch.bytes"], "524288");
    assert_eq!(default["statistics.interval.ms"], "500");
}

#[test]
fn statistics_that_kmr_needs_cannot_be_switched_off() {
    let set = |value: &str| ClientConfig::new().set("statistics.interval.ms", value);
    let effective = |config: &ClientConfig| config.effective(16 << 20, false)[STATISTICS].clone();
    for rare in ["0", "60000", "300000"] {
        let lint = set(rare).lint();
        assert_eq!((lint[0].name, lint[0].effect), (STATISTICS, WarningKind::Replaced));
        assert_eq!(effective(&set(rare)), "500");
        let fixed = set(rare).set("fetch.max.bytes", "5000000");
        assert_eq!(effective(&fixed), "500", "the other limit is adapted");
        let fixed = fixed.set("queued.min.messages", "1000");
        let expected = if rare == "60000" { rare } else { "500" };
        assert_eq!(effective(&fixed), expected, "no limit is adapted, and positions are read");
    }
    assert_eq!((set("700").lint(), effective(&set("700"))), (Vec::new(), "700".to_owned()));
}

#[test]
fn checksums_are_verified_unless_the_user_decides_otherwise() {
    assert_eq!(ClientConfig::new().effective(16 << 20, false)["check.crcs"], "true");
    let unchecked = ClientConfig::new().set("check.crcs", "false");
    assert_eq!(unchecked.effective(16 << 20, false)["check.crcs"], "false");
    assert_eq!(unchecked.lint()[0].effect, WarningKind::Risky);
}

#[test]
fn fetch_minimum_is_at_most_the_limit_per_partition() {
    let least = |config: ClientConfig| config.effective(16 << 20, false)["fetch.min.bytes"].clone();
    assert_eq!(least(ClientConfig::new()), "400000");
    let large = ClientConfig::new().set("max.partition.fetch.bytes", "1048576");
    assert_eq!(least(large), "400000");
    assert_eq!(least(ClientConfig::new().set("max.partition.fetch.bytes", "65536")), "65536");
    assert_eq!(least(ClientConfig::new().set("fetch.message.max.bytes", "5000000")), "400000");
}

#[test]
fn prefetch_is_bounded_by_count_and_bytes() {
    let effective = ClientConfig::new().effective(16 << 20, false);
    let count: usize = effective["queued.min.messages"].parse().unwrap();
    assert!(count * (200 + RECORD_OVERHEAD) <= 16 << 20);
    assert_eq!(effective["queued.max.messages.kbytes"], "12288");
    let large = ClientConfig::new().set("message.max.bytes", "104857600").effective(16 << 20, false);
    assert_eq!(large["fetch.max.bytes"], "104857600", "librdkafka rejects less");
    assert_eq!(large["receive.message.max.bytes"], "350000000");
    let larger = ClientConfig::new().set("fetch.max.bytes", "400000000").effective(16 << 20, false);
    assert_eq!(larger["receive.message.max.bytes"], "400000512", "librdkafka rejects less");
}
