#!/bin/bash
# Installs, uses, upgrades, removes and purges the packages, inside the system that boot.sh started.
set -euo pipefail
cd /
pins=/sys/fs/bpf/netverdict

fail() {
    journalctl --no-pager --lines 30 -u netverdict-collector -u netverdict-query -o cat >&2 || true
    echo "FAILED: $*" >&2
    exit 1
}

# within SECONDS COMMAND…
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "it did not come to pass: $*"
        sleep 0.2
    done
}

reaches() {
    ip netns exec "$1" timeout 2 bash -c '</dev/tcp/10.9.3.2/5432' 2>/dev/null
}

ready() {
    netverdict probe status | grep -q "$1 with policies in force"
}

denied() {
    local code=0
    netverdict why shop/jobs db/pg:5432 --exit-status || code=$?
    ((code == 3))
}

pid() {
    systemctl show --property MainPID --value netverdict-collector
}

within 30 systemctl is-active --quiet basic.target

echo "installing starts nothing"
dpkg --install /packages/*.deb >/tmp/dpkg.log 2>&1 || fail "dpkg: $(cat /tmp/dpkg.log)"
for unit in netverdict-collector netverdict-query; do
    if systemctl is-enabled --quiet $unit || systemctl is-active --quiet $unit; then fail "$unit is enabled or runs"; fi
done
[ ! -e $pins ] || fail "something is pinned"

echo 1 >/proc/sys/net/ipv4/ip_forward
manifests=/etc/netverdict/manifests
number=0
for pod in shop/web shop/jobs db/pg; do
    number=$((number + 1))
    name=${pod#*/}
    ip netns add "$name"
    ip link add "v$name" type veth peer name eth0 netns "$name"
    ip addr add "10.9.$number.1/24" dev "v$name"
    ip link set "v$name" up
    ip -n "$name" addr add "10.9.$number.2/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default via "10.9.$number.1"
    cat >>$manifests/pods.yaml <<YAML
apiVersion: v1
kind: Pod
metadata: {namespace: ${pod%/*}, name: $name, uid: 00000000-0000-0000-0000-00000000000$number, labels: {app: $name}}
spec: {nodeName: trial}
status: {phase: Running, podIP: 10.9.$number.2, podIPs: [{ip: 10.9.$number.2}]}
---
YAML
done
cat >$manifests/policies.yaml <<'YAML'
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: db}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: db, name: allow-web, uid: 00000000-0000-0000-0000-000000000101}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]
YAML
ip netns exec pg systemd-socket-activate --listen 0.0.0.0:5432 --accept cat >/dev/null 2>&1 &
within 10 reaches jobs

echo "confined as they are, both services do their work"
sed -i 's/^NETVERDICT_MODE=.*/NETVERDICT_MODE=enforce/; s/^#NETVERDICT_NODE=.*/NETVERDICT_NODE=trial/' /etc/netverdict/collector.env
systemctl enable --quiet --now netverdict-collector netverdict-query || fail "enable --now"
within 60 test -S /run/netverdict/collector.sock
number=0
for pod in shop/web shop/jobs db/pg; do
    number=$((number + 1))
    echo '{"cniVersion":"1.1.0","name":"pods","type":"netverdict-cni","waitSeconds":30,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.9.'$number'.2/24"}]}}' |
        CNI_COMMAND=ADD CNI_CONTAINERID=c$number CNI_IFNAME=eth0 CNI_NETNS=/run/netns/${pod#*/} \
            CNI_ARGS="K8S_POD_NAMESPACE=${pod%/*};K8S_POD_NAME=${pod#*/};K8S_POD_UID=00000000-0000-0000-0000-00000000000$number" \
            netverdict-cni >/dev/null || fail "netverdict-cni of $pod"
done
within 30 ready 3
reaches web || fail "web does not reach pg"
if reaches jobs; then fail "jobs reaches pg"; fi
export NETVERDICT_SERVER=http://127.0.0.1:9480 NETVERDICT_SERVER_TOKEN_FILE=/var/lib/netverdict-query/query.password
within 30 denied
for unit in netverdict-collector netverdict-query; do
    [ "$(systemctl show --property NRestarts --value $unit)" = 0 ] || fail "$unit was started again"
done
# A namespace that was made after the service's own mount namespace.
ip netns add late
ip link add vlate type veth peer name eth0 netns late
ip link set vlate up
within 10 bash -c "netverdict probe status | grep -q 'vlate .*both'"

echo "an upgrade restarts what runs and keeps the settings"
before=$(pid)
dpkg --install /packages/*.deb >/tmp/dpkg.log 2>&1 || fail "dpkg: $(cat /tmp/dpkg.log)"
[ "$(pid)" != "$before" ] || fail "the collector was not restarted"
grep -q '^NETVERDICT_MODE=enforce' /etc/netverdict/collector.env || fail "a setting is lost"
within 30 ready 3
if reaches jobs; then fail "jobs reaches pg after the upgrade"; fi

echo "a removal leaves nothing that enforces"
dpkg --remove netverdict-collector netverdict-query >/tmp/dpkg.log 2>&1 || fail "dpkg: $(cat /tmp/dpkg.log)"
[ ! -e $pins ] || fail "something is still pinned"
reaches jobs || fail "something still enforces"

echo "a purge keeps the record"
dpkg --purge netverdict-collector netverdict-query >/tmp/dpkg.log 2>&1 || fail "dpkg: $(cat /tmp/dpkg.log)"
[ -d /var/lib/netverdict/data/flows ] || fail "the record is gone"
if [ -e /var/lib/netverdict/state ] || [ -e /etc/netverdict/collector.env ]; then fail "state or settings stay: $(cat /tmp/dpkg.log)"; fi
