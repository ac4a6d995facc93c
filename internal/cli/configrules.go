package cli

import (
	"strconv"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/policy"
)

// Tool is what the operator says about a tool.
type Tool struct {
	Name      string     `yaml:"name" required:"true" example:"send_email" doc:"The tool's exact name, or a pattern with one * at its end (\"mcp__github__*\"). The longest match wins."`
	Class     []string   `yaml:"class" example:"egress" doc:"What the tool can do: read (looks something up), write (changes what can be changed back), egress (sends data to where it was not before), irreversible (cannot be taken back). A tool that is not listed counts as egress."`
	Authority []string   `yaml:"authority" example:"to" doc:"Arguments that say to whom, where to or on what the tool acts. Without it they are found by name and shape."`
	Arguments []Argument `yaml:"arguments" doc:"Types of arguments that policies test, as context.arg."`
	Vetted    bool       `yaml:"vetted" default:"false" doc:"Whether what the tool returns can be trusted. Otherwise it is untrusted content."`
	Labels    []string   `yaml:"labels" example:"customer-data" doc:"Data labels on what the tool returns."`
}

// Argument is the type of a tool's argument.
type Argument struct {
	Name string `yaml:"name" required:"true" example:"amount" doc:"Name of the argument."`
	Type string `yaml:"type" required:"true" enum:"string,long,bool,set" example:"long" doc:"Its type in policies; set is a list of strings."`
}

// Label is a data label.
type Label struct {
	Name    string   `yaml:"name" required:"true" example:"customer-data" doc:"Name of the data label."`
	Readers []string `yaml:"readers" example:"provider:local" doc:"Who may have what carries the label: provider:NAME, model:NAME, tool:NAME or class:CLASS, each possibly with a * at its end. Nobody else."`
}

// Source labels content by where it comes from.
type Source struct {
	Role      string   `yaml:"role" enum:"system,user,assistant,tool" example:"user" doc:"Role of the messages that the rule is about; all if it is left out."`
	Tool      string   `yaml:"tool" example:"search_web" doc:"Tool whose results the rule is about, or a pattern with one * at its end."`
	Open      string   `yaml:"open" example:"<document>" doc:"With close: only what stands between these markers, from the first open to the last close."`
	Close     string   `yaml:"close" example:"</document>" doc:"See open."`
	Integrity string   `yaml:"integrity" enum:"operator,user,vetted,untrusted" example:"untrusted" doc:"How far the content can be trusted."`
	Labels    []string `yaml:"labels" example:"customer-data" doc:"Data labels on the content."`
}

// Profiles chooses, for each class of tools, which kind of rule decides.
type Profiles struct {
	Read         string `yaml:"read" default:"balanced" enum:"balanced,guaranteed" doc:"For tools that look something up."`
	Write        string `yaml:"write" default:"balanced" enum:"balanced,guaranteed" doc:"For tools that change what can be changed back."`
	Egress       string `yaml:"egress" default:"balanced" enum:"balanced,guaranteed" doc:"For tools that send data out, and for those that nobody classified."`
	Irreversible string `yaml:"irreversible" default:"guaranteed" enum:"balanced,guaranteed" doc:"For tools whose effect cannot be taken back."`
}

// Approval configures endorsements.
type Approval struct {
	Expiry       Duration `yaml:"expiry" default:"1h" min:"1s" max:"24h" doc:"How long a held call waits for an answer. Unanswered means denied."`
	Grant        Duration `yaml:"grant" default:"10m" min:"1s" max:"24h" doc:"How long a grant can be used, once."`
	VerifiedOnly bool     `yaml:"verified_only" default:"false" doc:"Whether only those may approve who show a token of a configured issuer, and not whoever can reach the control socket."`
	Webhook      Webhook  `yaml:"webhook" doc:"Who is told of requests and decisions. What is sent holds no content."`
}

// Webhook is where requests for approval are announced.
type Webhook struct {
	URL    string `yaml:"url" example:"https://chat.example.com/hooks/fairlead" doc:"Where to POST: https, or http on loopback."`
	Secret Secret `yaml:"secret" example:"${FAIRLEAD_WEBHOOK_SECRET}" doc:"Key of the signature in the header Fairlead-Signature."`
}

