//! Results that leave their store: shared through a folder or a bucket, and exported as files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bucket::{Bucket, Trouble};
use crate::harness::{Done, Home, fused};

const PIPELINE: &str = "\
name: shared
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 40}}}
  counted: {op: sql, with: {sql: \"SELECT domain, count(*) AS n FROM lessons GROUP BY domain ORDER BY domain\"}}
tables:
  main: {sql: SELECT * FROM counted}
";

fn url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// The objects in a folder, with their sizes.
fn objects(folder: &Path) -> Vec<PathBuf> {
    crate::files(folder, "")
}

#[test]
fn ask_4_two_stores_share_results_across_pipelines() {
    let (maker, reader) = (Home::new(), Home::new());
    let shared = tempfile::tempdir().expect("a folder");
    let url = url(shared.path());
    maker.write("p.yaml", PIPELINE);
    maker.ok(&["run", "p.yaml"]);
    let said = maker.ok(&["push", "p.yaml", &url]);
    assert!(said.starts_with("3 stages, 3 of them new; sent 8 files"), "{said}");
    assert!(maker.ok(&["push", "p.yaml", &url]).starts_with("3 stages, 0 of them new; sent 0 files, 0 B"));
    assert!(objects(shared.path()).iter().all(|path| path.starts_with(shared.path().join("v1"))));

    // Another pipeline, other names: the same work.
    reader.write("q.yaml", PIPELINE.replace("lessons", "words").replace("name: shared", "name: other"));
    let plan = reader.fuseline(&["plan", "q.yaml", "--remote", &url, "--json"]);
    assert_eq!(plan.code, Some(5), "another query text is another key: {}", plan.stdout);
    let plan: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert_eq!(plan["stages"][0]["state"], "hit (remote)", "{plan}");
    reader.write("p.yaml", PIPELINE);
    assert!(reader.ok(&["plan", "p.yaml", "--remote", &url]).contains("3 cached, 0 to run"));
    assert!(!reader.path("store").exists(), "a plan writes nothing");
    let run = reader.fuseline(&["run", "p.yaml", "--remote", &url]);
    assert_eq!((run.code, run.stdout), (Some(0), maker.ok(&["table", "p.yaml"])), "{}", run.stderr);
    assert!(run.stderr.contains("0 ran, 3 cached"), "{}", run.stderr);
    // Only the table's cells came.
    let ls: Value = serde_json::from_str(&reader.ok(&["ls", "p.yaml", "--remote", &url, "--json"])).expect("JSON");
    let states: Vec<&str> = ls.as_array().expect("a list").iter().filter_map(|row| row["state"].as_str()).collect();
    assert_eq!(states, ["remote", "remote", "cached"]);

    // SQL reads through; pull brings the rest.
    let asked = "SELECT n FROM counted";
    assert_eq!(reader.ok(&["sql", "p.yaml", asked, "--format", "csv", "--remote", &url]), "n\r\n40\r\n");
    assert!(reader.ok(&["pull", "p.yaml", &url]).starts_with("2 stages fetched"));
    assert!(reader.ok(&["plan", "p.yaml"]).contains("3 cached, 0 to run"));
    assert!(reader.ok(&["pull", "p.yaml", &url]).contains("0 stages fetched, 0 B; 3 were here"));

    // What the keys were made of came along: a change is explained where nothing was ever made.
    let keys = |home: &Home| -> Vec<PathBuf> {
        let named = |path: PathBuf| PathBuf::from(path.file_name().expect("a name"));
        objects(&home.path("store/keys")).into_iter().map(named).collect()
    };
    assert_eq!(keys(&reader), keys(&maker));
    reader.write("p.yaml", PIPELINE.replace("reverse_word: 40", "reverse_word: 41"));
    let why = reader.ok(&["why", "p.yaml", "lessons"]);
    assert!(why.contains("40") && why.contains("41"), "{why}");
}

#[test]
fn a_selection_goes_with_what_it_needs() {
    let home = Home::new();
    let shared = tempfile::tempdir().expect("a folder");
    home.write("p.yaml", PIPELINE);
    home.ok(&["run", "p.yaml", "--target", "lessons"]);
    let push = home.fuseline(&["push", "p.yaml", &url(shared.path()), "--target", "counted"]);
    assert!(push.stdout.starts_with("1 stages, 1 of them new"), "{}", push.stdout);
    assert!(push.stderr.contains("1 stages have no result yet and were left out: counted"), "{}", push.stderr);
    let other = Home::new();
    other.write("p.yaml", PIPELINE);
    let pull = other.fuseline(&["pull", "p.yaml", &url(shared.path()), "--target", "lessons"]);
    assert_eq!(pull.code, Some(0), "{}", pull.stderr);
    assert_eq!(other.ran("p.yaml", &[]), ["counted", "tables.main"]);
}

#[test]
fn a_remote_that_is_broken_is_said_once_and_never_fails_a_run() {
    let home = Home::new();
    let shared = tempfile::tempdir().expect("a folder");
    home.write("p.yaml", PIPELINE);
    home.ok(&["run", "p.yaml"]);
    home.ok(&["push", "p.yaml", &url(shared.path())]);
    // Every blob there is damaged: none may be used.
    for path in objects(shared.path()).iter().filter(|path| path.to_string_lossy().contains("/cas/")) {
        let mut bytes = std::fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).expect("written");
    }
    let table = home.ok(&["table", "p.yaml"]);
    let other = Home::new();
    other.write("p.yaml", PIPELINE);
    let run = other.fuseline(&["run", "p.yaml", "--remote", &url(shared.path())]);
    assert_eq!((run.code, run.stdout), (Some(0), table.clone()), "{}", run.stderr);
    assert!(run.stderr.contains("3 ran, 0 cached"), "{}", run.stderr);
    // Nobody listens at port 9 of this machine.
    let away = Home::new();
    away.write("p.yaml", PIPELINE);
    let mut command = away.command(&["run", "p.yaml", "--remote", "s3://bucket/x"]);
    for (name, value) in AWS {
        command.env(name, value);
    }
    let run = Done::of(command.env("AWS_ENDPOINT", "http://127.0.0.1:9").output().expect("it starts"));
    assert_eq!((run.code, run.stdout), (Some(0), table), "{}", run.stderr);
    let warnings: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("warning: remote")).collect();
    assert_eq!(warnings.len(), 1, "{}", run.stderr);
    assert!(warnings[0].contains("s3://bucket/x") && warnings[0].ends_with("going on without it"), "{warnings:?}");
    // What was asked for in words does fail.
    let empty = Home::new();
    empty.write("p.yaml", PIPELINE);
    let mut command = empty.command(&["pull", "p.yaml", "s3://bucket/x"]);
    for (name, value) in AWS {
        command.env(name, value);
    }
    let pull = Done::of(command.env("AWS_ENDPOINT", "http://127.0.0.1:9").output().expect("it starts"));
    assert_eq!(pull.code, Some(3), "{}", pull.stderr);
    let wrong = away.fuseline(&["push", "p.yaml", "bucket/x"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("help: write s3://BUCKET/PREFIX"), "{}", wrong.stderr);
}

const AWS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "testing"),
    ("AWS_SECRET_ACCESS_KEY", "testing"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ALLOW_HTTP", "true"),
];

