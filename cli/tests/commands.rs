//! The tool as a person or a script runs it: exit codes, output on the right stream, pipes, Ctrl-C.
//!
//! The query service is stood in for by a socket with fixed answers; with the real one it runs in the pipeline suite.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {nodeName: n1}
status: {phase: Running, podIPs: [{ip: 10.0.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: db, name: pg, labels: {app: pg}}
spec: {nodeName: n1}
status: {phase: Running, podIPs: [{ip: 10.0.2.2}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: db, name: default-deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

fn netverdict() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netverdict"));
    for name in [
        "NETVERDICT_SERVER",
        "NETVERDICT_SERVER_TOKEN_FILE",
        "NETVERDICT_TOKEN_FILE",
        "NETVERDICT_NAMESPACE",
        "NETVERDICT_PIN_ROOT",
    ] {
        command.env_remove(name);
    }
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn eval(to: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pods.yaml"), PODS).unwrap();
    run(netverdict().arg("eval").arg("-f").arg(folder.path()).args(["--from", "shop/web", "--to", to]).args(more))
}

#[test]
fn the_exit_status_tells_the_verdict_only_when_asked() {
    let (code, output, errors) = eval("db/pg:5432", &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(output.starts_with("denied at destination ingress by db/default-deny: shop/web to db/pg port 5432/TCP"));
    assert!(!output.contains('\x1b'), "colours in a pipe: {output}");
    assert_eq!(eval("db/pg:5432", &["--exit-status"]).0, Some(3));
    assert_eq!(eval("203.0.113.10:443", &["--exit-status"]).0, Some(0));
}

#[test]
fn a_pod_that_is_not_there_is_an_error_with_its_neighbours() {
    let (code, output, errors) = eval("db/pgg:5432", &[]);
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(errors.contains("pod db/pgg is not in the snapshot") && errors.contains("db/pg"), "{errors}");
}

#[test]
fn one_answer_as_json_carries_what_changes_it() {
    let broken = "---\napiVersion: v1\nkind: NetworkPolicy\nmetadata: {namespace: db, name: open}\nspec: {podSelector: {}, ingress: [{}]}\n";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), format!("{PODS}{broken}")).unwrap();
    let (_, output, errors) = run(netverdict().arg("eval").arg("-f").arg(folder.path()).args([
        "--from",
        "shop/web",
        "--to",
        "db/pg:5432",
        "-o",
        "json",
    ]));
    let answer: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&answer["verdict"], &answer["findings"][0]["code"]), (&"denied".into(), &"unknown-version".into()));
    assert!(errors.contains("unknown-version"), "{errors}");
    let (_, output, _) = eval("db/pg:5432", &["-o", "json"]);
    assert!(!output.contains("findings"), "{output}");
    let (_, as_yaml, _) = eval("db/pg:5432", &["-o", "yaml"]);
    let parsed: serde_json::Value = serde_saphyr::from_str(&as_yaml).unwrap();
    assert_eq!(parsed, serde_json::from_str::<serde_json::Value>(&output).unwrap());
}

#[test]
fn a_service_is_told_from_a_pod_that_is_not_there() {
    let service =
        "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: db, name: primary}\nspec: {clusterIP: 10.96.0.7}\n";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), format!("{PODS}{service}")).unwrap();
    let to = |place: &str| {
        run(netverdict().arg("eval").arg("-f").arg(folder.path()).args(["--from", "shop/web", "--to", place]))
    };
    let (code, _, errors) = to("db/primary:5432");
    assert_eq!(code, Some(1));
    assert!(errors.contains("it is a Service: name a pod behind it, with that pod's own port"), "{errors}");
    let (code, output, _) = to("10.96.0.7:5432");
    assert_eq!(code, Some(0));
    assert!(output.starts_with("unknown at source egress"), "{output}");
}

