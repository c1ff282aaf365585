package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ghostlight/internal/config"
)

// filters gathers filter flags in the order they are given, because --not
// belongs to the one after it, and writes them in the filter language.
type filters struct {
	terms []string
	not   bool
}

// text returns the whole filter. words are the free terms.
func (f *filters) text(words []string) (string, error) {
	if f.not {
		return "", usagef("--not needs a filter after it, as in: --not --port 443")
	}
	return strings.Join(append(slices.Clone(f.terms), words...), " "), nil
}

// flag adds a filter flag.
func (f *filters) flag(cmd *cobra.Command, name, field, doc string, check func(string) error) {
	cmd.Flags().Var(&filterFlag{f, field, check}, name, doc)
}

// notFlag adds --not.
func (f *filters) notFlag(cmd *cobra.Command) {
	cmd.Flags().Var((*notFlag)(f), "not", "turn the next filter around: --not --port 443")
	cmd.Flags().Lookup("not").NoOptDefVal = "true"
}

type filterFlag struct {
	filters *filters
	field   string
	check   func(string) error
}

func (v *filterFlag) String() string { return "" }
func (v *filterFlag) Type() string   { return "value" }

func (v *filterFlag) Set(text string) error {
	values := strings.Split(text, ",")
	for i, value := range values {
		if value == "" {
			return fmt.Errorf("an empty value")
		}
		if v.check != nil {
			if err := v.check(value); err != nil {
				return err
			}
		}
		values[i] = quote(value)
	}
	term := v.field + ":" + strings.Join(values, ",")
	if v.filters.not {
		term = "-" + term
	}
	v.filters.not = false
	v.filters.terms = append(v.filters.terms, term)
	return nil
}

type notFlag filters

func (v *notFlag) String() string { return "" }
func (v *notFlag) Type() string   { return "bool" }

func (v *notFlag) Set(text string) error {
	if v.not {
		return fmt.Errorf("it is given twice")
	}
	v.not = text == "true"
	return nil
}

// quote writes a value so that it stays one in the filter language.
func quote(value string) string {
	if !strings.ContainsAny(value, " \t\"'\\") {
		return value
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}

func isNumber(bits int) func(string) error {
	return func(s string) error {
		if _, err := strconv.ParseUint(s, 10, bits); err != nil {
			return fmt.Errorf("%q is not a number that fits", s)
		}
		return nil
	}
}

func isAddress(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err != nil {
		return fmt.Errorf("%q is neither an address nor a network like 10.0.0.0/8", s)
	}
	return nil
}

func isOneOf(known ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(known, s) {
			return nil
		}
		if near := config.Nearest(s, known); near != "" {
			return fmt.Errorf("%q is not one of %s; did you mean %s?", s, strings.Join(known, ", "), near)
		}
		return fmt.Errorf("%q is not one of %s", s, strings.Join(known, ", "))
	}
}