/// Pushes from one store and runs from another through a service; `set` gives its address.
fn through(service: &str, url: &str, variables: &[(&str, String)]) {
    let (maker, reader) = (Home::new(), Home::new());
    for home in [&maker, &reader] {
        home.write("p.yaml", PIPELINE);
    }
    maker.ok(&["run", "p.yaml"]);
    let run = |home: &Home, arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
        let done = Done::of(command.output().expect("the program starts"));
        assert_eq!(done.code, Some(0), "{service}: {}", done.stderr);
        done
    };
    assert!(run(&maker, &["push", "p.yaml", url]).stdout.starts_with("3 stages, 3 of them new"), "{service}");
    assert!(run(&maker, &["push", "p.yaml", url]).stdout.starts_with("3 stages, 0 of them new; sent 0"), "{service}");
    let second = run(&reader, &["run", "p.yaml", "--remote", url]);
    assert!(second.stderr.contains("0 ran, 3 cached"), "{service}: {}", second.stderr);
    assert!(run(&reader, &["pull", "p.yaml", url]).stdout.starts_with("2 stages fetched"), "{service}");
}

/// A server from `make peers` on a port of its own; it ends with this value.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server and waits until it takes connections; none if it is not installed.
fn serve(program: &str, arguments: &[String], port: u16) -> Option<Server> {
    let path = crate::root().join(".peers").join(program);
    if !path.exists() {
        println!("skipped: {} is not there; `make peers` fetches it", path.display());
        return None;
    }
    let mut child = Command::new(path)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is a program");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert_eq!(child.try_wait().expect("it is ours"), None, "{program} ended at once");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Some(Server(child))
}

