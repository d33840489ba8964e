//! Trained tokenizers by law (round trips, equal bytes), and real ones where their files are at hand.

use std::io::Read;
use std::path::PathBuf;

use super::*;
use crate::template::{ChatStyle, ChatTemplate, Message};

const KINDS: [(TokenizerKind, ChatStyle); 3] = [
    (TokenizerKind::Bpe, ChatStyle::Llama3),
    (TokenizerKind::ByteLevelBpe, ChatStyle::Chatml),
    (TokenizerKind::Unigram, ChatStyle::Gemma),
];

fn texts() -> Vec<String> {
    let words = ["sort", "the", "letters", "of", "banana", "reverse", "word", "12 + 34 = 46", "naïve", "Größe"];
    (0..300)
        .map(|i| {
            let pick = |k: usize| words[(i * 7 + k * 3 + i * k) % words.len()];
            format!("{} {}  {}:\n\t{} {}.", pick(0), pick(1), pick(2), pick(3), i)
        })
        .collect()
}

fn params(kind: TokenizerKind, style: ChatStyle, vocab_size: usize) -> TrainTokenizer {
    TrainTokenizer {
        kind,
        vocab_size,
        special: style.special_tokens(),
        min_frequency: 2,
        chat_template: Some(style.template().to_string()),
    }
}

/// A fresh folder of this test's.
fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("fuseline-tokenizer-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn trained(kind: TokenizerKind, style: ChatStyle, name: &str) -> Tokenizer {
    let dir = folder(name);
    train(&params(kind, style, 400), &texts()).unwrap().save(&dir).unwrap();
    let tokenizer = Tokenizer::load(&dir).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    tokenizer
}

#[test]
fn texts_come_back() {
    for (kind, style) in KINDS {
        let tokenizer = trained(kind, style, &format!("round-{kind:?}"));
        let mut samples = texts();
        samples.extend(
            ["", " ", "\n\n a\n", "  two  spaces ", "<0x41> x", "unseen: 写 🦀 ẞ\u{7}\0", "a\r\nb"].map(String::from),
        );
        for text in samples {
            let ids = tokenizer.encode(&text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{kind:?}");
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        }
    }
}

#[test]
fn training_learns_and_repeats_itself() {
    for (kind, style) in KINDS {
        let params = params(kind, style, 400);
        let first = train(&params, &texts()).unwrap();
        assert!(first.vocab_size <= 400 && first.vocab_size > 300, "{kind:?}: {}", first.vocab_size);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| train(&params, &texts())).unwrap() == first, "{kind:?}, {threads} threads");
        }
        let mut turned = texts();
        turned.reverse();
        assert!(train(&params, &turned).unwrap() == first, "{kind:?}, texts in another order");
    }
}

