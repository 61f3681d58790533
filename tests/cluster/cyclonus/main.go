// Runs the cases that cyclonus generates for NetworkPolicy against the cluster of the kubeconfig, and writes a JSON line for
// each: its steps, and for every probe the result, what the policies ask for, and which policies deny it.
// `cargo xtask conformance cyclonus` starts it and compares the lines with the record.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/kube"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	podStart = 120 // seconds
	// A probe that differs is repeated: on a busy machine one may run out of its second.
	attempts = 6
)

type options struct {
	mode      generator.ProbeMode
	protocols []v1.Protocol
	registry  string
	settle    time.Duration
	only      string
	list      bool
}

// One line of the output.
type caseResult struct {
	Number      int          `json:"number"`
	Of          int          `json:"of"`
	Description string       `json:"description"`
	Tags        []string     `json:"tags"`
	Steps       []stepResult `json:"steps"`
	// Why the case could not be run to its end.
	Error string `json:"error,omitempty"`
}

type stepResult struct {
	// Of the last attempt, in nanoseconds since 1970.
	Began    int64         `json:"began"`
	Ended    int64         `json:"ended"`
	Attempts int           `json:"attempts"`
	Probes   []probeResult `json:"probes"`
}

func main() {
	// Cyclonus prints tables.
	lines := json.NewEncoder(os.Stdout)
	os.Stdout = os.Stderr
	if err := run(read(), lines); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read() options {
	mode := flag.String("destination", generator.ProbeModePodIP, "where probes go: "+strings.Join(generator.AllProbeModes, ", "))
	protocols := flag.String("protocols", "TCP,UDP", "protocols of servers and probes")
	registry := flag.String("registry", "registry.k8s.io", "registry of the servers' image")
	settle := flag.Duration("settle", time.Second, "between a change and the probes")
	only := flag.String("only", "", "only cases with this in their description")
	list := flag.Bool("list", false, "write the cases, and run none")
	flag.Parse()
	o := options{registry: *registry, settle: *settle, only: *only, list: *list}
	for _, protocol := range strings.Split(*protocols, ",") {
		o.protocols = append(o.protocols, v1.Protocol(protocol))
	}
	known, err := generator.ParseProbeMode(*mode)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	o.mode = known
	return o
}

func run(o options, lines *json.Encoder) error {
	namespaces := []string{"x", "y", "z"}
	var cluster kube.IKubernetes
	var resources *probe.Resources
	address := "192.0.2.1"
	if !o.list {
		client, err := connect()
		if err != nil {
			return err
		}
		cluster = client
		pods, ports := []string{"a", "b", "c"}, []int{80, 81}
		resources, err = probe.NewDefaultResources(cluster, namespaces, pods, ports, o.protocols, nil, podStart, true, o.registry)
		if err != nil {
			return err
		}
		last, err := resources.GetPod("z", "c")
		if err != nil {
			return err
		}
		address = last.IP
	}
	cases := generator.NewTestCaseGenerator(true, address, namespaces, nil, nil).GenerateTestCases()
	for i, generated := range cases {
		result := caseResult{Number: i + 1, Of: len(cases), Description: generated.Description, Tags: generated.Tags.Keys()}
		sort.Strings(result.Tags)
		if !strings.Contains(generated.Description, o.only) {
			continue
		}
		if !o.list {
			if err := runCase(o, cluster, resources, generated, &result); err != nil {
				result.Error = err.Error()
			}
		}
		if err := lines.Encode(result); err != nil {
			return err
		}
	}
	return nil
}

// With as many requests as it can make: cyclonus' own client makes five a second.
func connect() (kube.IKubernetes, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &kube.Kubernetes{ClientSet: client, RestConfig: config}, nil
}

func runCase(o options, cluster kube.IKubernetes, resources *probe.Resources, generated *generator.TestCase, result *caseResult) error {
	state := &connectivity.TestCaseState{Kubernetes: cluster, Resources: resources}
	if err := state.ResetClusterState(); err != nil {
		return err
	}
	if err := state.VerifyClusterState(); err != nil {
		return err
	}
	for _, step := range generated.Steps {
		for _, action := range step.Actions {
			if err := perform(state, action); err != nil {
				return err
			}
		}
		if err := findServices(state); err != nil {
			return err
		}
		time.Sleep(o.settle)
		config := *step.Probe
		config.Mode = o.mode
		step, err := probeStep(state, &config)
		if err != nil {
			return err
		}
		result.Steps = append(result.Steps, step)
	}
	return nil
}

func perform(state *connectivity.TestCaseState, action *generator.Action) error {
	switch {
	case action.CreatePolicy != nil:
		return state.CreatePolicy(action.CreatePolicy.Policy)
	case action.UpdatePolicy != nil:
		return state.UpdatePolicy(action.UpdatePolicy.Policy)
	case action.DeletePolicy != nil:
		return state.DeletePolicy(action.DeletePolicy.Namespace, action.DeletePolicy.Name)
	case action.CreateNamespace != nil:
		return state.CreateNamespace(action.CreateNamespace.Namespace, action.CreateNamespace.Labels)
	case action.SetNamespaceLabels != nil:
		return state.SetNamespaceLabels(action.SetNamespaceLabels.Namespace, action.SetNamespaceLabels.Labels)
	case action.DeleteNamespace != nil:
		return state.DeleteNamespace(action.DeleteNamespace.Namespace)
	case action.ReadNetworkPolicies != nil:
		return state.ReadPolicies(action.ReadNetworkPolicies.Namespaces)
	case action.CreatePod != nil:
		return state.CreatePod(action.CreatePod.Namespace, action.CreatePod.Pod, action.CreatePod.Labels)
	case action.SetPodLabels != nil:
		return state.SetPodLabels(action.SetPodLabels.Namespace, action.SetPodLabels.Pod, action.SetPodLabels.Labels)
	case action.DeletePod != nil:
		return state.DeletePod(action.DeletePod.Namespace, action.DeletePod.Pod)
	}
	return fmt.Errorf("an action of this version of cyclonus is not known: %+v", action)
}

// cyclonus finds the Services of the pods that it begins with, and forgets that of a pod which a case makes or labels.
func findServices(state *connectivity.TestCaseState) error {
	for _, pod := range state.Resources.Pods {
		if pod.ServiceIP != "" {
			continue
		}
		service, err := state.Kubernetes.GetService(pod.Namespace, pod.ServiceName())
		if err != nil {
			return err
		}
		pod.ServiceIP = service.Spec.ClusterIP
	}
	return nil
}