// Quota bounds what callers may use.
type Quota struct {
	Name       string   `yaml:"name" required:"true" example:"agent-run" doc:"How refusals and the ledger call the limit."`
	Apps       []string `yaml:"apps" example:"support-*" doc:"Apps that it applies to, as patterns with *; all if it is left out. With ! in front: all but these."`
	Users      []string `yaml:"users" example:"u:*" doc:"Users that it applies to, likewise."`
	Agents     []string `yaml:"agents" example:"planner" doc:"Agents that it applies to, likewise."`
	Keys       []string `yaml:"keys" example:"qyj4hsnue4" doc:"Virtual keys that it applies to, by id, likewise."`
	Providers  []string `yaml:"providers" example:"openai" doc:"Providers that it applies to, likewise."`
	Models     []string `yaml:"models" example:"gpt-*" doc:"Models that it applies to, likewise."`
	Per        []string `yaml:"per" example:"run" doc:"What has a counter of its own: app, user, agent, key, provider, model, run. Without it all calls share one."`
	Declared   bool     `yaml:"declared" default:"false" doc:"Whether apps, users and agents that are merely declared get a counter each, and do not share one."`
	Requests   Count    `yaml:"requests" min:"0" max:"1000000" example:"60" doc:"Requests let through every so often, evenly."`
	Every      Duration `yaml:"every" default:"1m" min:"1ms" max:"24h" doc:"The time of requests."`
	Burst      Count    `yaml:"burst" min:"0" max:"1000000" example:"10" doc:"Requests let through at once; as many as requests if it is left out."`
	Concurrent Count    `yaml:"concurrent" min:"0" max:"1000000" example:"8" doc:"Calls at a time."`
	Calls      Count    `yaml:"calls" min:"0" max:"1000000000000" example:"40" doc:"Calls in a period."`
	Tokens     Count    `yaml:"tokens" min:"0" max:"1000000000000" example:"200000" doc:"Tokens in and out in a period."`
	Money      Money    `yaml:"money" example:"2.50" doc:"Money in a period, in the currency of prices."`
	Period     string   `yaml:"period" enum:"hour,day,month,run" example:"run" doc:"When calls, tokens and money start again: an hour, day or month of the calendar in UTC, or a run of an agent."`
	Depth      Count    `yaml:"depth" min:"0" max:"1000" example:"3" doc:"Agents above the one that calls, at most."`
	Within     Duration `yaml:"within" min:"0s" max:"720h" example:"30m" doc:"How long after its first call a run may make another."`
}

// Price is what a million tokens cost.
type Price struct {
	Provider   string `yaml:"provider" example:"openai" doc:"Provider, as a pattern with *; all if it is left out."`
	Model      string `yaml:"model" example:"gpt-5*" doc:"Model, as a pattern with *; all if it is left out. The first price that fits counts."`
	Input      Money  `yaml:"input" example:"1.25" doc:"For a million tokens of input."`
	Output     Money  `yaml:"output" example:"10" doc:"For a million tokens of output."`
	CacheRead  Money  `yaml:"cache_read" example:"0.125" doc:"For a million tokens of input from the provider's cache; as input if it is left out."`
	CacheWrite Money  `yaml:"cache_write" example:"1.5" doc:"For a million tokens of input written to the provider's cache; as input if it is left out."`
}

