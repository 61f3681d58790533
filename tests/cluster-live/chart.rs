//! The chart, rendered by Helm: golden manifests, made certificates, and refused contradictions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use netverdict_tests::golden::check;
use serde_json::Value;
use xtask::{command::root, setup};

use crate::world::object;

/// A version whose API servers serve all that the chart uses.
const KUBERNETES: &str = "1.33.0";
/// Every optional part, and values that differ from the defaults.
const EVERYTHING: &[&str] = &[
    "--set=mode=enforce",
    "--set=ipv6=true",
    "--set=image.pullSecrets[0].name=pull",
    "--set=image.tag=1.2.3",
    "--set=collector.seLinuxOptions.type=spc_t",
    "--set=collector.env[0].name=NETVERDICT_LOG",
    "--set=collector.env[0].value=debug",
    "--set=query.storage.persistent=true",
    "--set=query.storage.className=fast",
    "--set=query.networkPolicy.from[0].namespaceSelector.matchLabels.team=security",
    "--set=metrics.enabled=true",
    "--set=metrics.serviceMonitor.enabled=true",
    "--api-versions=monitoring.coreos.com/v1",
];

pub(crate) fn chart() -> PathBuf {
    root().join("deploy/helm/netverdict")
}

fn helm(home: &Path) -> Command {
    let mut helm = Command::new(setup::found_helm().expect("`cargo xtask setup` builds Helm"));
    for (variable, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        helm.env(variable, home.join(folder));
    }
    helm
}

fn template(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("a folder");
    let mut helm = helm(home.path());
    helm.args(["template", "netverdict"]).arg(chart()).args(["--namespace=netverdict", "--kube-version", KUBERNETES]);
    helm.args(arguments).output().expect("helm starts")
}

fn rendered(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = template(arguments);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

/// Tokens and certificates are random: rendered manifests name Secrets that exist instead.
const EXISTING: [&str; 4] = [
    "--set=secret.existing=netverdict",
    "--set=tls.certificates=existing",
    "--set=collector.tls.secretName=netverdict-collector-tls",
    "--set=query.tls.secretName=netverdict-query-tls",
];

/// Without hooks, and without Secrets, whose values are random.
#[test]
fn rendered_manifests_are_the_golden_ones_and_the_base_of_kustomize_is_one_of_them() {
    if object().is_none() {
        return;
    }
    let with = |arguments: &[&'static str]| rendered(&[arguments, &EXISTING].concat());
    let remedy = "look at the change";
    check("deploy/kustomize/base/netverdict.yaml", &with(&["--no-hooks"]), remedy);
    check("deploy/kustomize/uninstall/netverdict.yaml", &with(&["--show-only=templates/uninstall.yaml"]), remedy);
    check("tests/golden/chart-everything.yaml", &with(EVERYTHING), remedy);
}

#[test]
fn a_made_secret_has_a_token_and_a_password_of_their_own() {
    if object().is_none() {
        return;
    }
    let objects = rendered(&["--show-only=templates/secret.yaml"]);
    let secret: Value = serde_saphyr::from_str(&objects).expect("YAML");
    let [token, password] = ["collector.token", "query.password"].map(|key| secret["data"][key].as_str().expect(key));
    assert!(token.len() >= 64 && password.len() >= 64 && token != password, "{objects}");
}

#[test]
fn made_certificates_are_of_the_made_authority_and_name_their_services() {
    if object().is_none() {
        return;
    }
    let objects = rendered(&["--show-only=templates/certificates.yaml", "--set=query.tls.names[0]=verdict.example"]);
    let folder = tempfile::tempdir().expect("a folder");
    let secret = |name: &str| {
        let secrets = objects.split("---\n").filter(|text| text.contains("kind: Secret"));
        let secrets = secrets.map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"));
        secrets.into_iter().find(|secret| secret["metadata"]["name"] == name).expect(name)
    };
    let file = |secret: &Value, key: &str| {
        let path = folder.path().join(key);
        let mut decode = Command::new("base64");
        decode.arg("-d").stdin(std::process::Stdio::piped()).stdout(fs::File::create(&path).expect("a file"));
        let mut decoding = decode.spawn().expect("base64 starts");
        let text = secret["data"][key].as_str().expect(key);
        std::io::Write::write_all(&mut decoding.stdin.take().expect("its input"), text.as_bytes()).expect("written");
        assert!(decoding.wait().expect("base64 ends").success());
        path
    };
    let authority = file(&secret("netverdict-authority"), "ca.crt");
    for (name, host) in [("collector", "netverdict-collector.netverdict.svc"), ("query", "verdict.example")] {
        let certificate = file(&secret(&format!("netverdict-{name}-tls")), "tls.crt");
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-purpose", "sslserver", "-verify_hostname", host, "-CAfile"]);
        let Output { status, stderr, .. } = verify.arg(&authority).arg(&certificate).output().expect("openssl starts");
        assert!(status.success(), "{name}: {}", String::from_utf8_lossy(&stderr));
    }
}

#[test]
fn values_that_contradict_each_other_or_are_of_another_type_are_refused_with_the_reason() {
    if object().is_none() {
        return;
    }
    for (values, reason) in [
        (&["--set=metrics.serviceMonitor.enabled=true"][..], "needs metrics.enabled=true"),
        (&["--set=metrics.enabled=true,metrics.serviceMonitor.enabled=true"], "install it first"),
        (&["--set=collector.rowsPort=9470"], "are the same port"),
        (&["--set=query.httpPort=9432"], "are the same port"),
        (&["--set=query.enabled=false,dashboards.enabled=true"], "there is no query service"),
        (&["--set=mode=enforce,cni.onUnavailable=allow"], "start pods unjudged"),
        (&["--set=cni.enabled=false,cni.onUnavailable=fail"], "there is no plugin"),
        (&["--set=record.hostPath=/run/netverdict/data"], "has to outlive it"),
        (&["--set=record.hostPath=data"], "record"),
        (&["--set=tls.certificates=existing"], "needs the Secrets"),
        (&["--set=query.tls.secretName=certificate"], "does not read it"),
        (&["--set=query.storage.className=fast"], "there is no claim"),
        (&["--set=mode=strict"], "mode"),
        (&["--set=modes=enforce"], "modes"),
        (&["--set=cni.waitSeconds=61"], "waitSeconds"),
        (&["--set-string=query.httpPort=http"], "httpPort"),
    ] {
        let Output { status, stderr, .. } = template(values);
        let said = String::from_utf8_lossy(&stderr);
        assert!(!status.success() && said.contains(reason), "{values:?}: {said}");
    }
}
