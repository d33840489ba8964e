//! The Hub's files against a server that cuts downloads and lies on purpose.

use super::*;

#[path = "../../../tests/hub/server.rs"]
mod server;

use server::Hub as Fake;

struct Bench {
    fake: Fake,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { fake: Fake::start(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn hub(&self, offline: bool, token: Option<&str>) -> Hub {
        let token = token.map(str::to_owned);
        Hub::open(Place { endpoint: self.fake.url(), cache: self.folder.path().to_owned(), token, offline })
            .expect("a hub")
    }

    fn all(&self, name: &str) -> Result<(Commit, PathBuf), Error> {
        let (hub, name) = (self.hub(false, None), Name::parse(name).expect("a name"));
        let commit = hub.resolve(&name)?;
        let folder = hub.fetch(&name, &commit.id, &commit.files, &mut |_, _| ControlFlow::Continue(()))?;
        Ok((commit, folder))
    }
}

fn large(seed: u8) -> Vec<u8> {
    (0..500_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

#[test]
fn names_are_read_and_what_is_none_is_refused() {
    let name = Name::parse("hf://org/name").expect("a name");
    let plain = Name { kind: Kind::Model, repository: "org/name".into(), revision: "main".into(), path: String::new() };
    assert_eq!(name, plain);
    let name = Name::parse("hf://datasets/org/na.me@v1/data/train.parquet").expect("a name");
    assert_eq!((name.kind, name.revision.as_str(), name.path.as_str()), (Kind::Dataset, "v1", "data/train.parquet"));
    assert_eq!(name.at("abc"), "hf://datasets/org/na.me@abc/data/train.parquet");
    assert_eq!(Name::parse("hf://o/n@refs%2Fpr%2F1").expect("a name").revision, "refs/pr/1");
    assert!(Name::parse(&format!("hf://o/n@{}", "a".repeat(40))).expect("a name").is_pinned());
    for wrong in
        ["o/n", "hf://name", "hf://o/", "hf://o/n@", "hf://o/n@a b", "hf://o/n/../x", "hf://../n", "hf://o/n//x"]
    {
        let error = Name::parse(wrong).expect_err(wrong).to_string();
        assert!(error.contains("hint: write hf://ORG/NAME@REVISION"), "{error}");
    }
}

#[test]
fn the_environment_says_where_as_whom_and_whether() {
    let find = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Place::find(&|name| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    };
    let plain = find(&[("HOME", "/h")]);
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!((plain.cache, plain.token, plain.offline), ("/h/.cache/huggingface/hub".into(), None, false));
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().to_str().expect("a text");
    fs::write(folder.path().join("token"), "hf_file\n").expect("written");
    let set = find(&[("HF_HOME", home), ("HF_ENDPOINT", "http://x/"), ("HF_HUB_OFFLINE", "yes")]);
    assert_eq!((set.endpoint.as_str(), set.token.as_deref(), set.offline), ("http://x", Some("hf_file"), true));
    assert_eq!(set.cache, folder.path().join("hub"));
    let more = find(&[("HF_HOME", home), ("HF_HUB_CACHE", "/c"), ("HF_TOKEN", "hf_env"), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!((more.cache, more.token.as_deref(), more.offline), ("/c".into(), Some("hf_env"), false));
}

#[test]
fn files_come_once_in_the_layout_of_the_hubs_own_cache() {
    let bench = Bench::new();
    let big = large(1);
    // Two files of one content are one blob.
    let files: [(&str, &[u8]); 4] =
        [("config.json", b"{}"), ("a/model.bin", &big), ("b/model.bin", &big), ("empty", b"")];
    let pushed = bench.fake.push("models/org/name", "main", &files);
    let (commit, folder) = bench.all("hf://org/name").expect("fetched");
    assert_eq!(commit.id, pushed);
    assert_eq!(folder, bench.folder.path().join("models--org--name/snapshots").join(&pushed));
    for (path, content) in files {
        assert_eq!(fs::read(folder.join(path)).expect("there"), content, "{path}");
    }
    let blob = fs::read_link(folder.join("a/model.bin")).expect("a link");
    assert_eq!(blob, Path::new("../../../blobs").join(server::hash(&big)));
    let reference = bench.folder.path().join("models--org--name/refs/main");
    assert_eq!(fs::read_to_string(reference).expect("written"), pushed);
    // Both are asked for at once; the second sees that the first is on its way.
    let sent = bench.fake.bytes();
    assert!(sent <= 2 * big.len() + 2, "{sent}");
    bench.all("hf://org/name").expect("there");
    assert_eq!(bench.fake.bytes(), sent, "what is there is not fetched");
    // Another commit shares what did not change.
    let next = bench.fake.push("models/org/name", "main", &[("config.json", b"{ }"), ("a/model.bin", &big)]);
    assert_ne!(next, pushed);
    assert_eq!(bench.all("hf://org/name").expect("fetched").0.id, next);
    // What a file is, is known when its first bytes come.
    assert!(bench.fake.bytes() <= sent + big.len() + 3, "{}", bench.fake.bytes());
    assert_eq!(bench.all(&format!("hf://org/name@{pushed}")).expect("an older commit").0.id, pushed);
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_ended() {
    let bench = Bench::new();
    let big = large(2);
    bench.fake.push("models/org/name", "main", &[("model.bin", &big)]);
    bench.fake.held(|held| held.cuts = 3);
    let (_, folder) = bench.all("hf://org/name").expect("fetched");
    assert_eq!(fs::read(folder.join("model.bin")).expect("there"), big);
    assert_eq!(bench.fake.bytes(), big.len(), "no byte came twice");
    let from: Vec<u64> = bench
        .fake
        .held(|held| held.asked.iter().filter(|(path, _)| path.starts_with("cdn/")).map(|(_, from)| *from).collect());
    let half = big.len() as u64 / 2;
    assert_eq!(from, [0, half, half + half / 2, half + half / 2 + half / 4]);
}

#[test]
fn a_download_that_was_stopped_goes_on_in_another_process() {
    let bench = Bench::new();
    let big = large(3);
    bench.fake.push("datasets/org/name", "main", &[("model.bin", &big)]);
    let (hub, name) = (bench.hub(false, None), Name::parse("hf://datasets/org/name").expect("a name"));
    let commit = hub.resolve(&name).expect("resolved");
    let mut stop = |done, total| {
        assert_eq!(total, big.len() as u64);
        if done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(hub.fetch(&name, &commit.id, &commit.files, &mut stop), Err(Error::Stopped)));
    drop(hub);
    let (_, folder) = bench.all("hf://datasets/org/name").expect("fetched");
    assert_eq!(fs::read(folder.join("model.bin")).expect("there"), big);
    let first = bench.fake.held(|held| held.asked.last().expect("asked").1);
    assert!(first > 0, "it went on from where it was");
}

#[test]
fn what_is_not_what_was_announced_is_fetched_again() {
    let bench = Bench::new();
    let big = large(4);
    bench.fake.push("models/org/name", "main", &[("model.bin", &big)]);
    bench.fake.held(|held| held.lies = 1);
    let (_, folder) = bench.all("hf://org/name").expect("fetched");
    assert_eq!(fs::read(folder.join("model.bin")).expect("there"), big);
    assert_eq!(bench.fake.bytes(), 2 * big.len());
}

#[test]
fn offline_nothing_is_asked() {
    let bench = Bench::new();
    let pushed = bench.fake.push("models/org/name", "main", &[("config.json", b"{}"), ("weights", b"w")]);
    let (hub, name) = (bench.hub(true, None), Name::parse("hf://org/name").expect("a name"));
    let error = hub.resolve(&name).expect_err("nothing is there").to_string();
    assert!(error.starts_with("hf://org/name@main is not in ") && error.contains("unset HF_HUB_OFFLINE"), "{error}");
    bench.all("hf://org/name").expect("fetched");
    let asked = bench.fake.held(|held| held.asked.len());
    let commit = hub.resolve(&name).expect("known");
    assert_eq!((commit.id.as_str(), commit.files.len()), (pushed.as_str(), 2));
    hub.fetch(&name, &commit.id, &commit.files, &mut |_, _| ControlFlow::Continue(())).expect("there");
    let other = [("other".to_owned(), None)];
    let error = hub.fetch(&name, &commit.id, &other, &mut |_, _| ControlFlow::Continue(())).expect_err("not there");
    assert!(error.to_string().starts_with("hf://org/name@main/other is not in "), "{error}");
    let pinned = Name::parse(&format!("hf://org/name@{pushed}")).expect("a name");
    assert_eq!(hub.resolve(&pinned).expect("known").id, pushed);
    assert_eq!(bench.fake.held(|held| held.asked.len()), asked);
}

#[test]
fn what_is_private_needs_the_token_and_nobody_else_sees_it() {
    let bench = Bench::new();
    let big = large(5);
    bench.fake.push("models/org/private", "main", &[("model.bin", &big)]);
    bench.fake.held(|held| held.token = Some("hf_right".to_owned()));
    let name = Name::parse("hf://org/private").expect("a name");
    for token in [None, Some("hf_wrong")] {
        let error = bench.hub(false, token).resolve(&name).expect_err("refused").to_string();
        assert!(error.contains("status 401") && error.contains("set HF_TOKEN"), "{error}");
    }
    let hub = bench.hub(false, Some("hf_right"));
    let commit = hub.resolve(&name).expect("resolved");
    // The large file lives at another host, which refuses whoever shows a token.
    hub.fetch(&name, &commit.id, &commit.files, &mut |_, _| ControlFlow::Continue(())).expect("fetched");
}

#[test]
fn what_is_not_there_is_told_by_its_name() {
    let bench = Bench::new();
    let error = bench.all("hf://org/nothing").expect_err("no such model");
    assert_eq!(error.audience(), crate::Audience::Input);
    assert!(error.to_string().starts_with("hf://org/nothing@main is not on the Hub"), "{error}");
}
