package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is an amount of memory or disk.
type Bytes int64

var byteUnits = []struct {
	name string
	size Bytes
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// UnmarshalText reads "64MiB", "1.5 GB", "0".
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	for _, u := range byteUnits {
		number, found := strings.CutSuffix(s, u.name)
		if !found {
			continue
		}
		n, err := positiveFloat(number)
		if err != nil {
			return fmt.Errorf("%q is not a size: %w", s, err)
		}
		if n*float64(u.size) >= math.MaxInt64 {
			return fmt.Errorf("%q is too large", s)
		}
		*b = Bytes(math.Round(n * float64(u.size)))
		return nil
	}
	if s == "0" {
		*b = 0
		return nil
	}
	if _, err := positiveFloat(s); err == nil {
		return fmt.Errorf("%q has no unit: write %sMiB, or %sB for bytes", s, s, s)
	}
	return fmt.Errorf("%q is not a size: write it like 64MiB or 2GiB", s)
}

// MarshalText writes the largest binary unit that keeps the number whole.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String is what MarshalText writes.
func (b Bytes) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if size := byteUnits[u].size; b != 0 && b%size == 0 {
			return strconv.FormatInt(int64(b/size), 10) + byteUnits[u].name
		}
	}
	if b == 0 {
		return "0"
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// Percent is a share, of one core where CPU is meant. It may be above 100.
type Percent float64

// UnmarshalText reads "3%", "0.5 %".
func (p *Percent) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	number, found := strings.CutSuffix(s, "%")
	n, err := positiveFloat(number)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a share: write it like 3%%", s)
	case !found && n != 0:
		return fmt.Errorf("%q has no unit: write %s%%", s, s)
	}
	*p = Percent(n)
	return nil
}

// MarshalText writes "3%".
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String is what MarshalText writes.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// Duration is a span of time that also knows days.
type Duration time.Duration

// UnmarshalText reads "90s", "24h", "7d", "1d12h", "0".
func (d *Duration) UnmarshalText(text []byte) error {
	span, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(span)
	return nil
}

// MarshalText writes it as short as it goes.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is what MarshalText writes.
func (d Duration) String() string {
	const day = 24 * time.Hour
	span := time.Duration(d)
	if span != 0 && span%day == 0 {
		return strconv.FormatInt(int64(span/day), 10) + "d"
	}
	s := span.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ParseDuration reads a duration as time.ParseDuration does, with days before
// the rest. It is never negative.
func ParseDuration(text string) (time.Duration, error) {
	s := strings.TrimSpace(text)
	var days time.Duration
	rest := s
	if number, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, badDuration(s)
		}
		days, rest = time.Duration(n)*24*time.Hour, after
		if rest == "" {
			return days, nil
		}
	}
	span, err := time.ParseDuration(rest)
	if err != nil || span < 0 || strings.ContainsAny(rest, "+-") {
		return 0, badDuration(s)
	}
	if span > math.MaxInt64-days {
		return 0, fmt.Errorf("%q is too long", s)
	}
	return days + span, nil
}

func badDuration(s string) error {
	if _, err := positiveFloat(s); err == nil && s != "0" {
		return fmt.Errorf("%q has no unit: write %ss, %sm, %sh or %sd", s, s, s, s, s)
	}
	return fmt.Errorf("%q is not a duration: write it like 90s, 15m, 24h or 7d", s)
}

func positiveFloat(s string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, errors.New("its number cannot be read")
	}
	if n < 0 {
		return 0, errors.New("it is negative")
	}
	return n, nil
}

// Secret is text that no log, error or listing shows.
type Secret string

const hidden = "(hidden)"

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides it from %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides it from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides it from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
