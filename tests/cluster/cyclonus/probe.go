package main

import (
	"slices"
	"sort"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
)

// Pods that probe at the same time.
const sources = 5

type probeResult struct {
	// `namespace/name` of pods.
	From string `json:"from"`
	To   string `json:"to"`
	// Where the probe was sent: an address or a name.
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Protocol string `json:"protocol"`
	Expected string `json:"expected"`
	Observed string `json:"observed"`
	// Sent to a Service whose selector does not choose the pod (any more): it ends there, whatever the policies say.
	Unserved bool `json:"unserved,omitempty"`
	// `namespace/name` of the policies that deny it, by direction; none where the direction allows it.
	Egress  []string `json:"egress,omitempty"`
	Ingress []string `json:"ingress,omitempty"`
}

func probeStep(state *connectivity.TestCaseState, config *generator.ProbeConfig) (stepResult, error) {
	var step stepResult
	unserved, err := unservedPods(state, config.Mode)
	if err != nil {
		return step, err
	}
	policies := matcher.BuildNetworkPolicies(true, state.Policies)
	jobs := (&probe.JobBuilder{TimeoutSeconds: 1}).GetJobsForProbeConfig(state.Resources, config)
	// What a pod sends to itself is always allowed, which cyclonus' expectation leaves out.
	others := slices.DeleteFunc(jobs.Valid, func(job *probe.Job) bool { return job.FromKey == job.ToKey })
	runner := probe.NewKubeBatchJobRunner(state.Kubernetes, sources)
	for step.Attempts < attempts {
		step.Attempts++
		step.Began = time.Now().UnixNano()
		results := runner.RunJobs(others)
		step.Ended = time.Now().UnixNano()
		step.Probes = step.Probes[:0]
		same := true
		for _, result := range results {
			probed := compare(policies, result)
			probed.Unserved = unserved[probed.To]
			same = same && probed.Expected == probed.Observed
			step.Probes = append(step.Probes, probed)
		}
		if same {
			break
		}
	}
	return step, nil
}

// Pods with other labels than their Service asks for, since a case has changed them.
func unservedPods(state *connectivity.TestCaseState, mode generator.ProbeMode) (map[string]bool, error) {
	unserved := map[string]bool{}
	if mode == generator.ProbeModePodIP {
		return unserved, nil
	}
	for _, pod := range state.Resources.Pods {
		service, err := state.Kubernetes.GetService(pod.Namespace, pod.ServiceName())
		if err != nil {
			return nil, err
		}
		for label, value := range service.Spec.Selector {
			if pod.Labels[label] != value {
				unserved[pod.Namespace+"/"+pod.Name] = true
			}
		}
	}
	return unserved, nil
}

func compare(policies *matcher.Policy, result *probe.JobResult) probeResult {
	job := result.Job
	answer := policies.IsTrafficAllowed(job.Traffic())
	expected := probe.ConnectivityBlocked
	if answer.IsAllowed() {
		expected = probe.ConnectivityAllowed
	}
	return probeResult{
		From:     job.FromKey,
		To:       job.ToKey,
		Host:     job.ToHost,
		Port:     job.ResolvedPort,
		Protocol: string(job.Protocol),
		Expected: string(expected),
		Observed: string(result.Combined),
		Egress:   deniedBy(answer.Egress),
		Ingress:  deniedBy(answer.Ingress),
	}
}

func deniedBy(answer *matcher.DirectionResult) []string {
	if answer.IsAllowed() {
		return nil
	}
	names := map[string]bool{}
	for _, target := range answer.DenyingTargets {
		for _, policy := range target.SourceRules {
			names[policy.Namespace+"/"+policy.Name] = true
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	return sorted
}