#[test]
fn arguments_that_are_not_understood_are_exit_code_two() {
    for arguments in [&["why", "shop/web"][..], &["why", "shop/web", "db/pg:0"], &["flows", "--verdict", "no"], &[]] {
        let (code, output, errors) = run(netverdict().args(arguments));
        assert_eq!((code, output.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(errors.contains("--help") || errors.contains("Usage: netverdict"), "{errors}");
    }
    assert_eq!(run(netverdict().arg("--help")).0, Some(0));
}

#[test]
fn the_plugin_shows_its_own_name() {
    let (code, help, _) = run(Command::new(env!("CARGO_BIN_EXE_kubectl-verdict")).args(["why", "--help"]));
    assert_eq!(code, Some(0));
    assert!(
        help.contains("Usage: kubectl verdict why") && help.contains("kubectl verdict why shop/web db/pg"),
        "{help}"
    );
    assert!(!help.contains("netverdict why"), "{help}");
}

#[test]
fn every_shell_gets_its_completion() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef netverdict"), ("fish", "complete -c netverdict")] {
        let (code, script, _) = run(netverdict().args(["completion", shell]));
        assert_eq!(code, Some(0));
        assert!(script.contains(word), "{shell}: {script}");
    }
}

/// kubectl's name for the plugin has a space, which is in no word that a shell completes.
#[test]
fn bash_completes_the_options_of_a_subcommand_under_both_names() {
    let script = r#"source <("$0" completion bash); name=${0##*/}; [[ $(complete -p "$name") =~ -F\ ([^ ]+) ]]
        COMP_WORDS=("$name" flows --verd); COMP_CWORD=2
        "${BASH_REMATCH[1]}" "$name" --verd flows; echo "${COMPREPLY[@]}""#;
    for program in [env!("CARGO_BIN_EXE_netverdict"), env!("CARGO_BIN_EXE_kubectl-verdict")] {
        let (code, completions, errors) = run(Command::new("bash").args(["-c", script, program]));
        assert_eq!((code, completions.as_str()), (Some(0), "--verdict\n"), "{program}: {errors}");
    }
}

#[test]
fn kubectl_completes_the_plugin() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubectl/kubectl_complete-verdict");
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_kubectl-verdict")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    for (words, expected) in [(&["w"][..], "why\n:4\n"), (&["flows", "--verd"], "--verdict\n:4\n"), (&["zzz"], ":0\n")]
    {
        let (code, completions, errors) = run(Command::new(script).args(words).env("PATH", &path));
        assert_eq!((code, completions.as_str()), (Some(0), expected), "{words:?}: {errors}");
    }
}

#[test]
fn lint_fails_on_errors_and_not_on_warnings() {
    let lint = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        fs::write(&file, text).unwrap();
        run(netverdict().arg("lint").arg("-f").arg(file).args(["-o", "json"]))
    };
    let (code, output, _) = lint(&PODS.replace("policyTypes: [Ingress]", "policyTypes: Ingress"));
    let findings: Vec<serde_json::Value> = serde_json::from_str(&output).unwrap();
    assert_eq!(code, Some(1));
    assert!(findings.iter().any(|finding| finding["code"] == "invalid-policy-types"), "{output}");
    assert_eq!(lint(PODS).0, Some(0));
}

#[test]
fn cases_come_from_standard_input_and_are_answered_one_by_one() {
    let mut child = netverdict().arg("eval").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["{\"id\": 1, \"objects\": [], \"flows\": []}", "nonsense", "{\"id\": 2, \"flows\": []}"] {
        writeln!(input, "{line}").unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer.get("error").is_some(), line == "nonsense", "{answer}");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child =
        netverdict().args(["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""));
}

#[test]
fn nothing_pinned_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, errors) = run(netverdict().args(["probe", "status", "--pin-root"]).arg(folder.path()));
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("error: "), "{errors}");
}

/// A `flows --follow` that has one record to print, and what it asks the service.
#[test]
fn the_former_variable_of_the_token_file_is_read_where_the_new_one_is_not_set() {
    let asked = |variables: &[(&str, &str)]| {
        let (code, _, errors) = run(netverdict().args(["sql", "select 1"]).envs(variables.iter().copied()));
        assert_eq!(code, Some(1), "{errors}");
        errors
    };
    let (new, former) =
        (("NETVERDICT_SERVER_TOKEN_FILE", "/nowhere/new"), ("NETVERDICT_TOKEN_FILE", "/nowhere/former"));
    assert!(asked(&[former]).contains("/nowhere/former"));
    assert!(asked(&[new]).contains("/nowhere/new"));
    let both = asked(&[former, new]);
    assert!(both.contains("/nowhere/new") && !both.contains("/nowhere/former"), "{both}");
}

struct Following {
    child: Child,
    questions: mpsc::Receiver<String>,
    _folder: TempDir,
}

