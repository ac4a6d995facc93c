package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files anew")

// canary is the secret that no output may hold.
const canary = "sk-canary-0123456789"

// testEnv answers every variable that begins with SECRET, and a few others.
func testEnv(name string) string {
	switch {
	case strings.HasPrefix(name, "SECRET"):
		return canary
	case name == "HOST":
		return "models.example.com"
	}
	return ""
}

func read(yaml string) (*Config, error) {
	return ReadConfig("fairlead.yaml", []byte(yaml), testEnv, Overrides{})
}

func mistakes(err error) []string {
	var e *ConfigError
	if !errors.As(err, &e) {
		return nil
	}
	var got []string
	for _, m := range e.Mistakes {
		got = append(got, strings.TrimPrefix(m.String(), "fairlead.yaml:"))
	}
	return got
}

var ignorePos = cmpopts.IgnoreUnexported(Config{})

func TestConfigDefaults(t *testing.T) {
	want := &Config{
		Listen: "127.0.0.1:4180", Control: "127.0.0.1:4181", Mode: "observe", Tenant: "default",
		Log: Log{"info", "text"},
		Limits: Limits{
			RequestBytes: 64 << 20, ResponseBytes: 64 << 20, HeaderTimeout: Duration(time.Minute),
			IdleTimeout: Duration(2 * time.Minute), StreamIdle: Duration(5 * time.Minute), Connections: 1024,
		},
		Providers: map[string]Provider{
			"openai": {
				Dialect: "openai", BaseURL: "https://api.openai.com", Mode: "observe",
				Durability: "strict", OnFailure: "open", Timeout: Duration(10 * time.Minute),
			},
			"anthropic": {
				Dialect: "anthropic", BaseURL: "https://api.anthropic.com", Mode: "observe",
				Durability: "strict", OnFailure: "open", Timeout: Duration(10 * time.Minute),
			},
		},
		Profiles:   Profiles{"balanced", "balanced", "balanced", "guaranteed"},
		Approval:   Approval{Expiry: Duration(time.Hour), Grant: Duration(10 * time.Minute)},
		Checkpoint: Checkpoint{Duration(time.Second)},
	}
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "{}\n", "providers:\ntls:\nhosts:\n"} {
		got, err := read(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if diff := cmp.Diff(want, got, ignorePos); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	if got, err := LoadConfig("", testEnv, Overrides{}); err != nil || !cmp.Equal(want, got, ignorePos) {
		t.Errorf("without a file: %v, %v", got, err)
	}
}

func TestConfigValues(t *testing.T) {
	c, err := read(`
listen: 0.0.0.0:443
mode: enforce
require_key: true
hosts: [ai.example.com, "ai.example.com:8443"]
tls: {cert: a.pem, key: b.pem}
limits:
  request_bytes: 1 MiB
  response_bytes: 4096
  stream_idle: 1m30s
  connections: 7
providers:
  openai: {api_key: "${SECRET_OPENAI}", fallback: local}
  local:
    dialect: openai
    base_url: http://${HOST}:8000/api/
    mode: observe
    durability: async
    timeout: 90s
identity:
  issuers:
    - {issuer: "https://login.example.com/", audience: "$${literal}"}
`)
	if err != nil {
		t.Fatal(err)
	}
	openai, local := c.Providers["openai"], c.Providers["local"]
	for _, got := range [][2]any{
		{c.Limits.RequestBytes, Size(1 << 20)},
		{c.Limits.ResponseBytes, Size(4096)},
		{c.Limits.StreamIdle, Duration(90 * time.Second)},
		{c.Limits.Connections, 7},
		{len(c.Hosts), 2},
		{len(c.Providers), 3},
		{openai.BaseURL, "https://api.openai.com"}, // single keys of a built-in provider are replaced
		{string(openai.APIKey), canary},
		{openai.Mode, "enforce"},
		{openai.OnFailure, "closed"},
		{local.BaseURL, "http://models.example.com:8000/api"},
		{local.Mode, "observe"},
		{local.OnFailure, "open"},
		{local.Timeout, Duration(90 * time.Second)},
		{c.Identity.Issuers[0].Audience, "${literal}"},
	} {
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("got %v, expected %v", got[0], got[1])
		}
	}
}

