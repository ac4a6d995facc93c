package cli

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
)

// maxConfig is the size of the largest configuration file that is read.
const maxConfig = 1 << 20

// Config is what a configuration file can say, in the words of the file: the tags hold name, meaning and default of
// each key, and "fairlead config example" prints them as a file. Every key has a default, so that an empty file is
// valid, and so is none.
//
// The file is one YAML document. In text values ${NAME} stands for an environment variable, which has to be set, and
// $${ for a plain ${. Sizes are written as 64MiB, times as 1m30s. Anchors, aliases and tags are refused.
//
// A Config that comes from [LoadConfig] or [ReadConfig] is complete (nothing is left to default) and valid.
type Config struct {
	Listen       string              `yaml:"listen" default:"127.0.0.1:4180" doc:"Where applications send their calls (the data plane). Other than on loopback it needs TLS and keys: tls or behind_tls, and require_key."`
	Control      string              `yaml:"control" default:"127.0.0.1:4181" doc:"Where health, metrics, tiles and checkpoints are served (the control plane). Other than on loopback it needs TLS and control_token."`
	Mode         string              `yaml:"mode" default:"observe" enum:"observe,enforce" doc:"observe holds and refuses nothing that the provider would accept, and records what it would have done. enforce holds and refuses."`
	Hosts        []string            `yaml:"hosts" example:"ai.example.com" doc:"Host headers that are accepted besides loopback names and the listening address: a name, or name:port."`
	Origins      []string            `yaml:"origins" example:"https://app.example.com" doc:"Browser origins that may call. All others are refused, also on loopback."`
	RequireKey   bool                `yaml:"require_key" default:"false" doc:"Whether every call needs a virtual key (see fairlead help key)."`
	BehindTLS    bool                `yaml:"behind_tls" default:"false" doc:"Says that a proxy in front ends TLS, so that plain HTTP is accepted other than on loopback."`
	TLS          TLS                 `yaml:"tls" doc:"Certificate for both listeners. The files are read again when they change."`
	ControlToken Secret              `yaml:"control_token" example:"${FAIRLEAD_CONTROL_TOKEN}" doc:"Bearer token for the control plane, at least 16 characters. Liveness and readiness do not ask for it."`
	Tenant       string              `yaml:"tenant" default:"default" doc:"Name of the tenant that everything is recorded under. It is part of every fact and cannot be changed for old ones."`
	Log          Log                 `yaml:"log" doc:"The process's own log, on standard error. It never holds content or credentials."`
	Limits       Limits              `yaml:"limits" doc:"Bounds on what one client or provider can make the gateway hold."`
	Providers    map[string]Provider `yaml:"providers" example:"local" doc:"Model providers by name: NAME is reachable as /NAME/ with the provider's own paths behind it. The providers openai and anthropic are there without being listed; what is said about them here replaces single keys."`
	Identity     Identity            `yaml:"identity" doc:"Who vouches for people."`
	Tools        []Tool              `yaml:"tools" doc:"What tools can do. Policies decide by it which calls a model may ask for."`
	Labels       []Label             `yaml:"labels" doc:"Data labels, and who may have what carries them."`
	Sources      []Source            `yaml:"sources" doc:"Labels content by where it comes from. System prompts come from the operator, user messages from the user, and what tools return is untrusted unless the tool is vetted."`
	Profiles     Profiles            `yaml:"profiles" doc:"Which kind of rule decides about tool calls. guaranteed: deterministic rules only; after untrusted content such a tool needs an endorsement. balanced: heuristic evidence about each argument."`
	Approval     Approval            `yaml:"approval" doc:"Endorsements of what policy holds."`
	Quotas       []Quota             `yaml:"quotas" doc:"Limits on what callers may use. All that apply to a call count."`
	Prices       []Price             `yaml:"prices" doc:"What models cost, for limits on money."`
	Checkpoint   Checkpoint          `yaml:"checkpoint" doc:"Signed tree heads."`

	pos positions
}

// TLS names a certificate and its key.
type TLS struct {
	Cert string `yaml:"cert" example:"fairlead.pem" doc:"PEM file with the certificate chain."`
	Key  string `yaml:"key" example:"fairlead-key.pem" doc:"PEM file with the private key."`
}

// Log configures the process's own log.
type Log struct {
	Level  string `yaml:"level" default:"info" enum:"debug,info,warn,error" doc:"The least important messages to write. It can be changed at run time."`
	Format string `yaml:"format" default:"text" enum:"text,json" doc:"Form of a line."`
}

// Limits bounds what one client or provider can make the gateway hold.
type Limits struct {
	RequestBytes  Size     `yaml:"request_bytes" default:"64MiB" min:"1KiB" max:"1GiB" doc:"Largest request body."`
	ResponseBytes Size     `yaml:"response_bytes" default:"64MiB" min:"1KiB" max:"1GiB" doc:"Largest answer."`
	HeaderTimeout Duration `yaml:"header_timeout" default:"60s" min:"1s" max:"1h" doc:"How long a client may take to send its headers."`
	IdleTimeout   Duration `yaml:"idle_timeout" default:"120s" min:"1s" max:"24h" doc:"How long an idle connection is kept."`
	StreamIdle    Duration `yaml:"stream_idle" default:"300s" min:"1s" max:"24h" doc:"How long a streaming answer may be silent."`
	Connections   int      `yaml:"connections" default:"1024" min:"1" max:"1000000" doc:"Most client connections at a time. Further ones wait."`
}