/// A port that nobody uses now.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Sends a request without a body.
fn ask(port: u16, head: &str) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    write!(stream, "{head}\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
}

#[test]
fn a_bucket_of_s3_is_shared() {
    let port = port();
    let Some(_server) = serve("venv/bin/moto_server", &["-p".into(), port.to_string()], port) else { return };
    ask(port, "PUT /bucket HTTP/1.1");
    through("S3", "s3://bucket/team", &as_s3(port));
}

#[test]
fn a_container_of_azure_is_shared() {
    let python = crate::root().join(".peers/venv/bin/python");
    if !python.exists() {
        println!("skipped: {} is not there; `make peers` fetches it", python.display());
        return;
    }
    let port = port();
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["--silent", "--skipApiVersionCheck", "--blobPort"];
    let mut arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    arguments.extend([port.to_string(), "--location".to_owned(), folder.path().display().to_string()]);
    let Some(_server) = serve("node_modules/.bin/azurite-blob", &arguments, port) else { return };
    // The emulator's own account, which its manual prints.
    let account = "devstoreaccount1";
    let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let make = format!(
        "from azure.storage.blob import ContainerClient as C\n\
         C.from_connection_string('DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};\
         BlobEndpoint=http://127.0.0.1:{port}/{account}', 'shared').create_container()"
    );
    let made = Command::new(python).args(["-c", &make]).output().expect("it starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let variables = [
        ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
        ("AZURITE_BLOB_STORAGE_URL", format!("http://127.0.0.1:{port}")),
        ("AZURE_ALLOW_HTTP", "true".to_owned()),
    ];
    through("Azure", "az://shared/team", &variables);
}

/// What a client needs to take a port of this machine for S3.
fn as_s3(port: u16) -> Vec<(&'static str, String)> {
    let mut variables: Vec<(&str, String)> = AWS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    variables.push(("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")));
    variables
}

#[test]
fn a_bucket_of_google_is_shared() {
    let bucket = Bucket::new();
    // The account of a server that asks for none.
    let account = serde_json::json!({
        "gcs_base_url": format!("http://127.0.0.1:{}", bucket.port),
        "disable_oauth": true,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    });
    through("GCS", "gs://bucket/team", &[("GOOGLE_SERVICE_ACCOUNT_KEY", account.to_string())]);
    assert_eq!(bucket.count("team/v1/ac/"), 3, "each record once");
}