func TestConfigMistakes(t *testing.T) {
	const keys = "the keys here are "
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"unknown key", "providers:\n  openai:\n    base_ulr: https://x\n", []string{`3: providers.openai.base_ulr: unknown key, did you mean "base_url"?`}},
		{"unknown key, nothing near", "tls:\n  certificates: a\n", []string{"2: tls.certificates: unknown key, " + keys + "cert, key"}},
		{"several, by line", "mode: obsrve\nrequire_key: yes\nlimits:\n  connections: many\n  idle_timeout: 30\n  request_bytes: 64MB\n", []string{
			`1: mode: "obsrve" is not one of observe, enforce, did you mean "observe"?`,
			"2: require_key: expected true or false",
			"4: limits.connections: expected a whole number",
			"5: limits.idle_timeout: expected a length of time with its unit, such as 500ms, 30s or 1m30s",
			"6: limits.request_bytes: expected a size such as 64MiB, 512KiB or a number of bytes",
		}},
		{"duplicate", "mode: observe\nlog: {level: info}\nmode: enforce\n", []string{"3: mode: duplicate key, it is already on line 1"}},
		{"duplicate provider", "providers:\n  a: {dialect: openai, base_url: \"http://a\"}\n  a: {dialect: openai, base_url: \"http://a\"}\n", []string{"3: providers.a: duplicate key, it is already on line 2"}},
		{"kinds", "log: info\nhosts: {a: b}\nlisten: [1]\n", []string{
			"1: log: expected keys with values, not a single value",
			"2: hosts: expected a list, not keys with values",
			"3: listen: expected a single value, not a list",
		}},
		{"root", "- a\n", []string{"1: expected keys with values, not a list"}},
		{"number for text", "tenant: 12\n", []string{"1: tenant: expected text: put the value in quotes"}},
		{"no value", "listen:\n", []string{"1: listen: has no value: give one or remove the key"}},
		{"empty value", "listen: ''\n", []string{"1: listen: is empty: give a value or remove the key"}},
		{"bounds", "limits: {connections: 0, request_bytes: 8GiB}\ncheckpoint: {interval: 1ms}\n", []string{
			"1: limits.connections: has to be between 1 and 1000000",
			"1: limits.request_bytes: has to be between 1KiB and 1GiB",
			"2: checkpoint.interval: has to be between 100ms and 1h",
		}},
		{"whole numbers are decimal", "limits: {connections: 0x10, request_bytes: 99999999999999999999}\n", []string{
			"1: limits.connections: expected a whole number",
			"1: limits.request_bytes: expected a size such as 64MiB",
		}},
		{"missing variable", "control_token: ${NOT_SET}\ntenant: a${1}\n", []string{
			"1: control_token: the environment variable NOT_SET is not set",
			"2: tenant: ${ has to be followed by the name of an environment variable and }; write $${ for a plain ${",
		}},
		{"no variables in keys and numbers", "${HOST}: 1\nlimits: {connections: \"${N}\"}\nmode: ${HOST}\n", []string{
			`1: "${HOST}": unknown key, ` + keys + "listen, control, mode, hosts, origins, require_key, behind_tls, tls, control_token, tenant, log, limits, providers, identity, tools, labels, sources, profiles, approval, quotas, prices, checkpoint",
			"2: limits.connections: expected a whole number",
			`3: mode: "${HOST}" is not one of observe, enforce`,
		}},
		{"aliases", "hosts: &a [x]\norigins: *a\n", []string{"1: hosts: anchors and aliases are not supported", "2: origins: anchors and aliases are not supported"}},
		{"unknown anchor", "control_token: *" + canary + "\n", []string{"1: anchors and aliases are not supported; put text that begins with * in quotes"}},
		{"merge", "log: {<<: {level: info}}\n", []string{`1: log."<<": unknown key, the keys here are level, format`}},
		{"tags", "listen: !!str 1\nmode: !x observe\n", []string{"1: listen: tags are not supported", "2: mode: tags are not supported"}},
		{"odd key", "{[a]: b, ? {c: d} : e}\n", []string{"1: a key has to be plain text", "1: a key has to be plain text"}},
		{"two documents", "mode: observe\n---\nmode: enforce\n", []string{"2: a configuration is one document: remove what follows the line ---"}},
		{"not YAML", "mode: observe\nlog: {level\n", []string{"3: not YAML: did not find expected ',' or '}'"}},
		{"deep", strings.Repeat("[", 40) + strings.Repeat("]", 40), []string{"1: not YAML: exceeded max depth of 32"}},

		{"names", "tenant: Acme Inc\nproviders:\n  v1: {dialect: openai, base_url: \"http://a\"}\n  A: {dialect: openai, base_url: \"http://a\"}\n  \"a.b/c\": {dialect: openai, base_url: \"http://a\"}\n", []string{
			"1: tenant: " + nameRule, "3: providers.v1: the name is reserved, choose another one", "4: providers.A: " + nameRule, `5: providers."a.b/c": ` + nameRule,
		}},
		{"missing keys", "providers:\n  local: {retries: 1}\nidentity:\n  issuers:\n    - jwks_url: https://x\n", []string{
			"2: providers.local: dialect is missing", "2: providers.local: base_url is missing",
			"5: identity.issuers[0]: issuer is missing", "5: identity.issuers[0]: audience is missing",
		}},
		{"tools, labels and quotas", `tools:
  - {name: send, class: [egres]}
  - {name: send, arguments: [{name: amount, type: long}]}
  - {name: pay, arguments: [{name: amount, type: string}, {type: number}]}
labels: [{name: a}, {name: a}]
quotas:
  - {name: x, tokens: 5}
  - {name: y, money: "1,50", period: week}
prices: [{input: -1}]
approval: {webhook: {url: "http://chat.example.com/x"}}
`, []string{
			`2: tools: tool "pay": argument "" has the type "": use string, long, bool or set`,
			`2: tools[0].class[0]: "egres" is not one of read, write, egress, irreversible, did you mean "egress"?`,
			"3: tools[1].name: is listed twice",
			"4: tools[2].arguments[0]: has another type in another tool: policies know one type for a name",
			"4: tools[2].arguments[1]: name is missing",
			`4: tools[2].arguments[1].type: "number" is not one of string, long, bool, set`,
			"5: labels[1].name: is listed twice",
			"7: quotas: limit \"x\": calls, tokens and money are counted in a period: hour, day, month or run, not \"\"\nlimit \"y\": it bounds nothing: give a rate, concurrent, calls, tokens, money, depth or within",
			`8: quotas[1].money: "1,50" is not an amount of money: write it like 250 or 0.075, with at most six digits behind the point`,
			`8: quotas[1].period: "week" is not one of hour, day, month, run`,
			`9: prices[0].input: "-1" is not an amount of money: write it like 250 or 0.075, with at most six digits behind the point`,
			"10: approval.webhook.url: plain HTTP is refused, other than to loopback",
		}},
		{"missing keys of nothing", "providers:\n  local:\nidentity:\n  issuers:\n    -\n", []string{
			"2: providers.local: dialect is missing", "2: providers.local: base_url is missing",
			"5: identity.issuers[0]: issuer is missing", "5: identity.issuers[0]: audience is missing",
		}},
		{"base URLs", providers("ftp://a", "https://u:"+canary+"@a", "https://a/?k=${SECRET}", "https://a?", "a.example.com", "https://", "https://a:99999", "http:a", "https://a b", "https://a/#"), []string{
			"2: providers.p0.base_url: expected a URL that begins with http:// or https:// and a host",
			"3: providers.p1.base_url: a URL with a name or password in it is refused",
			"4: providers.p2.base_url: a URL with ? or # in it is refused",
			"5: providers.p3.base_url: a URL with ? or # in it is refused",
			"6: providers.p4.base_url: expected a URL that begins with http:// or https:// and a host",
			"7: providers.p5.base_url: expected a URL that begins with http:// or https:// and a host",
			"8: providers.p6.base_url: the host of the URL is not one",
			"9: providers.p7.base_url: expected a URL that begins with http:// or https:// and a host",
			"10: providers.p8.base_url: expected a URL that begins with http:// or https:// and a host",
			"11: providers.p9.base_url: a URL with ? or # in it is refused",
		}},
		{"fallbacks", `providers:
  openai: {fallback: anthropic}
  anthropic: {fallback: nobody}
  a: {dialect: openai, base_url: "http://a", fallback: b}
  b: {dialect: openai, base_url: "http://a", fallback: c}
  c: {dialect: openai, base_url: "http://a", fallback: b}
  d: {dialect: openai, base_url: "http://a", fallback: d}
`, []string{
			"2: providers.openai.fallback: speaks anthropic, but this provider speaks openai",
			"3: providers.anthropic.fallback: there is no provider of that name",
			"5: providers.b.fallback: leads back to b",
			"6: providers.c.fallback: leads back to c",
			"7: providers.d.fallback: leads back to d",
		}},
		{"open to the network", "mode: enforce\nlisten: 0.0.0.0:4180\ncontrol: :4181\n", []string{
			"2: listen: other than on loopback plain HTTP is refused: set tls, or behind_tls if a proxy ends TLS",
			"2: listen: other than on loopback calls without a key are refused: set require_key: true",
			"3: control: other than on loopback plain HTTP is refused: set tls, or behind_tls if a proxy ends TLS",
			"3: control: other than on loopback a token is needed: set control_token: ${NAME}",
		}},
		{"addresses", "listen: 4180:x\ncontrol: 127.0.0.1\n", []string{"1: listen: " + addressRule, "2: control: " + addressRule}},
		{"same address", "control: 127.0.0.1:4180\ncontrol_token: short\n", []string{"1: control: is the same address as listen", "2: control_token: is shorter than 16 characters"}},
		{"TLS", "tls: {cert: a}\nbehind_tls: true\n", []string{"1: tls: cert and key are needed together", "2: behind_tls: contradicts tls: a proxy in front ends TLS, or this process does"}},
		{"hosts and origins", "hosts: [\"http://a\", \"a:b\", \"a/b\"]\norigins: [\"https://a/\", \"*\", \"https://a\"]\n", []string{
			"1: hosts[0]: expected NAME or NAME:PORT, without a scheme or path", "1: hosts[1]: expected NAME or NAME:PORT, without a scheme or path",
			"1: hosts[2]: expected NAME or NAME:PORT, without a scheme or path",
			"2: origins[0]: an origin has no path, also no / at its end",
			"2: origins[1]: expected a URL that begins with http:// or https:// and a host",
		}},
		{"issuers", "identity:\n  issuers:\n    - {issuer: \"http://a.example.com\", audience: x}\n    - {issuer: \"http://localhost:9\", audience: x, jwks_url: \"http://10.0.0.1/k\"}\n    - {issuer: \"http://localhost:9\", audience: y}\n", []string{
			"3: identity.issuers[0].issuer: plain HTTP is refused, other than to loopback",
			"4: identity.issuers[1].jwks_url: plain HTTP is refused, other than to loopback",
			"5: identity.issuers[2].issuer: is listed twice",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := read(tt.yaml)
			if c != nil || err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if diff := cmp.Diff(tt.want, mistakes(err)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
}

// providers is a file with a provider for each base URL, each on its own line.
func providers(urls ...string) string {
	var b strings.Builder
	b.WriteString("providers:\n")
	for i, u := range urls {
		fmt.Fprintf(&b, "  p%d: {dialect: openai, base_url: %q}\n", i, u)
	}
	return b.String()
}

func TestIsLoopback(t *testing.T) {
	for addr, want := range map[string][2]bool{
		"127.0.0.1:80": {true, true}, "127.9.9.9:0": {true, true}, "[::1]:80": {true, true}, "localhost:80": {true, true},
		"[::ffff:127.0.0.1]:80": {true, true}, "0.0.0.0:80": {false, true}, "[::]:80": {false, true}, ":80": {false, true},
		"127.0.0.1.example.com:80": {false, true}, "localhost.example.com:80": {false, true}, "[fe80::1%eth0]:80": {false, true},
		"127.0.0.1": {false, false}, "127.0.0.1:65536": {false, false}, "127.0.0.1:http": {false, false}, "a b:80": {false, false}, "::1:80": {false, false},
	} {
		if loopback, ok := isLoopback(addr); loopback != want[0] || ok != want[1] {
			t.Errorf("isLoopback(%q) = %v, %v", addr, loopback, ok)
		}
	}
}

func TestConfigOverrides(t *testing.T) {
	file := []byte("listen: nonsense\nrequire_key: true\n")
	c, err := ReadConfig("f.yaml", file, noEnv, Overrides{Listen: "[::1]:0", Control: "localhost:0"})
	if err != nil || c.Listen != "[::1]:0" || c.Control != "localhost:0" {
		t.Errorf("got %+v, %v", c, err)
	}
	_, err = ReadConfig("f.yaml", file, noEnv, Overrides{Listen: "192.0.2.1:80"})
	if want := "--listen: other than on loopback plain HTTP is refused"; err == nil || !strings.Contains(err.Error(), "\n"+want) {
		t.Errorf("got %v, expected %q", err, want)
	}
}

// TestConfigBounds shows that a hostile file ends in a short error soon.
func TestConfigBounds(t *testing.T) {
	for name, text := range map[string]string{
		"too large":      strings.Repeat("#", maxConfig+1),
		"flow list":      "hosts: [" + strings.Repeat("a,", maxConfig/2-8) + "]",
		"block list":     "hosts:\n" + strings.Repeat("- a\n", maxConfig/4-2),
		"keys":           strings.Repeat("a: b\n", maxConfig/5-1),
		"different keys": differentKeys(maxConfig / 10),
		"alias bomb":     "a: &a [x,x,x,x,x,x,x,x,x]\n" + strings.Repeat("b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n", 1000),
		"open brackets":  strings.Repeat("[", maxConfig),
		"open braces":    strings.Repeat("{a: ", maxConfig/4),
		"question marks": strings.Repeat("? ", maxConfig/2),
		"dashes":         strings.Repeat("- ", maxConfig/2),
		"long key":       strings.Repeat("k", maxConfig-8) + ": 1",
		"quotes":         "tenant: \"" + strings.Repeat("\\x41", maxConfig/4-8) + "\"",
	} {
		start := time.Now()
		_, err := read(text)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if n := len(err.Error()); n > 32<<10 {
			t.Errorf("%s: the error has %d bytes", name, n)
		}
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
}

func differentKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	return b.String()[:min(b.Len(), maxConfig)]
}

func TestSecretIsNeverPrinted(t *testing.T) {
	c, err := read("control_token: ${SECRET}\nproviders: {openai: {api_key: \"${SECRET}\"}}\n")
	if err != nil || string(c.ControlToken) != canary {
		t.Fatalf("%+v, %v", c, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", c.ControlToken, "config", c)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", c.ControlToken, "config", c)
	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{log.String(), string(out), fmt.Sprintf("%v %+v %#v %s %q %x %d", c, c, c, c.ControlToken, c.ControlToken, c.ControlToken, c.ControlToken)} {
		if strings.Contains(s, canary) || strings.Contains(s, fmt.Sprintf("%x", canary)) {
			t.Errorf("printed: %s", s)
		}
	}
}

func TestSizeAndDurationText(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1000": 1000, "1KiB": 1024, "1536KiB": 1536 << 10, "2GiB": 2 << 30} {
		if got, err := parseSize(text); err != nil || got != want || got.String() != text {
			t.Errorf("parseSize(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "+1", "1.5MiB", "1 000", "64mib", "8589934592GiB", "1e3"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %v", text, got)
		}
	}
	for text, want := range map[string]time.Duration{"2m": 2 * time.Minute, "24h": 24 * time.Hour, "1h30m": 90 * time.Minute, "1m30s": 90 * time.Second, "100ms": 100 * time.Millisecond} {
		if got := Duration(want).String(); got != text {
			t.Errorf("%v is written %s", want, got)
		}
	}
}

func TestConfigCommand(t *testing.T) {
	golden := func(name string, args ...string) string {
		got := runTable(t.Context(), commands(), noEnv, args...)
		if got.code != 0 || got.stderr != "" {
			t.Fatalf("%v gave %+v", args, got)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got.stdout), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.stdout); diff != "" {
			t.Errorf("%s: run the test with -update if this is meant (-want +got):\n%s", path, diff)
		}
		return path
	}
	example := golden("example.yaml", "config", "example")
	if got := runTable(t.Context(), commands(), noEnv, "config", "check", example); got.code != 0 || got.stdout != example+" is valid\n" {
		t.Errorf("config check of the example gave %+v", got)
	}
	if got := runTable(t.Context(), commands(), noEnv, "config", "check", "--json", example); got.code != 0 || got.stdout != "{\n  \"ok\": true,\n  \"mistakes\": []\n}\n" {
		t.Errorf("config check --json of the example gave %+v", got)
	}
	schema, err := os.ReadFile(golden("schema.json", "config", "schema"))
	if err != nil || !json.Valid(schema) {
		t.Errorf("the schema is not JSON: %v", err)
	}

	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("log:\n  levle: info\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runTable(t.Context(), commands(), noEnv, "config", "check", bad)
	want := "fairlead: the configuration is not valid\n" + bad + ":2: log.levle: unknown key, did you mean \"level\"?\n" +
		"hint: \"fairlead config example\" prints every key with its meaning\n"
	if got.code != exitUsage || got.stdout != "" || got.stderr != want {
		t.Errorf("config check gave %+v, expected %q", got, want)
	}
	got = runTable(t.Context(), commands(), noEnv, "config", "check", bad, "--json")
	var out struct {
		OK       bool
		Mistakes []Mistake
	}
	if err := json.Unmarshal([]byte(got.stdout), &out); err != nil || out.OK || len(out.Mistakes) != 1 || out.Mistakes[0].Line != 2 || out.Mistakes[0].Key != "log.levle" {
		t.Errorf("config check --json gave %+v, %v", got, err)
	}
	if got := runTable(t.Context(), commands(), noEnv, "config", "check", bad+"x"); got.code != exitUsage || !strings.Contains(got.stderr, "reading the configuration: open ") {
		t.Errorf("config check of a missing file gave %+v", got)
	}
}

// TestExampleValues shows that the example says the defaults, and that what it leaves to choose is valid as well.
func TestExampleValues(t *testing.T) {
	var b strings.Builder
	if err := writeExample(&b); err != nil {
		t.Fatal(err)
	}
	want, err := read("")
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(b.String())
	if err != nil || !cmp.Equal(want, got, ignorePos) {
		t.Errorf("the example is not the default: %v\n%s", err, cmp.Diff(want, got, ignorePos))
	}
	all := regexp.MustCompile(`(?m)^( *)#([^ ])`).ReplaceAllString(b.String(), "$1$2")
	got, err = ReadConfig("all", []byte(all), func(string) string { return canary }, Overrides{})
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	var check func(v reflect.Value, key string)
	check = func(v reflect.Value, key string) {
		for _, f := range fieldsOf(v.Type()) {
			fv, key := v.Field(f.index), join(key, f.name)
			switch {
			case fv.Kind() == reflect.Struct:
				check(fv, key)
			case fv.Kind() == reflect.Slice && fv.Len() == 1 && fv.Index(0).Kind() == reflect.Struct:
				check(fv.Index(0), key)
			case fv.IsZero() && f.tag.Get("default") == "":
				t.Errorf("the example has no value for %s", key)
			}
			if f.name == "" || f.tag.Get("doc") == "" {
				t.Errorf("%s has no name or no meaning", key)
			}
		}
	}
	check(reflect.ValueOf(*got), "")
	check(reflect.ValueOf(got.Providers["local"]), "providers.local")
}

// FuzzReadConfig shows that no file makes the reader panic, print a secret or return something invalid.
func FuzzReadConfig(f *testing.F) {
	var b strings.Builder
	if err := writeExample(&b); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		b.String(), "", "providers: {a: {dialect: openai, base_url: \"http://${HOST}\", fallback: a}}", "hosts: [a, b]\nhosts: c",
		"control_token: \"${SECRET}$${x}\"", "a: &a [*a]", "listen: !!str 1", "? [a]: b", "--- a\n--- b", "\ufeffmode: observe", "limits: {request_bytes: 1GiB}",
		"identity:\n  issuers:\n  - issuer: https://a\n", "\"\\x00\": 1", "mode: \"\\e[31m\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadConfig("f", data, testEnv, Overrides{})
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v and %v", c, err)
		}
		if err != nil {
			var e *ConfigError
			if !errors.As(err, &e) || len(e.Mistakes) == 0 || len(e.Mistakes) > maxMistakes {
				t.Fatalf("an error without mistakes: %v", err)
			}
			if strings.Contains(err.Error(), canary) && !bytes.Contains(data, []byte("canary")) {
				t.Fatalf("the error holds a secret: %v", err)
			}
			return
		}
		for name, p := range c.Providers {
			if p.BaseURL == "" || p.Dialect == "" || p.Mode == "" || p.OnFailure == "" || p.Timeout <= 0 || !isName(name) {
				t.Fatalf("accepted provider %q: %+v", name, p)
			}
		}
		if c.Limits.Connections < 1 || c.Limits.RequestBytes < 1 || c.Mode == "" || c.Listen == "" {
			t.Fatalf("accepted %+v", c)
		}
	})
}
