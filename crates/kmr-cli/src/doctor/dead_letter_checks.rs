//! Checks of the topic for dead letters against the source. Pure.

use super::check::{Check, State};
use super::facts::{DeadLetterFacts, KafkaFacts, TopicSettings};

const NAME: &str = "dead letters";

/// The check; `None` if no topic is set.
pub(super) fn check(kafka: &KafkaFacts) -> Option<Check> {
    let facts = kafka.dead_letters.as_ref()?;
    let DeadLetterFacts { topic, .. } = facts;
    if *topic == kafka.topic {
        let found = format!("{topic:?} is the source: each dead letter would be read and fail again");
        return Some(Check::new(NAME, State::Fail, found, "name another --dead-letter-topic"));
    }
    let partitions = match &facts.partitions {
        Ok(partitions) => partitions,
        // A broker that does not respond fails its own check.
        Err(reason) if kafka.brokers.is_err() => return Some(Check::unknown(NAME, reason)),
        Err(reason) => {
            return Some(Check::new(NAME, State::Fail, reason, "create the topic, or correct its name"));
        }
    };
    Some(match &facts.settings {
        Err(reason) => Check::unknown(NAME, reason),
        Ok((own, source)) => match limits(own, source)[..] {
            [] => Check::ok(
                NAME,
                format!("{topic:?}, {partitions} partitions; its limits are not below the source's"),
            ),
            ref problems => Check::new(
                NAME,
                State::Warn,
                format!("{topic:?}: {}", problems.join("; ")),
                "give it the limits of the source, or higher ones",
            ),
        },
    })
}

/// The settings with which the topic keeps less than the source.
fn limits(own: &TopicSettings, source: &TopicSettings) -> Vec<String> {
    let number = |settings: &TopicSettings, name: &str| settings.get(name)?.parse::<i64>().ok();
    let mut problems = Vec::new();
    for (name, why) in [
        ("max.message.bytes", "a large record has no dead letter with its whole content"),
        ("retention.ms", "dead letters are deleted before their records"),
        ("retention.bytes", "dead letters are deleted before their records"),
    ] {
        if let (Some(own), Some(of_source)) = (number(own, name), number(source, name))
            && is_less(own, of_source)
        {
            problems.push(format!("{name} is {own}, and {of_source} at the source: {why}"));
        }
    }
    if own.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        problems.push(
            "cleanup.policy is compact: of several dead letters with one key the last one stays".into(),
        );
    }
    if own.get("message.timestamp.type").is_some_and(|kind| kind == "CreateTime") {
        for name in ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"] {
            if let (Some(own), Some(of_source)) = (number(own, name), number(source, name))
                && own < of_source
            {
                problems.push(format!("{name} is {own}, and {of_source} at the source"));
            }
        }
    }
    problems
}

/// Whether a limit is lower; -1 is no limit.
fn is_less(own: i64, of_source: i64) -> bool {
    own >= 0 && (of_source < 0 || own < of_source)
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::facts;
    use super::*;

    fn checked(change: impl FnOnce(&mut DeadLetterFacts)) -> (State, String) {
        let settings = |bytes: &str| -> TopicSettings {
            [("max.message.bytes", bytes), ("retention.ms", "604800000"), ("cleanup.policy", "delete")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        let mut dead_letters = DeadLetterFacts {
            topic: "failed".into(),
            partitions: Ok(3),
            settings: Ok((settings("1048588"), settings("1048588"))),
        };
        change(&mut dead_letters);
        let mut facts = facts();
        facts.kafka.dead_letters = Some(dead_letters);
        let check = check(&facts.kafka).unwrap();
        (check.state, check.found)
    }

    #[test]
    fn the_source_and_missing_topics_fail() {
        assert!(check(&facts().kafka).is_none());
        assert_eq!(checked(|_| {}).0, State::Ok);
        let (state, text) = checked(|facts| facts.topic = "events".into());
        assert!(state == State::Fail && text.contains("is the source"), "{text}");
        assert_eq!(checked(|facts| facts.partitions = Err("does not exist".into())).0, State::Fail);
        assert_eq!(checked(|facts| facts.settings = Err("denied".into())).0, State::Unknown);
    }

    #[test]
    fn lower_limits_than_those_of_the_source_warn() {
        let with = |name: &str, value: &str| {
            checked(|facts| {
                let settings = &mut facts.settings.as_mut().unwrap().0;
                settings.insert(name.to_owned(), value.to_owned());
            })
        };
        for (name, value) in
            [("max.message.bytes", "1000"), ("retention.ms", "60000"), ("cleanup.policy", "compact,delete")]
        {
            let (state, text) = with(name, value);
            assert!(state == State::Warn && text.contains(name), "{name}: {text}");
        }
        assert_eq!(with("retention.ms", "-1").0, State::Ok, "-1 keeps them for ever");
        assert_eq!(with("max.message.bytes", "2000000").0, State::Ok);
    }
}
