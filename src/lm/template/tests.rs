//! Templates by law, and ten real ones against transformers' renderings where those files are at hand.

use std::io::Read;

use super::*;

fn messages() -> Vec<Message> {
    vec![Message::new("user", "What is 2+2?")]
}

#[test]
fn the_styles_render_as_their_models_write() {
    let render = |style: ChatStyle, generation| {
        let special = style.special_tokens();
        ChatTemplate::new(style.template(), special.bos.as_deref().unwrap_or(""), &special.eos)
            .unwrap()
            .render(&messages(), generation)
            .unwrap()
    };
    assert_eq!(render(ChatStyle::Chatml, true), "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(
        render(ChatStyle::Llama3, true),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is 2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(
        render(ChatStyle::Gemma, true),
        "<bos><start_of_turn>user\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n"
    );
    assert_eq!(render(ChatStyle::Gemma, false), "<bos><start_of_turn>user\nWhat is 2+2?<end_of_turn>\n");
}

fn rendered(source: &str) -> Result<String> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(&messages(), false)
}

#[test]
fn python_shows_through() {
    assert_eq!(rendered("{{ none }} {{ true }} {{ 'a b'.split(' ')[1] }}").unwrap(), "None True b");
    assert_eq!(
        rendered("{{ {'a': [1, 2.5, none], 'b': {'c': 'é\"<&'}, 'd': []} | tojson }}").unwrap(),
        r#"{"a": [1, 2.5, null], "b": {"c": "é\"<&"}, "d": []}"#
    );
    assert_eq!(rendered("{{ [1, {'a': 2}] | tojson(indent=2) }}").unwrap(), "[\n  1,\n  {\n    \"a\": 2\n  }\n]");
    assert_eq!(
        rendered("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}").unwrap(),
        "012"
    );
    let namespace = "{% set n = namespace(x=0) %}{% for m in [1, 2, 3] %}{% set n.x = n.x + m %}{% endfor %}{{ n.x }}";
    assert_eq!(rendered(namespace).unwrap(), "6");
}

#[test]
fn generation_tags_are_dropped_with_their_trimming() {
    assert_eq!(rendered("a {%- generation -%} b {% endgeneration %}c").unwrap(), "ab c");
}

#[test]
fn a_refusal_is_the_templates_own_words() {
    match rendered("{{ raise_exception('System role not supported') }}") {
        Err(Error::TemplateRefused { message }) => assert_eq!(message, "System role not supported"),
        other => panic!("{other:?}"),
    }
    match rendered("a\n{% if %}") {
        Err(Error::Template { problem }) => assert!(problem.contains("line 2"), "{problem}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_date_is_an_argument() {
    let source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y, %A') }}{% else %}none{% endif %}";
    let template = ChatTemplate::new(source, "", "").unwrap();
    assert_eq!(template.render(&messages(), false).unwrap(), "none");
    let date = |year, month, day| Date { year, month, day };
    let on = |day| template.clone().with_date(day).render(&messages(), false).unwrap();
    assert_eq!(on(date(2024, 7, 26)), "26 Jul 2024, Friday");
    assert_eq!(on(date(2000, 2, 29)), "29 Feb 2000, Tuesday");
    assert_eq!(on(date(2023, 1, 1)), "01 Jan 2023, Sunday");
}

#[test]
fn real_templates_render_as_transformers_does() {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/chat_templates"));
    let Ok(file) = std::fs::File::open(folder.join("golden_renderings.jsonl.gz")) else {
        println!("skipped: no chat templates at {}", folder.display());
        return;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut checked = 0;
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| row[name].as_str().unwrap_or("").to_string();
        let name = field("template");
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&source, &field("bos_token"), &field("eos_token")).unwrap();
        let tools = Some(&row["tools"]).filter(|tools| !tools.is_null());
        let generation = row["add_generation_prompt"].as_bool().unwrap();
        let place = format!("{name}, {}", field("case"));
        match template.render_json(&row["messages"], tools, generation) {
            Ok(text) => assert_eq!(Some(text.as_str()), row["expected"].as_str(), "{place}"),
            Err(Error::TemplateRefused { message }) => {
                assert_eq!(Some(message.as_str()), row["error"].as_str(), "{place}");
            }
            Err(error) => panic!("{place}: {error}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 90);
}

/// ASK-17: begin tokens twice, end tokens missing, prompts that are other tokens in training than in sampling.
#[test]
fn ask_17_a_turn_is_the_same_tokens_sampled_trained_and_continued() {
    use crate::tokenizer::{TokenizerKind, TrainTokenizer, train};

    for style in [ChatStyle::Chatml, ChatStyle::Llama3, ChatStyle::Gemma] {
        let params = TrainTokenizer {
            kind: TokenizerKind::ByteLevelBpe,
            vocab_size: 300,
            special: style.special_tokens(),
            min_frequency: 1,
            chat_template: Some(style.template().to_string()),
        };
        let dir = tempfile::tempdir().unwrap();
        train(&params, &["what is two and two", "two and two is four"]).unwrap().save(dir.path()).unwrap();
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let template = ChatTemplate::load(dir.path(), &tokenizer).unwrap().expect("it was saved with one");
        let begin = tokenizer.bos().map(|token| token.id);
        let begins = |ids: &[u32]| ids.iter().filter(|id| Some(**id) == begin).count();
        let mut turns = vec![Message::new("user", "What is two and two?")];
        let mut before: Vec<u32> = Vec::new();
        for answer in ["four", "two and two is four.\n\nFour!", " "] {
            let sampled = template.encode_prompt(&tokenizer, &turns).unwrap();
            let (prompt, completion) = template.encode_chat(&tokenizer, &turns, answer).unwrap();
            assert_eq!(prompt, sampled, "{style:?}: what is trained on is what is sampled from");
            assert!(prompt.starts_with(&before), "{style:?}: the next prompt goes on where the answer ended");
            assert_eq!(begins(&prompt), usize::from(begin.is_some()), "{style:?}");
            assert_eq!(begins(&completion), 0, "{style:?}");
            let (end, said) = completion.split_last().expect("an end at least");
            assert!(tokenizer.stop_ids().contains(end), "{style:?}: the end is learned");
            assert!(!said.iter().any(|id| tokenizer.stop_ids().contains(id)), "{style:?}");
            assert_eq!(tokenizer.decode(said, true).unwrap(), answer, "{style:?}");
            before = [prompt, completion].concat();
            turns.extend([Message::new("assistant", answer), Message::new("user", "Really?")]);
        }
    }
}
