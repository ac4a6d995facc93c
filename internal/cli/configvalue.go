package cli

import (
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/budget"
)

// Secret is text that is never printed: whatever formats it gets a placeholder. Convert it to string to use it.
type Secret string

const hidden = "[secret]"

// String returns a placeholder.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format prints the placeholder whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalText makes encoders and loggers write the placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Size is a number of bytes. In text it has one of the units KiB, MiB and GiB, or none.
type Size int64

var sizeUnits = []struct {
	name  string
	shift uint
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// String uses the largest unit that leaves a whole number.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && s%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(s>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func parseSize(text string) (Size, error) {
	number, shift := text, uint(0)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			number, shift = strings.TrimSpace(n), u.shift
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n > 1<<62>>shift {
		return 0, errors.New("expected a size such as 64MiB, 512KiB or a number of bytes")
	}
	return Size(n << shift), nil
}

// Duration is a length of time. In text it is what [time.ParseDuration] reads.
type Duration time.Duration

// String writes whole minutes and hours without the zero units behind them.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

func parseDuration(text string) (Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, errors.New("expected a length of time with its unit, such as 500ms, 30s or 1m30s")
	}
	return Duration(d), nil
}

// Count is a number of things that may be many.
type Count int64

// Money is an amount in millionths. In text it is what [budget.ParseMoney] reads.
type Money int64

// String gives the amount.
func (m Money) String() string { return budget.Money(m).String() }

// setNumber stores a number, a size or a duration that is written as text, within the bounds of the tag.
func setNumber(v reflect.Value, text string, tag reflect.StructTag) error {
	n, err := parseNumber(v, text)
	if err != nil {
		return err
	}
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	for _, bound := range []struct {
		name string
		to   *int64
	}{{"min", &low}, {"max", &high}} {
		if s := tag.Get(bound.name); s != "" {
			if *bound.to, err = parseNumber(v, s); err != nil {
				return fmt.Errorf("%s of this key: %w", bound.name, err)
			}
		}
	}
	if n < low || n > high {
		return fmt.Errorf("has to be between %s and %s", tag.Get("min"), tag.Get("max"))
	}
	v.SetInt(n)
	return nil
}

func expected(v reflect.Value) string {
	switch v.Interface().(type) {
	case Size:
		return "a size such as 64MiB"
	case Duration:
		return "a length of time such as 30s"
	case Money:
		return "an amount of money such as 250 or 0.075"
	}
	return "a whole number"
}

func parseNumber(v reflect.Value, text string) (int64, error) {
	switch v.Interface().(type) {
	case Size:
		n, err := parseSize(text)
		return int64(n), err
	case Duration:
		n, err := parseDuration(text)
		return int64(n), err
	case Money:
		n, err := budget.ParseMoney(text)
		return int64(n), err
	case Count:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			err = errors.New("expected a whole number")
		}
		return n, err
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, errors.New("expected a whole number")
	}
	return n, nil
}

func oneOf(text string, allowed []string) error {
	if slices.Contains(allowed, text) {
		return nil
	}
	if near := nearest(text, allowed); near != "" {
		return fmt.Errorf("%s is not one of %s, did you mean %q?", clip(text), strings.Join(allowed, ", "), near)
	}
	return fmt.Errorf("%s is not one of %s", clip(text), strings.Join(allowed, ", "))
}

// expand replaces ${NAME} by the environment variable, once, and $${ by ${.
func expand(text string, getenv func(string) string) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			b.WriteString(text)
			return b.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			b.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		b.WriteString(text[:i])
		name, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed || !isVariable(name) {
			return "", errors.New("${ has to be followed by the name of an environment variable and }; write $${ for a plain ${")
		}
		value := getenv(name)
		if value == "" {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		b.WriteString(value)
		text = rest
	}
}

func isVariable(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
	return s != "" && len(s) <= 128 && strings.Trim(s, letters+"0123456789") == "" && strings.Trim(s[:1], letters) == ""
}
