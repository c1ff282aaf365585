// Package catalog lists every sensor, protocol and exporter. The list is
// generated from the folders, so a new folder is all that a new one needs.
package catalog

//go:generate go run ./gen
//go:generate go run ./docgen
