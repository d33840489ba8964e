//! What a judge is asked, in our own words, and what it said.

use fuseline_contract::rows::Message;

const SYSTEM: &str = "You judge answers. You check facts, steps and calculations yourself, you are strict, and neither \
    length nor style nor confidence alone counts for an answer.";

/// The best grade.
pub(super) const BEST: u32 = 10;

/// One answer to be graded.
pub(super) fn single(
    conversation: &[Message],
    reference: Option<&str>,
    answer: &str,
    criteria: Option<&str>,
) -> Vec<Message> {
    let mut text = format!("Grade the answer below from 1 (useless or wrong) to {BEST} (nothing could be better).\n\n");
    text += &quoted("conversation", &spoken(conversation));
    text += &known(reference);
    text += &quoted("answer", answer);
    text += &wanted(criteria);
    text += "First say in a few sentences what is right and what is wrong about it. Then end with a line of exactly this form, \
        with your grade in place of N:\nVerdict: N";
    turns(text)
}

/// Two answers to be compared.
pub(super) fn pair(
    conversation: &[Message],
    reference: Option<&str>,
    [first, second]: [&str; 2],
    criteria: Option<&str>,
) -> Vec<Message> {
    let mut text =
        "Two assistants, A and B, answered the conversation below. Say whose answer is better. The order in \
        which they stand means nothing.\n\n"
            .to_owned();
    text += &quoted("conversation", &spoken(conversation));
    text += &known(reference);
    text += &quoted("answer_a", first);
    text += &quoted("answer_b", second);
    text += &wanted(criteria);
    text += "First compare them in a few sentences. Then end with a line of exactly one of these forms:\n\
        Verdict: A\nVerdict: B\nVerdict: tie";
    turns(text)
}

fn turns(text: String) -> Vec<Message> {
    vec![Message { role: "system".into(), content: SYSTEM.into() }, Message::user(text)]
}

fn spoken(conversation: &[Message]) -> String {
    conversation.iter().map(|turn| format!("{}: {}", turn.role, turn.content)).collect::<Vec<_>>().join("\n\n")
}

fn quoted(name: &str, text: &str) -> String {
    format!("<{name}>\n{text}\n</{name}>\n\n")
}

fn known(reference: Option<&str>) -> String {
    reference
        .map(|reference| quoted("reference", reference) + "The reference is known to be right.\n\n")
        .unwrap_or_default()
}

fn wanted(criteria: Option<&str>) -> String {
    criteria.map(|criteria| format!("What counts: {}\n\n", criteria.trim())).unwrap_or_default()
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Winner {
    First,
    Second,
    Tie,
}

impl Winner {
    /// The same for answers in the other order.
    pub(super) fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }
}

/// What stands behind the last `Verdict:` of a reply, and what was said before it.
fn last(reply: &str) -> Option<(String, String)> {
    let bare = |line: &str| line.replace(['*', '_', '`', '[', ']', '#', '"', '.'], "").trim().to_ascii_lowercase();
    let lines: Vec<&str> = reply.lines().collect();
    let (at, word) = lines.iter().enumerate().rev().find_map(|(at, line)| {
        let word = bare(line).strip_prefix("verdict:").map(|word| word.trim().to_owned());
        word.map(|word| (at, word))
    })?;
    Some((word, lines[..at].join("\n").trim().to_owned()))
}

/// The grade of a reply, and its reason.
pub(super) fn grade(reply: &str) -> Result<(u32, String), String> {
    let (word, reason) = last(reply).ok_or_else(|| without(reply))?;
    let number = word.split('/').next().unwrap_or_default().trim().parse().ok();
    let grade = number.filter(|grade| (1..=BEST).contains(grade));
    grade.map(|grade| (grade, reason)).ok_or_else(|| format!("its verdict {word:?} is no grade from 1 to {BEST}"))
}

/// The winner of a reply, and its reason.
pub(super) fn winner(reply: &str) -> Result<(Winner, String), String> {
    let (word, reason) = last(reply).ok_or_else(|| without(reply))?;
    let winner = match word.as_str() {
        "a" | "answer a" | "assistant a" => Winner::First,
        "b" | "answer b" | "assistant b" => Winner::Second,
        "tie" | "draw" | "equal" => Winner::Tie,
        _ => return Err(format!("its verdict {word:?} is neither A, B nor tie")),
    };
    Ok((winner, reason))
}

fn without(reply: &str) -> String {
    let end: String = reply.trim().chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
    format!("the judge gave no verdict; its reply ends with {end:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_from_the_last_line_that_has_one() {
        assert_eq!(grade("It is right.\nVerdict: 8"), Ok((8, "It is right.".into())));
        assert_eq!(
            grade("I would say\nVerdict: 3\nbut no:\n**Verdict: [[7]]**\n"),
            Ok((7, "I would say\nVerdict: 3\nbut no:".into()))
        );
        assert_eq!(grade("verdict: 9/10"), Ok((9, String::new())));
        assert_eq!(winner("Both.\nVerdict: A."), Ok((Winner::First, "Both.".into())));
        assert_eq!(winner("x\n`Verdict: Assistant B`").map(|found| found.0), Ok(Winner::Second));
        assert_eq!(winner("Verdict: TIE").map(|found| found.0), Ok(Winner::Tie));
    }

    #[test]
    fn a_reply_without_a_verdict_is_told_by_its_end() {
        let said = grade("I cannot say").expect_err("no verdict");
        assert_eq!(said, "the judge gave no verdict; its reply ends with \"I cannot say\"");
        assert_eq!(grade("Verdict: 11").expect_err("too high"), "its verdict \"11\" is no grade from 1 to 10");
        assert_eq!(winner("Verdict: C").expect_err("nobody"), "its verdict \"c\" is neither A, B nor tie");
        assert!(grade("Verdict: 0").is_err() && grade("the verdict: 5").is_err());
    }

    #[test]
    fn prompts_hold_what_is_judged_and_only_what_there_is() {
        let asked = [Message::user("2+2?")];
        let plain = single(&asked, None, "4", None);
        assert_eq!((plain.len(), plain[0].role.as_str()), (2, "system"));
        let text = &plain[1].content;
        assert!(
            text.contains("<conversation>\nuser: 2+2?\n</conversation>") && text.contains("<answer>\n4\n</answer>")
        );
        assert!(!text.contains("reference") && !text.contains("What counts"));
        let full = &pair(&asked, Some("four"), ["4", "5"], Some("brevity"))[1].content;
        let at = |part: &str| full.find(part).unwrap_or_else(|| panic!("{part} is missing in {full}"));
        assert!(
            at("<answer_a>\n4\n") < at("<answer_b>\n5\n") && at("<reference>\nfour\n") < at("What counts: brevity")
        );
    }

    #[test]
    fn swapping_twice_changes_nothing() {
        for winner in [Winner::First, Winner::Second, Winner::Tie] {
            assert_eq!(winner.swapped().swapped(), winner);
        }
        assert_eq!(Winner::First.swapped(), Winner::Second);
    }
}
