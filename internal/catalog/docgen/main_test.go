package main

import (
	"bytes"
	"os"
	"testing"

	"ghostlight/internal/catalog"
)

// The committed page is the one of the committed sensors, and each sensor has
// a README to be linked.
func TestPageInDate(t *testing.T) {
	got, err := os.ReadFile("../../../docs/sensors.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, page(catalog.Sensors)) {
		t.Error("docs/sensors.md is out of date: run make generate")
	}
	for _, d := range catalog.Sensors {
		if _, err := os.Stat("../../sensor/" + d.Name + "/README.md"); err != nil {
			t.Errorf("sensor %s: %v", d.Name, err)
		}
	}
}
