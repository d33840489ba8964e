//! Levenshtein's distance (V. I. Levenshtein, Soviet Physics Doklady 10, 1966), by the table of Wagner and Fischer, of which
//! two rows are kept.

/// The fewest insertions, deletions and substitutions of single characters (Unicode scalar values) that make one text the other.
///
/// Time grows with the product of the lengths, after what both begin and end with has been left out.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    distance(&a, &b)
}

/// One minus the edit distance over the length of the longer text: 1 for equal texts, 0 where no character could stay.
///
/// Two empty texts are equal.
pub fn edit_similarity(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    match a.len().max(b.len()) {
        0 => 1.0,
        longer => 1.0 - distance(&a, &b) as f64 / longer as f64,
    }
}

fn distance(a: &[char], b: &[char]) -> usize {
    let head = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[head..], &b[head..]);
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - tail], &b[..b.len() - tail]);
    // `row[j]`: the distance between what was read of `a` and the first `j` of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_hand() {
        // kitten → sitten → sittin → sitting.
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        // Saturday → Sturday → Surday → Sunday.
        assert_eq!(edit_distance("Saturday", "Sunday"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
        assert_eq!(edit_distance("ab", "ba"), 2);
        assert_eq!(edit_distance("größer", "grösser"), 2);
    }

    #[test]
    fn it_is_a_metric() {
        let texts = ["", "a", "ab", "ba", "aab", "abab", "bbbb", "the cat", "the bat sat"];
        for a in texts {
            for b in texts {
                let d = edit_distance(a, b);
                assert_eq!(d, edit_distance(b, a));
                assert_eq!(d == 0, a == b);
                for c in texts {
                    assert!(edit_distance(a, c) <= d + edit_distance(b, c), "{a:?} {b:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn similarities_by_hand() {
        assert_eq!(edit_similarity("kitten", "sitting"), 1.0 - 3.0 / 7.0);
        assert_eq!(edit_similarity("", ""), 1.0);
        assert_eq!(edit_similarity("abc", "xyz"), 0.0);
    }
}
