//! Error texts: one line, with every cause once.

/// The error and its causes, `a: b: c`. A cause that the text before it contains is not repeated.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string().replace('\n', " ");
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn every_cause_is_named_once() {
        let error = anyhow!("closed\nby peer").context("connecting: closed by peer").context("starting");
        assert_eq!(super::one_line(&error), "starting: connecting: closed by peer");
    }
}