#[test]
fn roles_are_read_from_the_tokenizer_then_from_the_model() {
    let dir = folder("roles");
    train(&params(TokenizerKind::Unigram, ChatStyle::Gemma, 400), &texts()).unwrap().save(&dir).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let read = || Tokenizer::load(&dir).unwrap();
    // `<eos>` by the tokenizer, `<end_of_turn>` because it is a special token of that name.
    assert_eq!(read().stop_ids(), [1, 5]);
    write("generation_config.json", r#"{"eos_token_id": [1, 9], "bos_token_id": 3}"#);
    assert_eq!((read().stop_ids(), read().bos().unwrap().id), ([1, 5, 9].as_slice(), 2));
    write("tokenizer_config.json", r#"{"eos_token": {"content": "<eos>"}, "pad_token": null}"#);
    write("special_tokens_map.json", "{}");
    assert_eq!((read().eos().unwrap().id, read().pad(), read().bos().unwrap().id), (1, None, 3));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn words_are_few_tokens() {
    for (kind, style) in KINDS {
        let tokenizer = trained(kind, style, &format!("short-{kind:?}"));
        let ids = tokenizer.encode("sort the letters of banana", false).unwrap();
        assert!(ids.len() <= 7, "{kind:?}: {ids:?}");
    }
}

#[test]
fn special_tokens_have_their_roles() {
    for (kind, style) in KINDS {
        let tokenizer = trained(kind, style, &format!("special-{kind:?}"));
        let special = style.special_tokens();
        for (id, token) in special.all().iter().enumerate() {
            assert_eq!(tokenizer.encode(token, false).unwrap(), [id as u32], "{token}");
        }
        assert_eq!(tokenizer.eos().unwrap().content, special.eos);
        assert_eq!(tokenizer.bos().map(|token| token.content.clone()), special.bos);
        assert_eq!(tokenizer.pad().unwrap().id, 0);
        let plain = tokenizer.encode("word", false).unwrap();
        let marked = tokenizer.encode("word", true).unwrap();
        assert_eq!(marked.len(), plain.len() + usize::from(special.bos.is_some()));
        assert_eq!(tokenizer.decode(&marked, true).unwrap(), "word");
    }
}

#[test]
fn chats_split_into_prompt_and_response() {
    for (kind, style) in KINDS {
        let dir = folder(&format!("chat-{kind:?}"));
        train(&params(kind, style, 400), &texts()).unwrap().save(&dir).unwrap();
        let tokenizer = Tokenizer::load(&dir).unwrap();
        let template = ChatTemplate::load(&dir, &tokenizer).unwrap().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let messages = [Message::new("user", "sort the letters")];
        for completion in ["eelrstt", "\n\n two\nlines ", ""] {
            let (prompt, response) = template.encode_chat(&tokenizer, &messages, completion).unwrap();
            assert_eq!(prompt, template.encode_prompt(&tokenizer, &messages).unwrap());
            assert_eq!(tokenizer.decode(&response, true).unwrap(), completion, "{kind:?}");
            let end = template.end_of_turn(&tokenizer).unwrap();
            assert_eq!(response.iter().position(|id| *id == end), Some(response.len() - 1));
            let mut whole = messages.to_vec();
            whole.push(Message::new("assistant", completion));
            let both: Vec<u32> = prompt.iter().chain(&response).copied().collect();
            let full = template.render(&whole, false).unwrap();
            assert!(full.starts_with(&tokenizer.decode(&both, false).unwrap()), "{kind:?}");
        }
    }
}

#[test]
fn errors_name_the_file() {
    let dir = folder("broken");
    let error = Tokenizer::load(&dir).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    std::fs::write(dir.join("tokenizer.json"), "{\"version\": ").unwrap();
    let error = Tokenizer::load(&dir).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
    let tokenizer = trained(TokenizerKind::Bpe, ChatStyle::Llama3, "rows");
    tokenizer.check_model(400).unwrap();
    assert!(tokenizer.check_model(300).is_err());
    assert!(train(&params(TokenizerKind::Bpe, ChatStyle::Llama3, 100), &texts()).is_err());
    assert!(train::<String>(&params(TokenizerKind::Unigram, ChatStyle::Gemma, 400), &[]).is_err());
}

#[test]
fn real_tokenizers_give_the_known_ids() {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/tokenizers"));
    let unzip = |name: &str| {
        let mut text = String::new();
        let file = std::fs::File::open(data.join(name)).ok()?;
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let Some(golden) = unzip("golden_encodings.jsonl.gz") else {
        println!("skipped: no tokenizers at {}", data.display());
        return;
    };
    let rows: Vec<Value> = golden.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["qwen2", "llama2", "mistral_v3", "t5_small"] {
        let dir = folder(name);
        std::fs::write(dir.join("tokenizer.json"), unzip(&format!("{name}.tokenizer.json.gz")).unwrap()).unwrap();
        let tokenizer = Tokenizer::load(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        for row in &rows {
            let expected: Vec<u32> = serde_json::from_value(row["ids"][name].clone()).unwrap();
            let text = row["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{name}: {text:?}");
        }
    }
}