impl Following {
    fn start() -> Self {
        let flow = r#"{"time":"2026-05-01T12:00:00Z","node":"n1","verdict":"denied","verdict_if_enforced":null,
            "disposition":"dropped","direction":"ingress","reason":"isolated_no_match","source":"shop/web",
            "source_ip":"10.0.1.2","source_port":40000,"destination":"db/pg","destination_ip":"10.0.2.2",
            "destination_port":5432,"protocol":"TCP","decided_by":["db/default-deny"],"near_miss":[],"count":1}"#;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (asked, questions) = mpsc::channel();
        let flow = flow.to_owned();
        // Ends with the process: it waits for a question that never comes.
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let flows = if number == 0 { flow.as_str() } else { "" };
                let body =
                    format!(r#"{{"flows":[{flows}],"gaps":[],"stale":["collector n1 is away"],"cursor":"c{number}"}}"#);
                if asked.send(answer(stream.unwrap(), &body)).is_err() {
                    return;
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "secret").unwrap();
        let child = netverdict()
            .args([
                "flows",
                "--follow",
                "-o",
                "json",
                "--since",
                "2026-05-01T11:00:00Z",
                "--limit",
                "5",
                "--server",
                &server,
            ])
            .arg("--token-file")
            .arg(&token)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, questions, _folder: folder }
    }

    fn next_question(&self) -> String {
        self.questions.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

#[test]
fn following_ends_cleanly_at_ctrl_c_and_sigterm() {
    for signal in ["-INT", "-TERM"] {
        let following = Following::start();
        assert_eq!(following.next_question(), "GET /v1/flows?since=2026-05-01T11%3A00%3A00.000000Z&limit=5 HTTP/1.1");
        assert_eq!(following.next_question(), "GET /v1/flows?after=c0 HTTP/1.1");
        assert_eq!(following.next_question(), "GET /v1/flows?after=c1 HTTP/1.1");
        following.send(signal);
        let Output { status, stdout, stderr } = following.child.wait_with_output().unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        let lines: Vec<serde_json::Value> =
            String::from_utf8(stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["destination"], "db/pg");
        let errors = String::from_utf8(stderr).unwrap();
        assert_eq!(errors.matches("collector n1 is away").count(), 1, "{errors}");
    }
}

#[test]
fn following_ends_when_its_reader_does_though_nothing_comes() {
    let mut following = Following::start();
    let mut line = String::new();
    BufReader::new(following.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("db/pg"), "{line}");
    // The reader is dropped; no further record comes.
    assert_eq!(following.child.wait().unwrap().code(), Some(0));
}

#[test]
fn status_tells_by_its_exit_code_whether_all_is_well() {
    let well = r#"{"url":"http://10.0.0.1:9471/","status":{"node":"n1","boot_id":"b","version":"0.1.0","mode":"enforce",
        "time":"2026-05-01T12:00:00Z","segment":3,"snapshot":7,"source_errors":[],"publish_errors":[],"endpoints":4,
        "problems":[]}}"#;
    let away = r#"{"url":"http://10.0.0.2:9471/","problem":"Connection refused","node":"n2"}"#;
    for (collectors, nodes, expected, told) in [
        (well.to_owned(), &[][..], 0, "n1    enforce  yes"),
        (format!("{well},{away}"), &[], 5, "n2: its collector does not answer at http://10.0.0.2:9471/"),
        (format!("{well},{away}"), &["n1"], 0, "n1    enforce  yes"),
        (well.to_owned(), &["n9"], 5, "n9: the query service knows no collector of this node"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let body = format!(
            r#"{{"version":"0.1.0","format_version":2,"started":"2026-05-01T11:00:00Z","collectors":[{collectors}],
            "skipped_files":[],"stale":[]}}"#
        );
        let answering = thread::spawn(move || answer(listener.accept().unwrap().0, &body));
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "secret").unwrap();
        let mut command = netverdict();
        command.arg("status").args(nodes).args(["--server", &server]).arg("--token-file").arg(&token);
        let (code, output, errors) = run(&mut command);
        assert_eq!(code, Some(expected), "{output}{errors}");
        assert!(output.contains(told), "{told}: {output}");
        assert_eq!(answering.join().unwrap(), "GET /v1/status HTTP/1.1");
    }
}

/// Gives back the request's first line.
fn answer(mut stream: TcpStream, body: &str) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned()
}