#[test]
fn a_bucket_that_fails_in_any_way_never_fails_a_run_and_never_gives_another_result() {
    let maker = Home::new();
    // Enough rows that their blob is not among what is asked for first.
    let pipeline = PIPELINE.replace("reverse_word: 40", "reverse_word: 400");
    maker.write("p.yaml", &pipeline);
    maker.ok(&["run", "p.yaml"]);
    let table = maker.ok(&["table", "p.yaml"]);
    let bucket = Bucket::new();
    let with = |home: &Home, arguments: &[&str]| {
        let mut command = home.command(arguments);
        Done::of(command.envs(as_s3(bucket.port)).output().expect("the program starts"))
    };
    let url = "s3://bucket/team";
    // What cannot be written is said; nothing is left that names what is not there.
    bucket.set(Trouble::ReadOnly);
    let refused = with(&maker, &["push", "p.yaml", url]);
    assert_eq!((refused.code, bucket.count("")), (Some(3), 0), "{}", refused.stderr);
    bucket.set(Trouble::None);
    assert_eq!(with(&maker, &["push", "p.yaml", url]).code, Some(0));

    // Another query: its input must come from elsewhere, or be made.
    let changed = pipeline.replace("count(*) AS n", "count(*) + 1 AS n");
    for trouble in [
        Trouble::None,
        Trouble::Fails,
        Trouble::BreaksOff,
        Trouble::Truncates,
        Trouble::Corrupts,
        Trouble::Loses,
        Trouble::Babbles,
    ] {
        bucket.set(trouble);
        let home = Home::new();
        home.write("p.yaml", &changed);
        let before = bucket.requests();
        let run = with(&home, &["run", "p.yaml", "--remote", url]);
        assert_eq!((run.code, run.stdout), (Some(0), table.replace("400", "401")), "{trouble:?}: {}", run.stderr);
        assert!(bucket.requests() > before, "{trouble:?}: it was asked");
        let warnings = run.stderr.lines().filter(|line| line.starts_with("warning: remote")).count();
        assert_eq!(warnings, usize::from(trouble != Trouble::None), "{trouble:?}: {}", run.stderr);
        let ran = if trouble == Trouble::None { "2 ran, 1 cached" } else { "3 ran, 0 cached" };
        assert!(run.stderr.contains(ran), "{trouble:?}: {}", run.stderr);
        assert!(home.ok(&["fsck"]).contains("the store is whole"), "{trouble:?}");
        // What was asked for in words is not had, and that is said.
        let puller = Home::new();
        puller.write("p.yaml", &pipeline);
        let pull = with(&puller, &["pull", "p.yaml", url]);
        let expected = if trouble == Trouble::None { 0 } else { 3 };
        assert_eq!(pull.code, Some(expected), "{trouble:?}: {}{}", pull.stdout, pull.stderr);
    }
}

/// Everything below a folder, with the paths inside it.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(folder).expect("below it").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("a file"))
    };
    crate::files(folder, "").iter().map(read).collect()
}

