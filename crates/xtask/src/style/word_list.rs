//! The words that kmr does not use, each with the standard term in its place.
//!
//! A pattern is a phrase: words with spaces between, forms of one word with `|` between, `*` for
//! any word, and `$` for the end of a clause. Punctuation between two words keeps a phrase from
//! matching; a line break, a hyphen or an underscore does not. Patterns are narrow: a hit is nearly
//! always right. What is left out on purpose:
//!
//! * `take`, `turn`, `look`, `begin`, `will`, `share`, `mark` as verbs, `say` without its `s`,
//!   `end`: plain English, most of the time;
//! * `window`, `plan`, `epoch`: they are terms, and no pattern distinguishes the wrong use of a
//!   term.

/// A word, what it is replaced with, and where it is found.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) word: &'static str,
    pub(crate) instead: &'static str,
    pub(crate) patterns: &'static [&'static str],
    /// Phrases in which the word is right.
    pub(crate) except: &'static [&'static str],
    /// Whether names in the code are searched as well as text.
    pub(crate) in_names: bool,
}

const fn rule(
    word: &'static str,
    instead: &'static str,
    patterns: &'static [&'static str],
    except: &'static [&'static str],
) -> Rule {
    Rule { word, instead, patterns, except, in_names: false }
}

const fn rule_with_names(
    word: &'static str,
    instead: &'static str,
    patterns: &'static [&'static str],
    except: &'static [&'static str],
) -> Rule {
    Rule { word, instead, patterns, except, in_names: true }
}

pub(crate) const RULES: [Rule; 29] = [
    rule_with_names(
        "letter",
        "dead letter",
        &["letter|letters"],
        &[
            "dead letter|letters",
            "case letter|letters",
            "capital|small|upper|lower letter|letters",
            "letter|letters and|or digit|digits",
        ],
    ),
    rule(
        "gets on, stands still",
        "makes progress, is stuck",
        &["get|gets|got|getting on", "stand|stands|stood|standing still"],
        &["get|gets|got|getting on with"],
    ),
    rule(
        "is away, is there again",
        "is unavailable, recovers",
        &["is|are|was|were|be|been|stays|stayed away", "is|are|was|were|be there again"],
        &[],
    ),
    rule(
        "handed out, handed back",
        "returned (by poll), revoked or released",
        &[
            "hand|hands|handed|handing out|back",
            "hand|hands|handed|handing it|them|this|that out|back",
            "hand|hands|handed|handing the|a|an|its * out|back",
        ],
        &[],
    ),
    rule_with_names(
        "made again, reform",
        "rebuilt, replayed",
        &["made|make|makes|making again", "reform|reforms|reformed|reforming", "re form|forms|formed"],
        &[],
    ),
    rule(
        "is in, goes in, takes rows",
        "is stored, is inserted, accepts",
        &[
            "is|are|was|were|be in $",
            "is|are|was|were in once|twice",
            "go|goes|went|gone in $",
            "go|goes|went|gone in again|once|twice|without|with|under|whole|alone|after|before",
            "take|takes|took|taken|taking rows|row",
        ],
        &[],
    ),
    // The system's own words for an address without a listener stay.
    rule_with_names(
        "refuses, refused",
        "rejects, rejected",
        &["refuse|refuses|refused|refusing|refusal|refusals"],
        &[
            "connection|connections refused",
            "connection|connections is|are|was|were refused",
            "refuse|refuses|refused|refusing connections|connection",
            "refuse|refuses|refused|refusing the|a|new|any connection|connections",
        ],
    ),
    rule("for good", "permanently", &["for good"], &["for good measure|reason|reasons"]),
    // `behind` stays for distance in a log, and for servers in a network.
    rule(
        "behind",
        "after, downstream of",
        &["behind"],
        &[
            "lag|lags|lagged|lagging behind",
            "fall|falls|fell|fallen|falling behind",
            "far behind",
            "records|messages|offsets|bytes|seconds behind the end",
            "behind a|an|the proxy",
            "behind a|an|the load balancer",
            "behind a|an|the firewall|nat",
            "behind a|an|the feature",
            "leave|leaves|left|leaving behind",
        ],
    ),
    rule(
        "in front of",
        "before, upstream of",
        &["in front of", "in front $"],
        &["proxy|balancer|proxies|balancers in front of"],
    ),
    rule(
        "whoever, somebody, nobody",
        "the next owner, a caller, no task",
        &["whoever|somebody|nobody|someone|anybody|everybody"],
        &[],
    ),
    rule("says, said", "reports, logs, returns", &["says|said"], &[]),
    rule("is told", "receives, is notified", &["tells|told"], &[]),
    rule("hears", "receives", &["hear|hears|heard"], &[]),
    rule(
        "is asked",
        "receives a request, is queried",
        &["is|are|was|were|be|been|being asked"],
        &["asked for"],
    ),
    rule_with_names("wish (to stop)", "stop request", &["wish|wishes|wished"], &[]),
    rule_with_names(
        "treatment, heal",
        "recovery, restart",
        &["treatment|treatments", "heal|heals|healed|healing|healer"],
        &[],
    ),
    rule_with_names(
        "examination",
        "health check",
        &["examination|examinations", "examine|examines|examined|examining"],
        &[],
    ),
    rule(
        "look (a noun)",
        "health check, check",
        &["a|the|one|no|any|each|every|per|next|last|first|second|third|two|another|without look|looks"],
        &["look|looks up", "look|looks ahead"],
    ),
    rule(
        "take (a noun), the intake's turn",
        "poll, hand-off",
        &["a|the|one|no|each|every|per|next|last|first|whole take", "intake turn"],
        &[],
    ),
    rule_with_names(
        "piece, draft, carve",
        "tracked rows, builder, take out",
        &["piece|pieces", "draft|drafts", "carve|carves|carved|carving"],
        &[],
    ),
    // `in flight` is the field's own term: max.in.flight.requests.per.connection.
    rule_with_names(
        "flight, fly, landed, launch",
        "delivery, attempt, completed, start",
        &[
            "flight|flights",
            "fly|flies|flew|flying",
            "land|lands|landed|landing",
            "launch|launches|launched|launching",
        ],
        &["in flight"],
    ),
    rule("door", "channel", &["door|doors"], &[]),
    rule_with_names(
        "judge",
        "invariant checker, oracle",
        &["judge|judges|judged|judging|judgement|judgment"],
        &[],
    ),
    rule_with_names("planted defect", "mutant", &["plant|plants|planted|planting"], &[]),
    rule(
        "mark (a noun)",
        "commit metadata, idle marker",
        &["mark|marks"],
        &[
            "question|quotation|exclamation|punctuation mark|marks",
            "high water mark|marks",
            "mark|marks as",
            "mark|marks it|them|this|the",
        ],
    ),
    rule("beginning", "starting position", &["beginning|beginnings"], &["beginning offset|offsets"]),
    rule(
        "share (of failures)",
        "ratio",
        &[
            "share of failures|failed|failing|rejected|dead|errors|malformed|bad",
            "failure|failed|rejected share|shares",
        ],
        &[],
    ),
    rule("byte budget", "memory budget", &["byte|bytes budget|budgets", "budget of bytes"], &[]),
];
