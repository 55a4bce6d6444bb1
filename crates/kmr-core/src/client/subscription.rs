//! Which topics a subscription includes.

use super::native::pattern;

/// Whether `subscription`, the name of a topic or a pattern that starts with `^`, includes `topic`,
/// by the rules of librdkafka. In a KIP-848 group the broker matches patterns, by the rules of
/// RE2/J and with the whole name. An invalid pattern includes nothing.
pub fn subscription_matches(subscription: &str, topic: &str) -> bool {
    if subscription.starts_with('^') { pattern::matches(subscription, topic) } else { subscription == topic }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_and_patterns_are_matched() {
        assert!(subscription_matches("orders", "orders") && !subscription_matches("orders", "orders-dead"));
        assert!(
            subscription_matches("^orders", "orders-dead")
                && !subscription_matches("^orders$", "orders-dead")
        );
        assert!(
            subscription_matches("^(orders|bills)-.*", "bills-dead") && !subscription_matches("^x", "ox")
        );
        assert!(!subscription_matches("^(", "("), "an invalid pattern matches nothing");
    }
}