// Provider is an upstream that serves models.
type Provider struct {
	Dialect    string   `yaml:"dialect" required:"true" enum:"openai,anthropic" example:"openai" doc:"Wire format. openai is also spoken by most other servers."`
	BaseURL    string   `yaml:"base_url" required:"true" example:"http://127.0.0.1:8000" doc:"URL that the provider's own paths are appended to, without /v1."`
	APIKey     Secret   `yaml:"api_key" example:"${LOCAL_API_KEY}" doc:"The provider's key, used only for calls with a virtual key. Without it the client's own key passes through."`
	Mode       string   `yaml:"mode" enum:"observe,enforce" example:"observe" doc:"As mode above, which is the default."`
	Durability string   `yaml:"durability" default:"strict" enum:"strict,async" doc:"strict records durably before it answers. async answers first, so that a crash can lose records; counters make the loss evident."`
	OnFailure  string   `yaml:"on_failure" enum:"closed,open" example:"closed" doc:"What happens to a call that cannot be recorded or judged: closed refuses it, open lets it pass and records the gap. The default is closed in enforce mode and open in observe mode."`
	Hold       Duration `yaml:"hold" default:"0s" min:"0s" max:"1h" doc:"In enforce mode, how long a connection is held for somebody to approve a tool call. With 0s the answer goes out at once without the call, and the same request can be sent again once it is approved."`
	Retries    int      `yaml:"retries" default:"0" min:"0" max:"5" doc:"Further attempts when the provider fails before the first byte of its answer."`
	Fallback   string   `yaml:"fallback" example:"openai" doc:"Name of the provider of the same dialect that is asked when this one fails before the first byte."`
	Timeout    Duration `yaml:"timeout" default:"600s" min:"1s" max:"24h" doc:"How long one attempt may take in all."`
}

// Identity names who vouches for people.
type Identity struct {
	Issuers []Issuer `yaml:"issuers" doc:"OpenID Connect issuers whose tokens are accepted in Fairlead-Subject-Token."`
}

// Issuer is an OpenID Connect issuer.
type Issuer struct {
	Issuer   string `yaml:"issuer" required:"true" example:"https://login.example.com" doc:"The issuer's URL, exactly as in the iss claim."`
	Audience string `yaml:"audience" required:"true" example:"fairlead" doc:"The aud claim that a token for us has."`
	JWKSURL  string `yaml:"jwks_url" example:"https://login.example.com/keys" doc:"Where the issuer's keys are. The default is what its discovery document says."`
}

// Checkpoint configures signed tree heads.
type Checkpoint struct {
	Interval Duration `yaml:"interval" default:"1s" min:"100ms" max:"1h" doc:"How often a new tree head is signed and published while there are new facts."`
}

// builtin are the providers of a configuration that lists none.
func builtin() map[string]Provider {
	return map[string]Provider{
		"openai":    {Dialect: "openai", BaseURL: "https://api.openai.com"},
		"anthropic": {Dialect: "anthropic", BaseURL: "https://api.anthropic.com"},
	}
}

// Overrides are what the command line says instead of the file. An empty value leaves what the file says.
type Overrides struct {
	Listen, Control string
}

// LoadConfig reads the file at path; with an empty path it is as if the file were empty. getenv supplies the
// environment variables that the file refers to. The error is a [*ConfigError] when the content is at fault.
func LoadConfig(path string, getenv func(string) string, over Overrides) (*Config, error) {
	if path == "" {
		return ReadConfig("", nil, getenv, over)
	}
	data, err := readConfigFile(path)
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("reading the configuration: %w", err), Code: exitUsage}
	}
	return ReadConfig(path, data, getenv, over)
}

// readConfigFile reads at most one byte more than is allowed, which [ReadConfig] then refuses.
func readConfigFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfig+1))
}

// ReadConfig is [LoadConfig] for a file that is already in memory; name stands for it in errors.
func ReadConfig(name string, data []byte, getenv func(string) string, over Overrides) (*Config, error) {
	c := new(Config)
	setDefaults(reflect.ValueOf(c).Elem())
	c.Providers = map[string]Provider{}
	for name, p := range builtin() {
		setDefaults(reflect.ValueOf(&p).Elem())
		c.Providers[name] = p
	}
	r := &reader{getenv: getenv, pos: positions{}, err: &ConfigError{File: name}}
	r.read(data, c)
	for key, value := range map[string]string{"listen": over.Listen, "control": over.Control} {
		if value != "" {
			*map[string]*string{"listen": &c.Listen, "control": &c.Control}[key] = value
			r.pos[key] = position{flag: "--" + key}
		}
	}
	c.pos = r.pos
	c.check(r.err)
	if err := r.err.orNil(); err != nil {
		return nil, &Error{Err: err, Code: exitUsage, Hints: []string{`"fairlead config example" prints every key with its meaning`}}
	}
	for name, p := range c.Providers {
		p.BaseURL = strings.TrimRight(p.BaseURL, "/")
		if p.Mode == "" {
			p.Mode = c.Mode
		}
		if p.OnFailure == "" {
			p.OnFailure = map[string]string{"observe": "open", "enforce": "closed"}[p.Mode]
		}
		c.Providers[name] = p
	}
	return c, nil
}
