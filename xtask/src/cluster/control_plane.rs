//! The store, the API server, the controllers and the scheduler, on the first node.

use std::{fs, io, path::Path, process::Command};

use super::plan::{API_PORT, Node, Plan, SERVICE_RANGES};

const STORE: &str = "http://127.0.0.1:2379";
const STORE_PEERS: &str = "http://127.0.0.1:2380";

/// The audit policy of an API server: the requests of the accounts of the product's namespace.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:netverdict"]}, {"level": "None"}]
}
"#;

pub(super) fn write_files(plan: &Plan) -> io::Result<()> {
    fs::write(plan.audit_policy(), AUDIT_POLICY)
}

/// The store and the API server, each with the name of its log.
pub(super) fn first_half(plan: &Plan, programs: &Path, node: &Node) -> [(&'static str, Command); 2] {
    let certificates = plan.certificates();
    let mut etcd = Command::new(programs.join("etcd"));
    // It lives as long as a test: nothing is gained by waiting for a disk.
    etcd.args(["--data-dir", "/var/lib/etcd", "--unsafe-no-fsync", "--log-level", "warn"]);
    etcd.args(["--listen-client-urls", STORE, "--advertise-client-urls", STORE]);
    etcd.args(["--listen-peer-urls", STORE_PEERS, "--initial-advertise-peer-urls", STORE_PEERS]);
    etcd.args(["--initial-cluster", &format!("default={STORE_PEERS}")]);

    let mut api = Command::new(programs.join("kube-apiserver"));
    api.args(["--etcd-servers", STORE, "--bind-address", "::", "--secure-port", &API_PORT.to_string()]);
    api.args(["--advertise-address", &node.v4().to_string(), "--service-cluster-ip-range", SERVICE_RANGES]);
    api.args(["--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction"]);
    api.args(["--allow-privileged", "--service-account-issuer", "https://kubernetes.default.svc"]);
    api.args(["--kubelet-preferred-address-types", "InternalIP"]);
    api.arg("--audit-policy-file").arg(plan.audit_policy()).arg("--audit-log-path").arg(plan.audit_log());
    for (option, file) in [
        ("--tls-cert-file", "apiserver.crt"),
        ("--tls-private-key-file", "apiserver.key"),
        ("--client-ca-file", "ca.crt"),
        ("--kubelet-certificate-authority", "ca.crt"),
        ("--kubelet-client-certificate", "admin.crt"),
        ("--kubelet-client-key", "admin.key"),
        ("--service-account-key-file", "accounts.key"),
        ("--service-account-signing-key-file", "accounts.key"),
    ] {
        api.arg(option).arg(certificates.join(file));
    }
    [("etcd", etcd), ("kube-apiserver", api)]
}

/// The programs that need the API server.
pub(super) fn second_half(plan: &Plan, programs: &Path) -> [(&'static str, Command); 2] {
    let certificates = plan.certificates();
    let alone = ["--leader-elect=false", "--bind-address", "127.0.0.1"];
    let mut controllers = Command::new(programs.join("kube-controller-manager"));
    // With the administrator's rights and no accounts of their own, controllers start some seconds earlier.
    controllers.arg("--kubeconfig").arg(certificates.join("admin.kubeconfig")).args(alone);
    controllers.arg("--service-account-private-key-file").arg(certificates.join("accounts.key"));
    controllers.arg("--root-ca-file").arg(certificates.join("ca.crt"));
    // Its default is a folder of the machine.
    controllers.args(["--flex-volume-plugin-dir", "/var/lib/kubelet/flex"]);

    let mut scheduler = Command::new(programs.join("kube-scheduler"));
    scheduler.arg("--kubeconfig").arg(certificates.join("scheduler.kubeconfig")).args(alone);
    [("kube-controller-manager", controllers), ("kube-scheduler", scheduler)]
}