// flowConfig puts the configuration into the words of package flow.
func (c *Config) flowConfig() flow.Config {
	out := flow.Config{Tools: map[string]flow.Tool{}, Labels: map[string]flow.DataLabel{}, Profiles: map[policy.Class]policy.Profile{
		policy.Read: policy.Profile(c.Profiles.Read), policy.Write: policy.Profile(c.Profiles.Write),
		policy.Egress: policy.Profile(c.Profiles.Egress), policy.Irreversible: policy.Profile(c.Profiles.Irreversible)}}
	for _, t := range c.Tools {
		tool := flow.Tool{Authority: t.Authority, Vetted: t.Vetted, Data: t.Labels, Arguments: map[string]string{}}
		for _, name := range t.Class {
			tool.Classes = append(tool.Classes, policy.Class(name))
		}
		for _, a := range t.Arguments {
			tool.Arguments[a.Name] = a.Type
		}
		out.Tools[t.Name] = tool
	}
	for _, l := range c.Labels {
		out.Labels[l.Name] = flow.DataLabel{Readers: l.Readers}
	}
	for _, s := range c.Sources {
		source := flow.Source{Role: fairlead.Role(s.Role), Tool: s.Tool, Open: s.Open, Close: s.Close, Data: s.Labels}
		if i, ok := fairlead.ParseIntegrity(s.Integrity); ok {
			source.Integrity = &i
		}
		out.Sources = append(out.Sources, source)
	}
	return out
}

// argumentTypes are the types of the arguments that policies test.
func (c *Config) argumentTypes() map[string]string {
	out := map[string]string{}
	for _, t := range c.Tools {
		for _, a := range t.Arguments {
			out[a.Name] = a.Type
		}
	}
	return out
}

// quotas puts the limits into the words of package budget.
func (c *Config) quotas() ([]budget.Limit, []budget.Price) {
	var limits []budget.Limit
	for _, q := range c.Quotas {
		l := budget.Limit{Name: q.Name, Apps: q.Apps, Users: q.Users, Agents: q.Agents, Keys: q.Keys, Declared: q.Declared, Providers: q.Providers, Models: q.Models, Per: q.Per,
			Concurrent: int64(q.Concurrent), Calls: int64(q.Calls), Tokens: int64(q.Tokens), Money: budget.Money(q.Money),
			Period: budget.Period(q.Period), Depth: int64(q.Depth), Within: time.Duration(q.Within)}
		if q.Requests > 0 {
			l.Rate = budget.Rate{Requests: int64(q.Requests), Every: time.Duration(q.Every), Burst: int64(q.Burst)}
		}
		limits = append(limits, l)
	}
	var prices []budget.Price
	for _, p := range c.Prices {
		prices = append(prices, budget.Price{Provider: p.Provider, Model: p.Model, Input: budget.Money(p.Input), Output: budget.Money(p.Output),
			CacheRead: budget.Money(p.CacheRead), CacheWrite: budget.Money(p.CacheWrite)})
	}
	return limits, prices
}

// checkRules reports what is wrong with tools, labels, sources, limits and prices.
func (c *Config) checkRules(bad func(key, format string, args ...any)) {
	seen := map[string]bool{}
	types := map[string]string{}
	for i, t := range c.Tools {
		key := "tools[" + strconv.Itoa(i) + "]"
		if seen[t.Name] {
			bad(key+".name", "is listed twice")
		}
		seen[t.Name] = true
		for j, name := range t.Class {
			if err := oneOf(name, []string{string(policy.Read), string(policy.Write), string(policy.Egress), string(policy.Irreversible)}); err != nil {
				bad(key+".class["+strconv.Itoa(j)+"]", "%v", err)
			}
		}
		for j, a := range t.Arguments {
			if old := types[a.Name]; old != "" && old != a.Type {
				bad(key+".arguments["+strconv.Itoa(j)+"]", "has another type in another tool: policies know one type for a name")
			}
			types[a.Name] = a.Type
		}
	}
	seen = map[string]bool{}
	for i, l := range c.Labels {
		if seen[l.Name] {
			bad("labels["+strconv.Itoa(i)+"].name", "is listed twice")
		}
		seen[l.Name] = true
	}
	if _, err := flow.Compile(c.flowConfig()); err != nil {
		bad("tools", "%v", err)
	}
	limits, prices := c.quotas()
	if _, err := budget.New(budget.Config{Limits: limits, Prices: prices}); err != nil {
		bad("quotas", "%v", err)
	}
	if url := c.Approval.Webhook.URL; url != "" {
		if msg := secureFault(url); msg != "" {
			bad("approval.webhook.url", "%s", msg)
		}
	}
}
