// Package suite pins the version of network-policy-api's conformance suite, which `cargo xtask conformance network-policy-api`
// builds and runs as it is.
package suite

import _ "sigs.k8s.io/network-policy-api/conformance/tests"
