//! The chart, rendered by Helm: golden manifests, refused contradictions, and the rights that the documentation names.
//!
//! `NETVERDICT_UPDATE_GOLDEN=1` writes the rendered manifests anew.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use xtask::{command::root, setup};

use crate::world::object;

/// A version whose API servers serve all that the chart uses.
const KUBERNETES: &str = "1.33.0";
/// Every optional part, and values that differ from the defaults.
const EVERYTHING: &[&str] = &[
    "--set=mode=enforce",
    "--set=ipv6=true",
    "--set=secret.existing=",
    "--set=image.pullSecrets[0].name=pull",
    "--set=image.tag=1.2.3",
    "--set=collector.seLinuxOptions.type=spc_t",
    "--set=collector.env[0].name=NETVERDICT_LOG",
    "--set=collector.env[0].value=debug",
    "--set=query.collectors[0]=http://10.0.0.7:9471",
    "--set=query.tls.secretName=certificate",
    "--set=query.networkPolicy.from[0].namespaceSelector.matchLabels.team=security",
    "--set=metrics.enabled=true",
    "--set=metrics.serviceMonitor.enabled=true",
    "--api-versions=monitoring.coreos.com/v1",
];

pub(crate) fn chart() -> PathBuf {
    root().join("deploy/helm/netverdict")
}

pub(crate) fn helm(home: &Path) -> Command {
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

fn check(path: &str, found: &str) {
    let path = root().join(path);
    if std::env::var_os("NETVERDICT_UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).expect("written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(found.lines()).position(|(one, other)| one != other);
    assert!(
        expected == found,
        "{} is not what the chart says, from line {}: look at the change, then set NETVERDICT_UPDATE_GOLDEN=1",
        path.display(),
        differs.map_or(expected.lines().count().min(found.lines().count()), |line| line) + 1
    );
}

/// Without the objects of the release alone: hooks, and the Secret, whose values are random.
#[test]
fn rendered_manifests_are_the_golden_ones_and_the_base_of_kustomize_is_one_of_them() {
    if object().is_none() {
        return;
    }
    let existing = "--set=secret.existing=netverdict";
    check("deploy/kustomize/base/netverdict.yaml", &rendered(&["--no-hooks", existing]));
    check("deploy/kustomize/uninstall/netverdict.yaml", &rendered(&["--show-only=templates/uninstall.yaml", existing]));
    let everything: Vec<&str> =
        EVERYTHING.iter().filter(|value| !value.starts_with("--set=secret")).copied().chain([existing]).collect();
    check("tests/golden/chart-everything.yaml", &rendered(&everything));
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
