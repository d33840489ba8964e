//! The pipelines that come with fuseline: each is right, and can be planned.

use crate::harness::Home;

/// Plans every pipeline from the repository's root, as its users do.
#[test]
fn every_pipeline_is_right_and_can_be_planned() {
    let root = crate::root();
    let store = Home::new();
    let run = |verb: &str, file: &str| store.at_root(&[verb, file]);
    let pipelines = crate::files(&root.join("pipelines"), ".yaml");
    assert!(!pipelines.is_empty());
    for path in pipelines {
        let file = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        let checked = run("check", &file);
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        let planned = run("plan", &file);
        match planned.code {
            Some(5) => {}
            // Data that does not come with fuseline: the message says what to set.
            Some(2) => {
                let said = &planned.stderr;
                assert!(said.contains("does not exist") && said.contains("--set"), "{said}");
            }
            code => panic!("{file}: {code:?}\n{}", planned.stderr),
        }
    }
}