#[test]
fn an_export_is_ordinary_files_with_their_lineage() {
    let home = fused();
    home.ok(&["export", "fusion.yaml", "wrpo", "exported"]);
    let folder = home.path("exported");
    let store = home.path("store");
    let lineage = std::fs::read_to_string(folder.join("lineage.json")).expect("written");
    let events: Vec<Value> = serde_json::from_str(&lineage).expect("a list of events");
    let names: Vec<&str> = events.iter().filter_map(|event| event["job"]["name"].as_str()).collect();
    for stage in ["lessons", "vocabulary", "blank", "target", "sampled[source=owl]", "triples", "wrpo"] {
        assert!(names.contains(&stage), "{stage} is missing in {names:?}");
    }
    assert_eq!(names.last(), Some(&"wrpo"), "inputs come first");
    for stage in ["dpo", "ties", "answers[model=ties]"] {
        assert!(!names.contains(&stage), "{stage} is not upstream");
    }
    // Every event stands on its own: who made what, from what, with which parameters.
    let wrpo = events.last().expect("events");
    assert_eq!(wrpo["eventType"], "COMPLETE");
    let preimage = &wrpo["run"]["facets"]["fuseline_key"]["preimage"];
    assert_eq!((&preimage["params"]["beta"], &preimage["operator"]["name"]), (&0.1.into(), &"wrpo".into()));
    assert_eq!(wrpo["run"]["facets"]["fuseline_run"]["seed"], 7);
    let made: Vec<&Value> = events.iter().flat_map(|event| event["outputs"].as_array().expect("a list")).collect();
    for event in &events {
        for input in event["inputs"].as_array().expect("a list").iter().filter(|input| input["namespace"] != "file") {
            assert!(made.iter().any(|output| output["name"] == input["name"]), "{input} is made by nobody");
        }
    }
    // The digests are those of the files.
    let outputs = wrpo["outputs"].as_array().expect("outputs");
    assert_eq!(outputs.len(), 2, "the model and its curve");
    let mut n_files = 0;
    for output in outputs {
        let facet = &output["facets"]["fuseline_artifact"];
        for file in facet["files"].as_array().expect("files") {
            let name =
                folder.join(facet["output"].as_str().expect("a name")).join(file["name"].as_str().expect("a name"));
            let digest = file["digest"].as_str().expect("a digest");
            let blob = std::fs::read(store.join("cas").join(&digest[..2]).join(digest)).expect("in the store");
            assert!(std::fs::read(&name).expect("exported") == blob, "{}", name.display());
            assert!(!std::fs::metadata(&name).expect("exported").permissions().readonly(), "{}", name.display());
            n_files += 1;
        }
    }
    assert_eq!(content(&folder).len(), n_files + 1);
    // A file is its owner's: writing to it leaves the store as it was.
    std::fs::write(folder.join("model/config.json"), "{}").expect("writable");
    assert!(home.ok(&["sql", "fusion.yaml", "SELECT count(*) FROM wrpo.trace"]).contains("count"));
    let config = home.path(home.ok(&["path", "fusion.yaml", "wrpo"]).trim()).join("config.json");
    assert_ne!(std::fs::read_to_string(config).expect("read"), "{}");

    let again = home.fuseline(&["export", "fusion.yaml", "wrpo", "exported"]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("exported is not empty"), "{}", again.stderr);
    home.ok(&["export", "fusion.yaml", "sampled", "sampled"]);
    let names: Vec<String> = content(&home.path("sampled")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["lineage.json", "source=owl/responses/data.parquet", "source=target/responses/data.parquet"]);
    let unmade = home.fuseline(&["export", "fusion.yaml", "wrpo", "none", "--set", "beta=0.9"]);
    assert_eq!(unmade.code, Some(2));
    assert!(unmade.stderr.contains("wrpo has no result yet\n  help: fuseline run fusion.yaml"), "{}", unmade.stderr);
    assert!(!home.path("none").exists());
    for name in ["exported", "sampled"] {
        std::fs::remove_dir_all(home.path(name)).expect("ours");
    }
}

#[test]
fn an_export_tells_neither_where_files_lay_nor_who_ran_it() {
    let home = Home::new();
    home.write("private.jsonl", "{\"prompt_id\": \"a\", \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n");
    let path = home.path("private.jsonl").display().to_string();
    home.write("p.yaml", format!("name: p\nstages:\n  prompts: {{op: load, with: {{path: {path}, as: prompt}}}}\n"));
    home.ok(&["run", "p.yaml"]);
    home.ok(&["export", "p.yaml", "prompts", "out"]);
    let lineage = std::fs::read_to_string(home.path("out/lineage.json")).expect("written");
    let events: Value = serde_json::from_str(&lineage).expect("JSON");
    let input = &events[0]["inputs"][0];
    assert_eq!((&input["namespace"], &input["name"]), (&"file".into(), &"private.jsonl".into()));
    let digest = input["facets"]["fuseline_file"]["digests"][0].as_str().expect("a digest");
    assert!(digest.len() >= 64, "{input}");
    let folder = home.path("").display().to_string();
    let host = Command::new("uname").arg("-n").output().expect("uname");
    let host = String::from_utf8_lossy(&host.stdout).trim().to_owned();
    for (name, bytes) in content(&home.path("out")) {
        let text = String::from_utf8_lossy(&bytes);
        for private in [folder.trim_end_matches('/'), &host] {
            assert!(!text.contains(private), "{name} holds {private}");
        }
    }
}
