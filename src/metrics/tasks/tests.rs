//! Laws that hold for every task of the list, and the text of one problem each.

use super::*;

fn draw(task: &'static Task, split: Split, n: usize) -> Vec<Problem> {
    generate(task, split, n, 7).expect("the split has that many")
}

#[test]
fn names_are_sorted_words() {
    let names: Vec<_> = ALL.iter().map(|task| task.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    for task in ALL {
        assert!(task.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", task.name);
        assert_eq!(find(task.name).expect("it is listed").name, task.name);
    }
    assert!(find("juggling").expect_err("no such task").to_string().contains("addition, compare_numbers"));
}

#[test]
fn a_task_grades_its_own_solution_as_correct() {
    for task in ALL {
        for problem in draw(task, Split::Train, 300) {
            assert!((task.grade)(&problem.answer, &problem.solution), "{problem:?}");
            assert!((task.grade)(&problem.answer, &problem.answer), "{problem:?}");
            assert!((task.grade)(&problem.answer, &format!("  {} .\n", problem.solution)), "{problem:?}");
        }
    }
}

#[test]
fn a_task_grades_a_changed_answer_as_wrong() {
    for task in ALL {
        for problem in draw(task, Split::Train, 300) {
            let answer = &problem.answer;
            // Each symbol of the answer in turn becomes its successor.
            for position in 0..answer.len() {
                let mut bytes = answer.clone().into_bytes();
                bytes[position] = if bytes[position] == b'9' { b'0' } else { bytes[position] + 1 };
                let changed = String::from_utf8(bytes).expect("ASCII");
                assert!(!(task.grade)(answer, &format!("=> {}", spaced(changed.chars()))), "{problem:?} {changed}");
            }
            assert!(!(task.grade)(answer, &format!("{} =>", problem.solution)), "{problem:?}");
            assert!(!(task.grade)(answer, &format!("{} 1", problem.solution)), "{problem:?}");
            assert!(!(task.grade)(answer, ""), "{problem:?}");
        }
    }
}

#[test]
fn splits_share_no_problem_and_are_large() {
    for task in ALL {
        let identities =
            |problems: Vec<Problem>| -> HashSet<String> { problems.into_iter().map(|p| p.identity).collect() };
        let train = identities(draw(task, Split::Train, 3000));
        let test = identities(draw(task, Split::Test, 300));
        assert!(train.is_disjoint(&test), "{}", task.name);
    }
}

#[test]
fn a_draw_is_a_function_of_its_seed() {
    for task in ALL {
        let long = draw(task, Split::Test, 50);
        assert_eq!(draw(task, Split::Test, 50), long);
        assert_eq!(draw(task, Split::Test, 20), long[..20]);
        assert_eq!(generate_after(task, Split::Test, 20, 30, 7).expect("enough"), long[20..]);
        assert_ne!(generate(task, Split::Test, 50, 8).expect("enough"), long);
        let prompts: HashSet<_> = long.iter().map(|problem| &problem.prompt).collect();
        assert_eq!(prompts.len(), 50);
    }
}

#[test]
fn too_many_problems_are_refused_with_the_number_there_is() {
    let task = find("subtraction").expect("it is listed");
    // Minuend 10..=99, subtrahend 10..=minuend: 4095 problems in both splits.
    let count = |split| match generate(task, split, 10_000, 1) {
        Err(Error::TooFewProblems { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(count(Split::Train) + count(Split::Test), 4095);
}

#[test]
fn texts_are_short_and_every_symbol_stands_alone() {
    for task in ALL {
        for problem in draw(task, Split::Train, 200) {
            for text in [&problem.prompt, &problem.solution] {
                let words: Vec<&str> = text.split(' ').collect();
                assert!(words.len() <= 24, "{text}");
                assert!(words[0].len() > 2, "{text}");
                let alone =
                    |word: &str| word.len() == 1 || word == "=>" || word.chars().all(|c| c.is_ascii_lowercase());
                assert!(words.iter().all(|word| alone(word)), "{text}");
            }
        }
    }
}

#[test]
fn the_first_problems_never_change() {
    // Frozen: a change here is a change of every data set made so far, so raise VERSION with it.
    let shown: Vec<String> = ALL
        .iter()
        .map(|task| {
            let problem = &draw(task, Split::Train, 1)[0];
            format!("{} | {} | {}", problem.prompt, problem.solution, problem.answer)
        })
        .collect();
    let expected = [
        "add 7 3 + 2 5 | ones 3 + 5 = 0 8 , tens 7 + 2 + 0 = 0 9 => 0 9 8 | 98",
        "larger 3 7 3 or 3 7 4 | digits 3 = 3 , 7 = 7 , 3 < 4 => 3 7 4 | 374",
        "count b in a c d a c a | tally 0 0 0 0 0 0 => 0 | 0",
        "lookup c in c 8 a 0 f 2 b 7 | entry c 8 => 8 | 8",
        "reverse h f a d j | reversed => j d a f h | jdafh",
        "sort g h e d f | sorted => d e f g h | defgh",
        "subtract 9 1 - 7 6 | ones 1 - 6 = 5 borrow 1 , tens 9 - 7 - 1 = 1 => 1 5 | 15",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_final_answer_is_what_follows_the_last_arrow() {
    assert_eq!(final_answer("ones 7 + 8 => 1 5 => 0 8 5 \nmore"), "085");
    assert_eq!(final_answer(" 8 5."), "85");
    assert_eq!(final_answer("=>"), "");
    assert!(same_number("85", "it is => 0 8 5"));
    assert!(same_number("0", "=> 0 0"));
    assert!(!same_number("0", "=> "));
    assert!(!same_number("85", "=> 8 5 apples"));
    assert!(!same_symbols("", ""));
    let task = find("addition").expect("it is listed");
    assert_eq!(verify(task, "85", "=> 8 6"), Verdict { extracted: Some("86".into()), correct: false });
}
