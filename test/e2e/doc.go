// Package e2e tests the real binary on real traffic: curl, nginx, python,
// containers and network namespaces on this host.
package e2e
